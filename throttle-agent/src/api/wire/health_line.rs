//! The health of a service in a line: what is live, what decided, and its worst backend. `top` has it of each service, and an
//! explanation of the one that a packet is for.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BackendHealthView, BreakerView, ServiceHealthView, WindowView};
use crate::policy::Mode;

/// The health of a service in a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HealthLine {
    /// Which.
    pub service: String,
    /// `enforce`, or `observe`: what is decided is shown, and nothing of it in force.
    pub mode: Mode,
    /// What moves: `window` or `rate`, with `+closing` where kept connections are closed, too; `none` where only breakers act.
    pub actuator: String,
    /// The signal that decided: `latency`, `little`, `backlog`, `heartbeats`, or `static`.
    pub signal: String,
    /// What came of it, in words.
    pub cause: String,
    /// The window of open connections; absent where none is moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowView>,
    /// How fast the clock of its limits runs, as a share of real time: of what health decides and what was set by hand the
    /// slower. Of what is only shown, how fast it would.
    pub speed: f64,
    /// The state of its own breaker; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<String>,
    /// How many places of backends it has.
    pub backends: u64,
    /// How many of them are well: healthy, and kept away by no breaker.
    pub backends_well: u64,
    /// The worst of them; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst: Option<WorstBackend>,
}

/// The worst backend of a service: who is kept away comes before who is only suspect, and among equals the most suspicious.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorstBackend {
    /// Its name.
    pub backend: String,
    /// Where it is.
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// `healthy`, `suspect`, `dead`, `recovering` or `held`.
    pub level: String,
    /// How suspicious its silence is: phi.
    pub suspicion: f64,
    /// The state of its breaker; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<String>,
}

impl From<&ServiceHealthView> for HealthLine {
    fn from(view: &ServiceHealthView) -> Self {
        let badness = |it: &&BackendHealthView| (is_kept_away(it), rank(&it.level));
        let order = |one: &&BackendHealthView, other: &&BackendHealthView| {
            badness(one).cmp(&badness(other)).then(one.suspicion.total_cmp(&other.suspicion))
        };
        Self {
            service: view.service.clone(),
            mode: view.mode,
            actuator: view.actuator.clone(),
            signal: view.signal.clone(),
            cause: view.cause.clone(),
            window: view.window,
            speed: match view.mode {
                Mode::Enforce => view.speed_in_force,
                Mode::Observe => view.speed.min(view.speed_in_force),
            },
            breaker: view.breaker.as_ref().map(|it| it.state.clone()),
            backends: view.backends.len() as u64,
            backends_well: view.backends.iter().filter(|it| it.level == "healthy" && !is_kept_away(it)).count() as u64,
            worst: view.backends.iter().max_by(order).map(|it| WorstBackend {
                backend: it.backend.clone(),
                address: it.address,
                level: it.level.clone(),
                suspicion: it.suspicion,
                breaker: it.breaker.as_ref().map(|it| it.state.clone()),
            }),
        }
    }
}

fn is_kept_away(it: &BackendHealthView) -> bool {
    let away = |it: &BreakerView| matches!(&*it.state, "open" | "half-open" | "held-open");
    it.breaker.as_ref().is_some_and(away)
}

/// How bad what is held of a backend is.
fn rank(level: &str) -> u8 {
    match level {
        "dead" => 4,
        "held" => 3,
        "suspect" => 2,
        "recovering" => 1,
        _ => 0,
    }
}
