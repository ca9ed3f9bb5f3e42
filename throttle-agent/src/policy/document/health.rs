//! How a service's limits follow its health.

use super::{Mode, default};
use crate::policy::{
    units::Span,
    word::{self, Word, written_by_name},
};
use serde::Serialize;
use throttle_common::words::Speaks;
use utoipa::ToSchema;

/// How a service's limits follow its health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Health {
    /// Whether limits and breakers follow (`enforce`), or it is only shown what they would do (`observe`). Default
    /// `observe`.
    #[serde(default)]
    pub mode: HealthMode,
    /// What follows: by `latency` how many connections may be open, by `rate` how fast limits' clocks run, by `aimd` the
    /// connections as heartbeats say; `fixed` leaves both, so that only the breaker acts. Default `latency`.
    #[serde(default = "default::control")]
    pub control: ControlKind,
    /// How long clients may wait for the first byte, as they are promised: 1 ms to 60 s. Default 250 ms.
    #[serde(default = "default::objective")]
    pub objective: Span,
    /// What its connections carry, which says where the time to the first byte is measured: `http`, `tls`, or nothing that
    /// is known (`opaque`). Default `http` on TCP, `opaque` on UDP.
    #[serde(default, with = "word::optional", skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = word::schema::<Speaks>)]
    pub speaks: Option<Speaks>,
    /// The least that the window shrinks to, in open connections: 2 or more. Default 2.
    #[serde(default = "default::least")]
    pub least: u32,
    /// The most that the window grows to. Default: what the service's limit on open connections allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
    /// Whether new connections are kept from it, and from each of its backends, while it fails. Default true.
    #[serde(default = "default::breaker")]
    pub breaker: bool,
    /// Whether connections that are kept are closed, the oldest first and a few at a time, while more are open than the
    /// window admits. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub close_oldest: bool,
}

/// Whether what health says is carried out, in the words of limits.
pub type HealthMode = Mode;

/// What follows the health of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlKind {
    /// The window of connections that may be open at once, by latency, or by what stands in where there is none.
    Latency,
    /// The speed of its limits' clock alone.
    Rate,
    /// The window, by heartbeats: additive increase, multiplicative decrease.
    Aimd,
    /// Neither: the window stays what policy says.
    Fixed,
}

impl ControlKind {
    /// Whether it moves the window of connections that may be open.
    pub const fn moves_window(self) -> bool {
        matches!(self, Self::Latency | Self::Aimd)
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            mode: HealthMode::default(),
            control: default::control(),
            objective: default::objective(),
            speaks: None,
            least: default::least(),
            most: None,
            breaker: default::breaker(),
            close_oldest: false,
        }
    }
}

impl Word for ControlKind {
    const WHAT: &'static str = "control";
    fn all() -> Vec<Self> {
        vec![Self::Latency, Self::Rate, Self::Aimd, Self::Fixed]
    }
    fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Rate => "rate",
            Self::Aimd => "aimd",
            Self::Fixed => "fixed",
        }
    }
}

written_by_name!(ControlKind);
