//! The document that policy is: the same model as TOML on disk, as JSON on the API, and in the store.
//!
//! Reading is done by [`super::read`], for TOML and JSON alike, so that both name every problem and neither ignores a
//! field that it does not know.

use super::{
    guarantee::Guarantee,
    overrides::Override,
    ports::PortRange,
    prefix::Prefix,
    shared::Shared,
    units::{Quantity, Rate, Span},
    word::{self, Word, written_by_name},
};
use serde::Serialize;
use std::collections::BTreeMap;
use throttle_common::words::{Action, Algorithm, Fate, Overflow, Per, Reason, Unit};
use utoipa::ToSchema;

/// What a host enforces, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Document {
    /// Whether refusals are carried out (`enforce`) or only counted (`observe`). Default `observe`: nothing is
    /// enforced merely by installing.
    #[serde(default)]
    pub mode: Mode,
    /// What this host offers. Up to 1023.
    #[serde(default, rename = "service")]
    #[schema(value_type = Vec<Service>)]
    pub services: Shared<Vec<Service>>,
    /// For whom it does it: groups of sources that share limits. Up to 16383.
    #[serde(default, rename = "tenant", skip_serializing_if = "no_tenants")]
    #[schema(value_type = Vec<Tenant>)]
    pub tenants: Shared<Vec<Tenant>>,
    /// What sources and tenants may do, and what the host and its services take from all. Up to 1024.
    #[serde(default, rename = "limit")]
    pub limits: Vec<Limit>,
    /// Sources with a standing of their own.
    #[serde(default)]
    #[schema(value_type = Sources)]
    pub sources: Shared<Sources>,
    /// The fate of frames that cannot be judged by addresses and ports, by the name of their shape. Where this is
    /// silent, ARP and unknown ethertypes pass and the rest drops.
    #[serde(default, serialize_with = "fates")]
    #[schema(value_type = BTreeMap<String, String>, example = json!({"too-many-vlans": "drop"}))]
    pub shapes: BTreeMap<Reason, Fate>,
    /// What `reject` may send from this host.
    #[serde(default)]
    pub answers: Answers,
    /// What is reported of refusals.
    #[serde(default)]
    pub events: Events,
}

/// Whether a refusal is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is counted, and the packet passes.
    #[default]
    Observe,
    /// It is carried out.
    Enforce,
}

/// A named protocol, set of ports and optional destination on this host.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Service {
    /// Unique among services: 1 to 48 letters, digits, `.`, `_` or `-`, a letter or digit first.
    pub name: String,
    /// `tcp`, `udp`, or `icmp` for ICMP and ICMPv6.
    pub protocol: Protocol,
    /// Ports and ranges, 1 to 65535; none for ICMP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
    /// Only packets to this prefix. Where several services share a port, the longest match wins. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Prefix>,
    /// Whether its open connections are counted by their packets, because they may end on another host that this one
    /// forwards to. Only `tcp`. Default: no, they are counted by this host's sockets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forwarded: bool,
    /// After how long a forwarded connection that nothing is heard of is forgotten: 10 s to 24 h. Default 15 min.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_after: Option<Span>,
}

impl Service {
    /// A service that says only what it must.
    pub fn new(name: impl Into<String>, protocol: Protocol, ports: Vec<PortRange>) -> Self {
        Self { name: name.into(), protocol, ports, destination: None, forwarded: false, idle_after: None }
    }

    /// After how many seconds of silence a forwarded connection is forgotten.
    pub fn idle_seconds(&self) -> u64 {
        self.idle_after.unwrap_or(default::idle_after()).seconds()
    }
}

/// A named group of sources.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tenant {
    /// Unique among tenants, as for services. What limits remember of the tenant is kept by this name.
    pub name: String,
    /// Whose packets are the tenant's. Where prefixes of tenants overlap, the longest wins.
    pub sources: Vec<Prefix>,
}

/// What a service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
}

/// A bound on what a source may do, or all that share a bucket.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Limit {
    /// Unique among limits, as for services. What the limit remembers of sources is kept by this name.
    pub name: String,
    /// The service whose packets it counts. Default: every packet of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What it counts: `packets`, `bytes` of whole frames, or TCP `connections`: new ones at a `rate`, or those that are
    /// open at once (`concurrent`).
    #[serde(with = "word")]
    #[schema(schema_with = word::schema::<Unit>)]
    pub unit: Unit,
    /// What a source may do in the long run: `1000/s`, `50/min`, `10Mbit/s`. Either this or `concurrent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// How many connections it may have open at once. Either this or `rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// How it decides: by a `token-bucket`, a `leaky-bucket` without a burst, in a `fixed-window` or a `sliding-window` as
    /// long as the rate's period; `concurrency` with `concurrent`. Default `token-bucket`.
    #[serde(default = "default::algorithm", with = "word")]
    #[schema(schema_with = word::schema::<Algorithm>)]
    pub algorithm: Algorithm,
    /// Who shares what it allows: each `source` by itself, the sources of a `tenant`, all of the `service`, or all of the
    /// `host`. Default `source`.
    #[serde(default = "default::per", with = "word")]
    #[schema(schema_with = word::schema::<Per>)]
    pub per: Per,
    /// What it may do at once, where it is a token bucket. Default: the amount that the rate names, for bytes at least 64
    /// KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Quantity>,
    /// What each tenant or the service always has of it, whatever others do; the rest of it is lent to whoever wants it,
    /// and back at once: `100/s`. Of open connections a number, which is reserved and never lent. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<Guarantee>,
    /// What of the guarantee may be used at once. Default: what it names, but no more than the limit admits at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarantee_burst: Option<Quantity>,
    /// `drop` refuses without a word; `reject` tells the sender. Default `drop`.
    #[serde(default = "default::action", with = "word")]
    #[schema(schema_with = word::schema::<Action>)]
    pub action: Action,
    /// `observe` only counts what this limit would refuse. Default `enforce`; the host's `observe` wins.
    #[serde(default = "default::mode")]
    pub mode: Mode,
    /// What becomes of a source that the table has no room for: it shares its `aggregate`'s bucket, is `refuse`d, or
    /// is `admit`ted uncounted. Default `aggregate`.
    #[serde(default = "default::overflow", with = "word")]
    #[schema(schema_with = word::schema::<Overflow>)]
    pub overflow: Overflow,
    /// The bits of an address that make a source: 1 to 32 and 1 to 128. Default 32 and 64.
    #[serde(default = "default::prefix")]
    pub prefix: Lengths,
    /// The bits of an address that make an aggregate, less than `prefix` and at most 64. Default 24 and 48.
    #[serde(default = "default::aggregate")]
    pub aggregate: Lengths,
    /// How many sources of each family to have room for, at 24 bytes of kernel memory each, 48 where windows slide.
    /// `throttle policy check` shows the flood that fills it. Default 196608.
    #[serde(default = "default::sources")]
    pub sources: u32,
    /// What single tenants or sources have of it instead.
    #[serde(default, rename = "override", skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
}

/// Lengths of a prefix in both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Lengths {
    /// In bits of an IPv4 address.
    pub ipv4: u8,
    /// In bits of an IPv6 address.
    pub ipv6: u8,
}

/// Sources with a standing of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sources {
    /// Touched by no block and no limit.
    #[serde(default)]
    pub allow: Vec<Prefix>,
    /// Known not to be spoofed: a place in the table is kept for them.
    #[serde(default)]
    pub known: Vec<Prefix>,
    /// Refused for as long as they stand here.
    #[serde(default)]
    pub block: Vec<Prefix>,
}

/// What `reject` may send from this host.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Answers {
    /// Answers of the whole host; beyond them packets are dropped without a word. Default `1000/s`; `0/s` for none.
    #[serde(default = "default::answers")]
    pub rate: Rate,
}

/// What is reported of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Events {
    /// Reports of each CPU; what is beyond them is only counted. Default `100/s`; `0/s` for none.
    #[serde(default = "default::events")]
    pub rate: Rate,
}

/// What a field is where the document is silent.
pub(in crate::policy) mod default {
    use super::{Action, Algorithm, Lengths, Mode, Overflow, Per, Rate, Span};

    pub(crate) const fn idle_after() -> Span {
        Span::of_seconds(15 * 60)
    }

    pub(crate) const fn algorithm() -> Algorithm {
        Algorithm::TokenBucket
    }
    pub(crate) const fn per() -> Per {
        Per::Source
    }
    pub(crate) const fn action() -> Action {
        Action::Drop
    }
    pub(crate) const fn mode() -> Mode {
        Mode::Enforce
    }
    pub(crate) const fn overflow() -> Overflow {
        Overflow::Aggregate
    }
    pub(crate) const fn prefix() -> Lengths {
        Lengths { ipv4: 32, ipv6: 64 }
    }
    pub(crate) const fn aggregate() -> Lengths {
        Lengths { ipv4: 24, ipv6: 48 }
    }
    pub(crate) const fn sources() -> u32 {
        196_608
    }
    pub(crate) const fn answers() -> Rate {
        Rate::per_second(1_000)
    }
    pub(crate) const fn events() -> Rate {
        Rate::per_second(100)
    }
}

impl Limit {
    /// A limit on a rate that says only what it must; the rest is the default.
    pub fn new(name: impl Into<String>, unit: Unit, rate: Rate) -> Self {
        Self { rate: Some(rate), ..Self::unbounded(name.into(), unit) }
    }

    /// A limit on open connections that says only what it must.
    pub fn concurrent(name: impl Into<String>, connections: u32) -> Self {
        let algorithm = Algorithm::Concurrency;
        Self { concurrent: Some(connections), algorithm, ..Self::unbounded(name.into(), Unit::Connections) }
    }

    fn unbounded(name: String, unit: Unit) -> Self {
        Self {
            name,
            service: None,
            unit,
            rate: None,
            concurrent: None,
            algorithm: default::algorithm(),
            per: default::per(),
            burst: None,
            action: default::action(),
            mode: default::mode(),
            overflow: default::overflow(),
            prefix: default::prefix(),
            aggregate: default::aggregate(),
            sources: default::sources(),
            guarantee: None,
            guarantee_burst: None,
            overrides: Vec::new(),
        }
    }

    /// What a source may do at once, in the limit's unit.
    pub fn burst_units(&self) -> u64 {
        const SMALLEST_DEFAULT: u64 = 64 << 10;
        let due = self.rate.map_or_else(|| self.concurrent.unwrap_or_default().into(), |rate| rate.units(self.unit));
        match (self.algorithm, self.unit) {
            // One unit; of bytes, one of the largest frames, such as devices make of several that they join.
            (Algorithm::LeakyBucket, Unit::Bytes) => return SMALLEST_DEFAULT,
            (Algorithm::LeakyBucket, _) => return 1,
            (Algorithm::FixedWindow | Algorithm::SlidingWindow, _) => return due,
            (Algorithm::TokenBucket | Algorithm::Concurrency, _) => {}
        }
        match (self.burst, self.unit) {
            (Some(burst), Unit::Bytes) => u64::try_from(burst.bits() / 8).unwrap_or(u64::MAX),
            (Some(burst), _) => burst.amount(),
            (None, Unit::Bytes) => due.max(SMALLEST_DEFAULT),
            (None, _) => due,
        }
    }

    /// What it allows, for people: `50/min` or `50 at once`.
    pub fn allowance(&self) -> String {
        match (self.rate, self.concurrent) {
            (Some(rate), _) => rate.to_string(),
            (None, concurrent) => format!("{} at once", concurrent.unwrap_or_default()),
        }
    }
}

impl Default for Answers {
    fn default() -> Self {
        Self { rate: default::answers() }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self { rate: default::events() }
    }
}

impl Word for Mode {
    const WHAT: &'static str = "mode";
    fn all() -> Vec<Self> {
        vec![Self::Observe, Self::Enforce]
    }
    fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        }
    }
}

impl Word for Protocol {
    const WHAT: &'static str = "protocol";
    fn all() -> Vec<Self> {
        vec![Self::Tcp, Self::Udp, Self::Icmp]
    }
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

written_by_name!(Mode, Protocol);

fn no_tenants(tenants: &Shared<Vec<Tenant>>) -> bool {
    tenants.is_empty()
}

fn fates<S: serde::Serializer>(fates: &BTreeMap<Reason, Fate>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(fates.iter().map(|(shape, fate)| (shape.name(), fate.name())))
}
