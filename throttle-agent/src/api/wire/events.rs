//! The stream of sampled refusals.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A line of the stream: `{"schema_version":1,"event":{...}}` or `{"schema_version":1,"gap":{...}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StreamItem {
    /// A refusal.
    Event(Event),
    /// Refusals that this stream does not show.
    Gap(Gap),
}

/// A sampled refusal, in names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Why, e.g. `source-limit`.
    pub reason: String,
    /// What became of it: `drop`, `reject` or `observe`; also `pass` where a shape's fate is to pass.
    pub outcome: String,
    /// Who sent it; absent where the frame has no addresses.
    #[schema(value_type = Option<String>)]
    pub source: Option<IpAddr>,
    /// To whom.
    #[schema(value_type = Option<String>)]
    pub destination: Option<IpAddr>,
    /// Sender's port, where there is one.
    pub source_port: Option<u16>,
    /// Receiver's port, where there is one.
    pub destination_port: Option<u16>,
    /// `tcp`, `udp`, `icmp`, `icmpv6` or the IANA number.
    pub protocol: Option<String>,
    /// The limit that refused.
    pub limit: Option<String>,
    /// The service that it was for.
    pub service: Option<String>,
    /// The interface that it came in by.
    pub interface: String,
    /// Bytes of the frame.
    pub length: u32,
}

/// Refusals since the last line that this stream does not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// Lost: the ring buffer was full, or this reader too slow.
    pub lost: u64,
    /// Withheld in the kernel: beyond the budget of events.
    pub withheld: u64,
}

/// Which events to send. Each field is a list, comma-separated; `!` before an item turns it round. An event is sent
/// when, for every field, it matches one of the plain items (where there are any) and none of the turned ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct EventFilter {
    /// Prefixes or addresses of senders, e.g. `192.0.2.0/24,!192.0.2.7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Names of limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Names of services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Reasons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Outcomes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Begins with the last so many that match, of the 1024 that the agent keeps.
    pub last: usize,
    /// Ends after these, and a gap of all that was never sent, instead of waiting for more.
    pub past_only: bool,
}
