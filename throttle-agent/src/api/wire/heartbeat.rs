//! Heartbeats: what backends push, and what is seen of them.

use std::{collections::BTreeMap, net::SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A heartbeat that a backend pushes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatRequest {
    /// The backend's name in the policy.
    pub backend: String,
    /// Which instance of it, where the policy finds its addresses by a DNS name or a file that gives several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<SocketAddr>,
    /// The host that it runs on: 1 to 128 characters.
    pub node: String,
    /// The boot of that host: a UUID, as in `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Orders the backend's starts within a boot: the higher is the later, so that what an earlier one sends late is refused.
    /// A counter, or the milliseconds of CLOCK_BOOTTIME at the start; those of the wall clock will do, but where it is set
    /// back a restarted backend is refused until its former start has been silent for 3 s and for three intervals. Of
    /// another `boot_id` any is later.
    pub generation: u64,
    /// Grows with each heartbeat of a generation.
    pub sequence: u64,
    /// The backend's wall clock: shown, never judged by.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// How much of what it can do it is asked for, 0 to 1000; 1 is all. Above 1 it is overloaded: where most backends of a
    /// service say so, limits that follow its heartbeats shrink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// How long its own answers take, in seconds, 0 to 3600: where nobody else can measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_seconds: Option<f64>,
    /// What it runs: up to 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// Whatever else is to be shown beside it; names and values have 1024 bytes in all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// What became of a pushed heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatTaken {
    /// The service that the backend stands behind.
    pub service: String,
    /// The backend.
    pub backend: String,
    /// The instance of it.
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// Whether it counts; one that came before does not.
    pub fresh: bool,
    /// How often the backend is to beat.
    pub interval_seconds: f64,
}

/// What is seen of every instance of every backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Heartbeats {
    /// By service, backend and address.
    pub heartbeats: Vec<HeartbeatView>,
    /// What was seen, but not looked at in time. Reads 0.
    pub lost: u64,
}

/// What is seen of an instance of a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatView {
    /// The service that it stands behind.
    pub service: String,
    /// The backend.
    pub backend: String,
    /// Where it is.
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// How it is asked: `tcp`, `http`, `grpc`, or `push` where it beats by itself.
    pub probe: String,
    /// How often it is asked, or is to beat.
    pub interval_seconds: f64,
    /// What was seen last, for people; absent where nothing was yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// How long ago that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ago_seconds: Option<f64>,
    /// How long the last answer took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_seconds: Option<f64>,
    /// Probes that were answered well.
    pub answered: u64,
    /// Probes that were answered with an error.
    pub failed: u64,
    /// Probes that were not answered in time.
    pub unanswered: u64,
    /// Probes whose connection was refused.
    pub refused: u64,
    /// Probes that this host could not send.
    pub unsent: u64,
    /// Heartbeats that it pushed.
    pub beats: u64,
    /// The last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed: Option<PushedView>,
}

/// The last heartbeat that an instance pushed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PushedView {
    /// How long ago it came.
    pub ago_seconds: f64,
    /// The host that it runs on.
    pub node: String,
    /// The boot of that host.
    pub boot_id: String,
    /// The backend's start within it.
    pub generation: u64,
    /// Its number.
    pub sequence: u64,
    /// What the backend's wall clock said.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// How much of what it can do it does; 1 is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// What it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// Whatever else it said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}
