//! The document that policy is: the same model as TOML on disk, as JSON on the API, and in the store.
//!
//! A room for each list of it: [`service`] with what follows a service's [`health`] and its page ([`http`]), [`backend`],
//! [`limit`], and the sources with their tenants. Reading is done by [`super::read`], for TOML and JSON alike, so that both
//! name every problem and neither ignores a field that it does not know.

mod backend;
mod health;
mod http;
mod limit;
mod penalty;
mod service;
mod sources;

use super::{
    shared::Shared,
    units::{Rate, Span},
    word::{Word, written_by_name},
};
pub use backend::{Backend, Endpoint, Probe};
pub use health::{ControlKind, Health, HealthMode};
pub use http::Http;
pub(super) use limit::LARGEST_FRAME;
pub use limit::{Lengths, Limit};
pub use penalty::Penalty;
use serde::Serialize;
pub use service::{Protocol, Service};
pub use sources::{Sources, Tenant};
use std::collections::{BTreeMap, HashMap};
use throttle_common::words::{Action, Algorithm, Fate, Overflow, Per, Reason};
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
    /// Who answers for a service: whose heartbeats tell how it is, and to whom connections are kept from by breakers. Up to
    /// 4096.
    #[serde(default, rename = "backend", skip_serializing_if = "no_backends")]
    #[schema(value_type = Vec<Backend>)]
    pub backends: Shared<Vec<Backend>>,
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

impl Document {
    /// The same as this version writes it: earlier ones took rates of bytes without a unit, and enforced them as bytes.
    #[must_use]
    pub fn with_units(mut self) -> Self {
        self.limits = self.limits.into_iter().map(Limit::with_units).collect();
        self
    }
}

impl Document {
    /// The limits of a service.
    pub fn limits_of<'d>(&'d self, service: &'d str) -> impl Iterator<Item = &'d Limit> {
        self.limits.iter().filter(move |limit| limit.service.as_deref() == Some(service))
    }

    /// The tightest limit on the connections that all together have open at a service, and how many it allows: what the
    /// window of its health moves below.
    pub fn window_of<'d>(&'d self, service: &str) -> Option<(&'d Limit, u32)> {
        self.windows().get(service).copied()
    }

    /// The same of every service that has one.
    pub fn windows(&self) -> HashMap<&str, (&Limit, u32)> {
        let mut windows: HashMap<&str, (&Limit, u32)> = HashMap::new();
        for limit in self.limits.iter().filter(|limit| limit.per == Per::Service) {
            let (Some(service), Some(allows)) = (&limit.service, limit.concurrent) else { continue };
            let tightest = windows.entry(service).or_insert((limit, allows));
            if allows < tightest.1 {
                *tightest = (limit, allows);
            }
        }
        windows
    }
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
    use super::{Action, Algorithm, ControlKind, Lengths, Mode, Overflow, Per, Probe, Rate, Span};

    pub(crate) const fn idle_after() -> Span {
        Span::of_seconds(15 * 60)
    }
    pub(crate) const fn control() -> ControlKind {
        ControlKind::Latency
    }
    pub(crate) const fn objective() -> Span {
        Span::of_millis(250)
    }
    /// Two: with one a single stuck request would stop a service.
    pub(crate) const fn least() -> u32 {
        2
    }
    pub(crate) const fn breaker() -> bool {
        true
    }
    pub(crate) const fn probe() -> Probe {
        Probe::Tcp
    }
    pub(crate) const fn interval() -> Span {
        Span::of_millis(200)
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
    pub(crate) const fn sentence() -> Span {
        Span::of_seconds(60)
    }
    pub(crate) const fn longest_sentence() -> Span {
        Span::of_seconds(3_600)
    }
    pub(crate) const fn answers() -> Rate {
        Rate::per_second(1_000)
    }
    pub(crate) const fn events() -> Rate {
        Rate::per_second(100)
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

written_by_name!(Mode);

fn no_backends(backends: &Shared<Vec<Backend>>) -> bool {
    backends.is_empty()
}

fn no_tenants(tenants: &Shared<Vec<Tenant>>) -> bool {
    tenants.is_empty()
}

fn fates<S: serde::Serializer>(fates: &BTreeMap<Reason, Fate>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(fates.iter().map(|(shape, fate)| (shape.name(), fate.name())))
}
