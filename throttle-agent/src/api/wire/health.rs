//! The health of services: what is seen, what is held of backends, and what follows from it.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::policy::Mode;

/// The health of all services that follow theirs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HealthReport {
    /// By name.
    pub services: Vec<ServiceHealthView>,
    /// The last changes, the newest first: 100 at most.
    pub transitions: Vec<TransitionView>,
    /// How many changes there were since the agent was started.
    pub transitions_in_all: u64,
    /// Changes that a webhook was not told: its queue was full, or it did not answer. Reads 0.
    pub notices_lost: u64,
    /// The share of the last look in which somebody waited for a CPU of this host, 0 to 1; absent where the kernel does not
    /// say (pressure stall information).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_pressure: Option<f64>,
}

/// The health of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceHealthView {
    /// Which.
    pub service: String,
    /// `enforce`, or `observe`: what is decided is shown, and nothing of it in force.
    pub mode: Mode,
    /// What is to move: `latency` and `aimd` the window, `rate` the speed, `fixed` nothing.
    pub control: String,
    /// What moves by that: `window` or `rate`, with `+closing` where kept connections are closed, too; `none` where only breakers
    /// act.
    pub actuator: String,
    /// What the limits follow now: `latency` (the time to first byte), `little` (what is under way against what ends),
    /// `backlog` (what waits to be accepted), `heartbeats`, or `static` (nothing is known: what policy says).
    pub signal: String,
    /// All in one sentence.
    pub summary: String,
    /// Why the window is what it is, in words.
    pub cause: String,
    /// What is seen, each with its age: what is older than 3 s is not used.
    pub signals: Vec<SignalView>,
    /// How long requests wait beyond what is usual, in seconds; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_seconds: Option<f64>,
    /// How long they may, in seconds: a fifth of the objective.
    pub target_seconds: f64,
    /// The time to first byte that is usual, in seconds; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual_seconds: Option<f64>,
    /// The window of open connections; absent where none is moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowView>,
    /// How fast the clock of its limits is to run as health decides, as a share of real time.
    pub speed: f64,
    /// How fast it runs: of that and what was set by hand the slower.
    pub speed_in_force: f64,
    /// The share of its load that its backends may have, all together, 0 to 1.
    pub share: f64,
    /// Connections refused each second for want of a place.
    pub refused_per_second: f64,
    /// Answers that begin each second; 0 where they are not measured.
    pub answered_per_second: f64,
    /// Connections that were closed since the agent was started, because more were kept open than the window admits.
    pub closed: u64,
    /// What waits at its listening sockets; absent where none of this host listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<WaitingView>,
    /// How the processes have waited that listen there; absent where the kernel does not say (pressure stall information).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<PressureView>,
    /// Its own breaker; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerView>,
    /// Whether it needs more workers than it has.
    pub needs_workers: bool,
    /// Whether verdicts on backends wait, because the fault may be this host's.
    pub doubts: bool,
    /// Its backends.
    pub backends: Vec<BackendHealthView>,
}

/// What waits at the listening sockets of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitingView {
    /// Connections that wait to be accepted.
    pub connections: u32,
    /// How many may.
    pub room: u32,
    /// Handshakes that are not complete.
    pub handshakes: u32,
    /// Those of them whose SYN-ACK was sent again: it was lost, its client has gone or never was, or there is no room.
    pub sent_again: u32,
}

/// The shares of the last second in which some process of a control group waited, 0 to 1: of several groups the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PressureView {
    /// For a CPU.
    pub cpu: f64,
    /// For memory.
    pub memory: f64,
    /// For input or output.
    pub io: f64,
}

/// A window of open connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WindowView {
    /// How many may be open at once, as health decides.
    pub decided: u32,
    /// How many may be as the kernel has it; absent where policy's number holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<u32>,
    /// What policy allows.
    pub policy: u32,
    /// Its least.
    pub least: u32,
    /// Its most.
    pub most: u32,
    /// Connections that are open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<u32>,
}

/// Something that is seen of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SignalView {
    /// `latency`, `flow`, `backlog`, `handshakes`, `pressure` or `heartbeats`.
    pub name: String,
    /// What it says, for people.
    pub value: String,
    /// How old it is, in seconds.
    pub age_seconds: f64,
}

/// A breaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BreakerView {
    /// `closed`, `open`, `half-open`, `held-open` or `held-closed`.
    pub state: String,
    /// How long it has been so, in seconds, restarts of the agent included.
    pub since_seconds: f64,
    /// Why, in words; absent where it has been so since it is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// After how many seconds an open one lets the first trials pass; absent where it is not open, and where nobody tries
    /// because the backend is dead or held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tries_in_seconds: Option<f64>,
    /// How many trials a half-open one may yet admit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trials_left: Option<u32>,
    /// Who holds it; absent where nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<String>,
    /// Other backends at its address and port, as `service/backend`: the kernel has one breaker for all of them, which follows
    /// what an operator says of one, else the strictest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_with: Vec<String>,
    /// The state that it follows; absent where that is this one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<String>,
}

/// What is held of a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BackendHealthView {
    /// Its name.
    pub backend: String,
    /// Where it is.
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// `healthy`, `suspect`, `dead`, `recovering` or `held`.
    pub level: String,
    /// How long it has been so, in seconds, restarts of the agent included.
    pub since_seconds: f64,
    /// Why, in words; absent where it has been so since it is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How suspicious its silence is: phi. From 1 on it is throttled, at 3 as far as suspicion goes.
    pub suspicion: f64,
    /// The share of its load that it may have, 0 to 1.
    pub share: f64,
    /// How long its last answer took, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_seconds: Option<f64>,
    /// Its breaker; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerView>,
}

/// A change of a service's health. Webhooks are told it as it stands here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TransitionView {
    /// Counts the changes since the agent was started.
    pub number: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Of which service.
    pub service: String,
    /// Of which of its backends; absent where it is the service's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Where that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<SocketAddr>,
    /// `backend`, `breaker`, `signal`, `doubt` or `scale-out`.
    pub kind: String,
    /// What it was.
    pub from: String,
    /// What it is.
    pub to: String,
    /// Why, in a word; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// All of it in a sentence.
    pub message: String,
}

/// Holds a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakerRequest {
    /// Whether no new connection passes, or all do, whatever is seen.
    pub open: bool,
}

/// What became of a breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldBreakerView {
    /// Of which service.
    pub service: String,
    /// Of which of its backends; absent where it is the service's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// `open`, `closed`, or `auto` where it is left to itself.
    pub state: String,
    /// Of a backend, where connections go that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<SocketAddr>,
    /// Whether it is about what processes of this host dial, too (`--cgroup`); else about what comes in.
    #[serde(default)]
    pub dialled: bool,
    /// Why no connection may ever meet it, with the remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
