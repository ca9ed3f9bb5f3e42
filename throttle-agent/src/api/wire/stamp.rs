//! A stamp as one of its hosts sees it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A stamp as this host sees it: by what the hosts gossip, which others see a moment earlier or later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StampView {
    /// Its name.
    pub stamp: String,
    /// This host's name in it.
    pub host: String,
    /// What is wrong with it, each with its remedy; empty when all is well. `throttle status` warns of the same.
    pub warnings: Vec<String>,
    /// Every host, by name: those that take part, and those that have done so within the last day.
    pub hosts: Vec<StampHostView>,
    /// Hosts that differ from most.
    pub skew: Vec<SkewView>,
    /// The names of the keys that this host has, the one that seals first.
    pub keys: Vec<String>,
    /// What came of datagrams since the agent was started.
    pub datagrams: StampDatagrams,
    /// What came of asking other hosts for changes of the policy since the agent was started.
    #[serde(default)]
    pub exchanges: StampExchanges,
    /// How this host stands in the stamp's policy.
    #[serde(default)]
    pub policy: StampPolicy,
    /// The last changes, the newest first, at most 100.
    pub changes: Vec<StampChange>,
}

/// A host of a stamp: what is seen of it, and what it says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StampHostView {
    /// Its name.
    pub host: String,
    /// Where it listens for gossip.
    pub address: String,
    /// Whether it is the host that answers.
    pub own: bool,
    /// `alive`, `suspect` (silent for longer than is usual), `dead`, `left` (it ended in good order) or `unheard` (others know
    /// of it, this host has not heard it live).
    pub state: String,
    /// For how many seconds it has been that.
    pub since_seconds: f64,
    /// How long it has been silent, in terms of how often it is heard: suspect above 4, dead above 8. 0 of this host, and of
    /// those that are gone.
    pub suspicion: f64,
    /// How many seconds ago it was heard last; absent of this host, and of those that it has never heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_seconds: Option<f64>,
    /// Which run of its agent it is: the time of its start by its own clock, in milliseconds since 1970.
    pub generation: u64,
    /// The kernel's name of its boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// The version of its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// The kernel's hash of its XDP program, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// The number of the policy in force there. Each host counts its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The digest of the policy in force there: 16 hexadecimal digits of SHA-256 over its JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// `enforce` or `observe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Which changes of the stamp's policy it knows: 16 hexadecimal digits over the last ones, and their number; `own` where it
    /// has not got the stamp's policy yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<String>,
    /// Its load average of a minute for each of its CPUs: 1 is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// Frames that it judges each second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets_per_second: Option<f64>,
    /// Frames that it refuses each second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_per_second: Option<f64>,
    /// The names of its keys, the one that seals first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

/// A host that differs from most, or, where no value is that of more than half, one of those that differ from each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SkewView {
    /// In what: `build`, `program`, `policy` or `key`.
    pub subject: String,
    /// Who.
    pub host: String,
    /// What it has.
    pub has: String,
    /// What more than half of the hosts have; absent where nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<String>,
    /// For how many seconds.
    pub since_seconds: f64,
}

/// What came of datagrams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StampDatagrams {
    /// Sent.
    pub sent: u64,
    /// Those that the system did not take, or that were too long. Reads 0, but where a network is down.
    pub unsent: u64,
    /// Those that came and count.
    pub received: u64,
    /// Those that came and do not count.
    pub refused: Vec<RefusedDatagrams>,
}

/// What came of asking other hosts for changes of the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StampExchanges {
    /// How often one was asked and answered.
    pub done: u64,
    /// How often one was asked and did not. Grows where a network or a host fails.
    pub failed: u64,
    /// Connections from whoever has none of the stamp's keys. Reads 0, where nobody scans the port.
    pub strangers: u64,
}

/// How a host stands in the stamp's policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StampPolicy {
    /// Whether it has the stamp's policy; else what is written on it is its own alone.
    pub belongs: bool,
    /// How many changes it knows. All are kept.
    pub changes: u64,
    /// Fields that hosts gave different values at the same time: `throttle policy conflicts`.
    pub conflicts: u64,
    /// Entries that are not in force, because together with the rest they are no policy.
    pub set_aside: u64,
    /// What came as a change and is none: `throttle policy dead-letters`.
    pub dead_letters: u64,
    /// Changes of its own since the agent was started.
    pub made: u64,
    /// Changes of others that it took in since.
    pub taken: u64,
    /// Conflicts that came up since.
    pub conflicts_seen: u64,
    /// What came since and is no change, by reason. Reads 0.
    pub refused: Vec<RefusedChanges>,
}

/// What came as a change and is none, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedChanges {
    /// `malformed`, `unknown-schema`, `unsigned`, `forged` or `forked`.
    pub reason: String,
    /// How many.
    pub changes: u64,
}

/// Datagrams that do not count, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedDatagrams {
    /// `unknown-key` (another key, or another stamp), `forged`, `replayed`, `malformed`, or `unaddressed` (sealed for nobody,
    /// or for an earlier run of this agent: a few whenever somebody joins). Others read 0.
    pub reason: String,
    /// How many.
    pub datagrams: u64,
}

/// Something that has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StampChange {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// With which host.
    pub host: String,
    /// What, in words.
    pub message: String,
}
