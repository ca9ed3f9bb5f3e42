//! The state of the agent on one page.

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use throttle_common::table::OPEN_WAYS;
use utoipa::ToSchema;

use super::{LimitView, PenaltyCounts, Pending, ServiceHealthView, SpeedView};
use crate::policy::{Mode, forecast};

/// What the agent does now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// What is wrong, each with its remedy; empty when all is well. `throttle status` exits 4 when it is not.
    pub problems: Vec<String>,
    /// What deserves a look and may be meant, each with its remedy; judged by what limits came to over time.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Whether the host enforces at all.
    pub mode: Mode,
    /// The revision in force; 0 before the first.
    pub revision: u64,
    /// A revision that goes back by itself unless it is confirmed.
    pub pending: Option<Pending>,
    /// Sessions that stay allowed for a while although policy would touch them.
    pub session_allows: Vec<SessionAllow>,
    /// Where the program is, or should be, attached.
    pub attachments: Vec<Attachment>,
    /// Whether throttling ends with the agent, because its pins lie in a BPF file system of its own mount namespace.
    #[serde(default)]
    pub ends_with_agent: bool,
    /// Why a completed handshake proves nobody; absent where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets_unwatched: Option<String>,
    /// The table of buckets.
    pub table: Table,
    /// How well open connections are counted; absent where no limit counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    /// The health clocks that run slower than real time, or that were set to; empty where all limits admit their rates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub speeds: Vec<SpeedView>,
    /// The health of the services that follow theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<ServiceHealthView>,
    /// How many changes of it there were since the agent was started.
    #[serde(default)]
    pub health_transitions: u64,
    /// How many of them a webhook was not told. Reads 0.
    #[serde(default)]
    pub health_notices_lost: u64,
    /// Every limit with its counts and its part of the table.
    pub limits: Vec<LimitView>,
    /// Frames by reason and outcome; together every frame that the program saw. Combinations that read 0 are left out.
    pub reasons: Vec<ReasonCount>,
    /// What could not be done.
    pub losses: LossCounts,
    /// What was sent in place of services that have pages.
    #[serde(default)]
    pub pages: PageCounts,
    /// What the penalties of limits came to.
    #[serde(default)]
    pub penalties: PenaltyCounts,
    /// Timed blocks that have not ended.
    pub blocks: u64,
    /// When the agent started.
    #[schema(value_type = String, format = DateTime)]
    pub started: Timestamp,
    /// What is running.
    pub build: Build,
    /// The Linux capabilities that the agent kept, e.g. `CAP_BPF`; empty where it dropped none.
    pub capabilities: Vec<String>,
}

/// An interface on which the agent was told to throttle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    /// Its name.
    pub interface: String,
    /// Whether the program judges its packets.
    pub attached: bool,
    /// `native` or `generic` while attached.
    pub mode: Option<String>,
    /// By what packets that leave by it are seen, as `forwarded` services need: `tcx`, or before Linux 6.6 `clsact`; absent
    /// where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    /// What drives it, e.g. `veth` or `ixgbe`; absent where it does not say.
    #[serde(default)]
    pub driver: Option<String>,
    /// Why it is not attached, or not as it should be, with the remedy.
    pub problem: Option<String>,
}

/// How far the count of open connections was from the sockets, since the agent was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Connections {
    /// Connections that held places after their sockets had closed. Reads 0, or grows by ones.
    pub mended_closed: u64,
    /// Sockets that held no place though a limit counts them: those that are older than it, for one.
    pub mended_open: u64,
    /// Forwarded connections that nothing was heard of for as long as their service allows.
    #[serde(default)]
    pub forgotten_idle: u64,
    /// Connections that could not be counted because too many are. Reads 0.
    pub uncounted: u64,
    /// The services whose connections are counted by their packets, as forwarded ones must be; those of all others are
    /// counted by this host's sockets.
    #[serde(default)]
    pub forwarded: Vec<String>,
}

/// The table that holds all buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Table {
    /// Sets of four buckets.
    pub sets: u64,
    /// Sets that belong to limits.
    pub sets_used: u64,
    /// Bytes of kernel memory that it takes, aggregates included.
    pub bytes: u64,
}

/// The part of the table that holds one limit's buckets for one family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RegionLoad {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Bits of an address that make a source.
    pub prefix: u8,
    /// Bits of an address that make an aggregate.
    pub aggregate: u8,
    /// Buckets that it has room for; a quarter is kept for proven sources.
    pub slots: u64,
    /// Buckets in debt at this moment, which no other source can take.
    pub busy: u64,
    /// Buckets of aggregates in debt.
    pub aggregates_busy: u64,
    /// `busy / slots`, 0 to 1.
    pub occupancy: f64,
    /// The compartments that tenants have of it; 0 where it is not divided among them.
    #[serde(default)]
    pub compartments: u32,
    /// Tenants that have none to themselves: a flood of one of them may take the places of another's sources.
    #[serde(default)]
    pub sharing_tenants: u64,
    /// Its fullest compartment; absent where it is not divided among tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fullest: Option<CompartmentLoad>,
    /// What fills it; absent where no flood does, because only who completes a handshake has a place in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
}

/// A part of a region that some sources have to themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CompartmentLoad {
    /// The first of the tenants whose sources they are; none where they are no tenant's, or those of the tenant of all the rest.
    pub tenants: Vec<String>,
    /// Whether they are those of others too.
    pub others: bool,
    /// Buckets that it has room for.
    pub slots: u64,
    /// Buckets in debt at this moment.
    pub busy: u64,
    /// `busy / slots`, 0 to 1.
    pub occupancy: f64,
}

impl CompartmentLoad {
    /// Whose sources they are, in words.
    pub fn whose(&self) -> String {
        match (self.tenants.as_slice(), self.others) {
            ([], _) => "sources of no tenant".to_owned(),
            (named, false) => named.join(", "),
            (named, true) => format!("{} and others", named.join(", ")),
        }
    }
}

/// What fills a region, at the speed at which its limit's clock runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Forecast {
    /// How long one packet keeps a bucket busy, in seconds.
    pub busy_seconds: f64,
    /// Places that are open to any source; where tenants have compartments, to those of no tenant.
    #[serde(default)]
    pub places: u64,
    /// Packets each second, each from another of these sources, at which one in a hundred finds none of them.
    pub flood_per_second: f64,
    /// The same of the sources of one tenant and of its compartment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_flood_per_second: Option<f64>,
}

impl Forecast {
    /// What is foretold, where the limit's clock runs at a speed.
    pub fn of(forecast: &forecast::Forecast, speed: f64) -> Self {
        Self {
            busy_seconds: forecast.busy_seconds / speed,
            places: u64::from(forecast.sets) * OPEN_WAYS as u64,
            flood_per_second: forecast.full_at * speed,
            tenant_flood_per_second: forecast.of_a_tenant().map(|it| it.full_at * speed),
        }
    }
}

/// Frames of one reason and outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReasonCount {
    /// Why, e.g. `source-limit`.
    pub reason: String,
    /// What became of them: `pass`, `drop`, `reject` or `observe`.
    pub outcome: String,
    /// How many.
    pub packets: u64,
    /// Their whole lengths.
    pub bytes: u64,
}

/// What could not be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LossCounts {
    /// Events beyond their budget: the price of sampling, not a fault.
    pub events_withheld: u64,
    /// Events that found the ring buffer full. Reads 0.
    pub events_lost: u64,
    /// Answers of `reject` beyond their budget.
    pub answers_withheld: u64,
    /// Refusals that must not be answered: fragments, errors, broadcasts.
    pub answers_undue: u64,
}

/// What was sent in place of services that have pages (`[service.http]`). All read 0 while nobody is refused there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PageCounts {
    /// SYN-ACKs to clients whose connections are refused.
    pub greeted: u64,
    /// Answers with 429, those that were sent again included.
    pub told: u64,
    /// Those of them that had room for the headers alone that every page has. Reads 0 unless requests are shorter than any
    /// client's.
    pub cut: u64,
    /// Acknowledgements of what clients sent after their 429.
    pub acknowledged: u64,
}

/// An administrator's session that stays allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionAllow {
    /// Its address.
    #[schema(value_type = String)]
    pub prefix: IpNet,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// Who applied the policy.
    pub author: String,
}

/// What is running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Build {
    /// The agent's version.
    pub version: String,
    /// The version of the maps' layout.
    pub layout: u64,
    /// SHA-256 of the kernel object, hexadecimal.
    pub object_digest: String,
}
