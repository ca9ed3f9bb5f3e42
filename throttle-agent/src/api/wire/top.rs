//! Who talks, which limits act, and why packets are refused: one look, for who compares two of them.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{HealthLine, ReasonCount, Tallies};
use crate::policy::Mode;

/// How much to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct TopQuery {
    /// Talkers, and sources that were refused: 1 to 1000, by default 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most: Option<u16>,
}

/// One look. Counts only grow, so that two looks give rates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Top {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The same on the clock that the kernel reads, which never jumps, in seconds.
    pub clock_seconds: f64,
    /// The revision in force.
    pub revision: u64,
    /// Whether the host enforces it.
    pub mode: Mode,
    /// The sources that use their limits most, across all limits, as many of rates and of open connections as were asked
    /// for: first those whose next packet finds no room, and of them those that were refused most.
    pub talkers: Vec<Talker>,
    /// Every limit.
    pub limits: Vec<TopLimit>,
    /// Every service that follows its health.
    #[serde(default)]
    pub health: Vec<HealthLine>,
    /// Frames by reason and outcome.
    pub reasons: Vec<ReasonCount>,
    /// Who was refused within the last minute, of the refusals that were sampled; the most often first.
    pub refused: Vec<RefusedSource>,
}

/// A source that has a bucket in debt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Talker {
    /// An address or prefix; `#` and a number where the limit keeps only a fingerprint of it (an IPv6 prefix longer than
    /// /64).
    pub source: String,
    /// The limit whose bucket it is.
    pub limit: String,
    /// `packets`, `bytes` or `connections`.
    pub unit: String,
    /// The share of the bucket that is used up, 0 to 1.
    pub used: f64,
    /// Units that it has room for.
    pub room: u64,
    /// How long until it is full again, in seconds; 0 where the limit counts open connections.
    pub debt_seconds: f64,
    /// Units that were charged since some instant, and those that would have been had the source never paused: the growth
    /// of this between two looks is what the source was admitted where it was in debt throughout, and more where not.
    /// Where the limit counts in windows, what the one that runs has admitted: it begins anew with each.
    pub charged: f64,
    /// Its connections that are open, where the limit counts those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<u64>,
    /// Its refusals by this limit within the last minute that were sampled.
    pub refused: u64,
}

/// A limit at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopLimit {
    /// Its name.
    pub limit: String,
    /// Its service; absent where it is the host's.
    pub service: Option<String>,
    /// `packets`, `bytes` or `connections`.
    pub unit: String,
    /// What the policy says: `50/s`.
    pub rate: String,
    /// How many open connections the health of its service leaves, where that is fewer than the policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// Whether it refuses, or only observes.
    pub mode: Mode,
    /// What it did since it exists.
    pub tallies: Tallies,
    /// Connections that are open of sources that found no place, and are counted with their aggregates; 0 where the limit
    /// does not count those.
    #[serde(default)]
    pub in_aggregates: u64,
    /// Sources that owe something.
    pub busy: u64,
    /// Sources that it has room for; 0 where sources share its buckets.
    pub slots: u64,
}

/// Refusals of one source for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedSource {
    /// Who; absent for frames without addresses.
    #[schema(value_type = Option<String>)]
    pub source: Option<IpAddr>,
    /// Why, e.g. `source-limit`.
    pub reason: String,
    /// What became of them.
    pub outcome: String,
    /// The limit that refused.
    pub limit: Option<String>,
    /// How many were sampled within the last minute.
    pub sampled: u64,
    /// The last of them.
    #[schema(value_type = String, format = DateTime)]
    pub last: Timestamp,
}
