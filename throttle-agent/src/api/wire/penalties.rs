//! Sources that limits refuse again and again: who is sentenced, and how near others are to it.

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A sentence of a source by the penalty of a limit, served or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SentenceView {
    /// The limit.
    pub limit: String,
    /// The source, as that limit sees it.
    #[schema(value_type = String)]
    pub prefix: IpNet,
    /// Which one it is, from 1 on: the next is longer.
    pub times: u32,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// When it ends, or has ended.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// When it is forgotten, if no other follows: the next is then the first again.
    #[schema(value_type = String, format = DateTime)]
    pub forgotten: Timestamp,
    /// Whether it is only observed what would be: nobody is blocked.
    pub observed: bool,
}

/// How near a source is to the penalty of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PenaltyWalk {
    /// How many refusals trip it.
    pub after: u32,
    /// Within how long, in seconds.
    pub within_seconds: f64,
    /// How many there were of this source that count.
    pub refused: u32,
    /// How long until they are forgotten, in seconds; 0 where there are none.
    pub forgotten_in_seconds: f64,
    /// Whether refusals count of whom nothing proves that its address is its own.
    pub unproven: bool,
}

/// What the penalty of one limit came to since the agent was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SentenceCounts {
    /// Sources that were blocked.
    pub sentenced: u64,
    /// Sources that would have been blocked, where the limit or the host only observes.
    pub observed: u64,
}

/// What all penalties came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PenaltyCounts {
    /// Sentences that are being served now.
    pub serving: u64,
    /// Sentences that are remembered, served or not, observed ones included.
    pub remembered: u64,
    /// How many there is room for.
    pub room: u64,
    /// Offences without a sentence, because as many are being served as there is room for, since the agent was started.
    /// Reads 0.
    pub full: u64,
    /// Offences that were not told at once, because a CPU tells of a thousand a second, or no agent listened; who goes on
    /// is told of later. Reads 0, but in a flood from many sources.
    pub untold: u64,
    /// Refusals that count for nothing, because nothing proves that whoever sent them has the address.
    pub unproven: u64,
    /// Refusals that found no room to be counted. Reads 0.
    pub uncounted: u64,
}
