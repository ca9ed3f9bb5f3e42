//! What would become of a source's next packet, and why.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Event, HealthLine, PenaltyWalk, SentenceView};
use crate::policy::{Mode, Protocol};

/// Which packet to ask about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExplainQuery {
    /// Who would send it.
    #[param(value_type = String)]
    pub address: IpAddr,
    /// The port that it would go to. Without one a packet to each service is asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `tcp`, `udp` or `icmp`. Without one, all that have a service there; `tcp` where none has.
    #[param(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The address of this host that it would go to. Without one, an address of each service, and that of each backend
    /// whose breaker is not closed.
    #[param(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// Bytes of the whole frame, which limits on bytes count: 60 to 65 535, by default 74, a SYN of Linux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u32>,
    /// Asks about a packet of a TCP connection that is open, instead of one that opens a connection.
    #[serde(default)]
    pub established: bool,
}

/// What would become of a source's next packet, and why: by what the kernel holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// Who would send it.
    #[schema(value_type = String)]
    pub source: IpAddr,
    /// When this was so.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The revision that the kernel holds.
    pub revision: u64,
    /// Whether the host enforces it.
    pub mode: Mode,
    /// What is said of the source.
    pub standing: Standing,
    /// A walk for each packet that was asked about: what is refused first.
    pub walks: Vec<Walk>,
    /// How many more walks there are, none of which fares worse; name a port to see one.
    pub walks_left_out: u64,
    /// The last refusals of this source that the agent keeps, the newest first: they are sampled.
    pub refusals: Vec<PastRefusal>,
}

/// A refusal of the past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PastRefusal {
    /// The refusal.
    #[serde(flatten)]
    pub event: Event,
    /// Whether it says nothing of the next packet, because the policy in force has no limit of this name any more.
    #[serde(default)]
    pub limit_is_gone: bool,
}

/// What is said of a source. Each prefix is the shortest that says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Standing {
    /// No block and no limit touches it, because of this prefix.
    #[schema(value_type = Option<String>)]
    pub allowed: Option<IpNet>,
    /// It is blocked.
    pub blocked: Option<BlockedBy>,
    /// Its tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantOf>,
    /// It keeps a place in a flood, because policy knows this prefix.
    #[schema(value_type = Option<String>)]
    pub known: Option<IpNet>,
    /// It keeps a place in a flood, because it completed a TCP handshake within the hour.
    pub proven: bool,
    /// The sentences of it that are remembered, served or not, by the limits in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sentences: Vec<SentenceView>,
}

/// The tenant of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantOf {
    /// Its name.
    pub name: String,
    /// The prefix that makes the source its.
    #[schema(value_type = String)]
    pub prefix: IpNet,
}

/// The block of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlockedBy {
    /// The prefix that is blocked.
    #[schema(value_type = String)]
    pub prefix: IpNet,
    /// Until when; absent where it does not end.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// Why, where a command said it.
    pub reason: Option<String>,
    /// Who added it; absent where it stands in the policy.
    pub author: Option<String>,
}

/// A packet on its way through the policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Walk {
    /// The packet.
    pub packet: AskedPacket,
    /// The service that it is for.
    pub service: Option<String>,
    /// The health of that service; absent where it follows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthLine>,
    /// What becomes of it: `pass`, `drop`, `reject` or `observe`.
    pub outcome: String,
    /// Whether its sender is told so in HTTP, with 429: its service has a page.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub page: bool,
    /// Why, e.g. `source-limit`.
    pub reason: String,
    /// The limit that refuses it, or would.
    pub limit: Option<String>,
    /// From when on such a packet passes, if nobody sends any before; absent where it never will, or where that depends on
    /// connections that close.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub passes_at: Option<Timestamp>,
    /// How long that is, in seconds; 0 where it passes now.
    pub passes_in_seconds: Option<f64>,
    /// The breakers that it meets, where it opens a connection; they are asked before all limits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breakers: Vec<BreakerWalk>,
    /// The limits that it meets, in the order in which they are asked. The kernel asks none after one that refuses.
    pub limits: Vec<LimitWalk>,
}

/// What a breaker says of a connection that a packet opens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BreakerWalk {
    /// The service whose it is, or of whose backend; absent where the agent has not found the backend again yet.
    pub service: Option<String>,
    /// The backend whose it is; absent where it is a service's own.
    pub backend: Option<String>,
    /// Where that listens; absent likewise.
    #[schema(value_type = Option<String>)]
    pub address: Option<SocketAddr>,
    /// How the kernel has it: `closed`, `open`, `half-open` or `held-open`.
    pub state: String,
    /// Who holds it, open or closed; absent where nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<String>,
    /// Other backends at that address and port, as `service/backend`, for which the kernel has the same breaker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_with: Vec<String>,
    /// How many trials the round that runs may yet admit; absent where it is not half open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trials_left: Option<u32>,
    /// Whether it keeps the connection away.
    pub refuses: bool,
    /// When it tries again by itself, with the next connections; absent where it refuses none, and where it is held open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub tries_at: Option<Timestamp>,
    /// How long that is, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tries_in_seconds: Option<f64>,
}

/// The packet that was asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AskedPacket {
    /// `tcp`, `udp` or `icmp`.
    #[schema(value_type = String)]
    pub protocol: Protocol,
    /// Where it goes; absent where no service cares.
    #[schema(value_type = Option<String>)]
    pub to: Option<IpAddr>,
    /// The port that it goes to; absent for ICMP, and where none was named.
    pub port: Option<u16>,
    /// Bytes of the whole frame.
    pub length: u32,
    /// Whether it opens a TCP connection.
    pub opens_connection: bool,
}

/// A window, and what a source has had of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WindowWalk {
    /// How long it is, in seconds.
    pub seconds: f64,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    pub ends_at: Timestamp,
    /// How long that is, in seconds.
    pub ends_in_seconds: f64,
    /// Units that it has admitted.
    pub used: u64,
    /// Units that the window before admitted, which count for the part of it that the last `seconds` still cover; absent
    /// where windows do not slide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_before: Option<u64>,
}

/// What a limit guarantees to whom a packet is from or for, and what is left of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GuaranteeWalk {
    /// Units each second; absent where it is of open connections.
    pub rate_per_second: Option<f64>,
    /// Units at once.
    pub burst: u64,
    /// Units that it has room for now.
    pub room: u64,
    /// Whether the packet is within it: then neither this limit refuses it, nor one of its unit that is wider.
    pub within: bool,
}

/// What one limit says of a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LimitWalk {
    /// Its name.
    pub limit: String,
    /// Whether it has a say in such a packet: one on connections has none in a packet that opens none.
    pub asked: bool,
    /// Why the kernel does not ask it, whatever the policy says; absent where it does. So it is with limits on open
    /// connections where those are counted by their packets and what leaves is not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unenforced: Option<String>,
    /// `packets`, `bytes` or `connections`.
    pub unit: String,
    /// How it decides, e.g. `token-bucket`.
    #[serde(default)]
    pub algorithm: String,
    /// The window that runs, where it counts in such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowWalk>,
    /// How fast its clock runs, as a share of real time; absent where it runs as fast. Rates and windows are those of the
    /// policy, instants and how long they are away those of real time: as it runs now, until it was set to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
    /// Units each second that it admits in the long run; absent where it counts connections that are open.
    pub rate_per_second: Option<f64>,
    /// Connections that are open in the bucket that it looks at, where it counts those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<u64>,
    /// What it knows of this source's connections, where it counts those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<ConnectionsWalk>,
    /// Units that it admits at once; of open connections, those that no guarantee reserves.
    pub burst: u64,
    /// How many connections policy says instead, where the health of the service leaves fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub narrowed_from: Option<u64>,
    /// What it guarantees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<GuaranteeWalk>,
    /// How near the source is to its penalty, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub penalty: Option<PenaltyWalk>,
    /// Whom the override is for that the rate and the burst are from, where they are an override's: `tenant gold`, or a
    /// prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overridden_for: Option<String>,
    /// Whether it refuses, or only observes.
    pub mode: Mode,
    /// Whom it counts as this source.
    #[schema(value_type = String)]
    pub source: IpNet,
    /// Who shares the bucket, where it is not a source's: `tenant acme`, `service web`, `the host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_by: Option<String>,
    /// With whom the source shares a bucket where it has no place of its own.
    #[schema(value_type = String)]
    pub aggregate: IpNet,
    /// Whose bucket it looks at: `own`, `new` (none yet, and so a full one), `shared` (no place; the aggregate's), or
    /// `absent` (no place, and the overflow rule needs none).
    pub bucket: String,
    /// Units that this bucket has room for now.
    pub room: u64,
    /// Units beside these that CPUs have taken ahead, each for the next packets that it judges; absent where they take none.
    /// A packet that finds no room here may pass by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leased: Option<u64>,
    /// How long until it is full again, in seconds; 0 where it counts connections.
    pub debt_seconds: f64,
    /// Why it refuses the packet, or would where it only observes.
    pub refusal: Option<String>,
    /// From when on it lets such a packet pass, if nobody sends any before; absent where it never will, or where that
    /// depends on connections that close.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub passes_at: Option<Timestamp>,
    /// How long that is, in seconds; 0 where it does now.
    pub passes_in_seconds: Option<f64>,
}

/// What a limit on open connections knows of a source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionsWalk {
    /// Handshakes that are under way: they count as if they were open.
    pub under_way: u64,
    /// Whether these are doubted, and do not count: some were never completed.
    pub doubted: bool,
    /// Its connections that the limit counts, the oldest first: ten at most.
    pub listed: Vec<OpenConnection>,
    /// How many more there are.
    pub left_out: u64,
}

/// A connection that is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OpenConnection {
    /// Who opened it.
    #[schema(value_type = String)]
    pub peer: SocketAddr,
    /// The port that it was opened to.
    pub port: u16,
    /// How long it has been counted, in seconds: since its handshake, or since the agent found it.
    pub counted_seconds: f64,
    /// Whether it is counted with those of its aggregate.
    pub shared: bool,
}
