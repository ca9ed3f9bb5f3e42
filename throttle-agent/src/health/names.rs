//! What health comes to, in the words by which programs know it: one for each, which stay what they are.

use super::{
    circuit::{self, Forced, State},
    controller::Rung,
    life::{self, Level},
    service::Control,
    transition::What,
};

/// A change: its kind, what it was and is, and why.
pub const fn change(what: &What) -> (&'static str, &'static str, &'static str, Option<&'static str>) {
    match what {
        What::Level(it) => ("backend", level(it.from), level(it.to), Some(level_reason(it.reason))),
        What::Breaker(it) => ("breaker", state(it.from), state(it.to), Some(breaker_reason(it.reason))),
        What::Signal { from, to } => ("signal", rung(*from), rung(*to), None),
        What::Doubt(true) => ("doubt", "no", "yes", None),
        What::Doubt(false) => ("doubt", "yes", "no", None),
        What::ScaleOut(true) => ("scale-out", "no", "yes", None),
        What::ScaleOut(false) => ("scale-out", "yes", "no", None),
        What::Unwatched { kind, was } => (kind, was, "unwatched", None),
    }
}

/// Something that is not well, as [`change`] names it: its kind, and what it is.
pub fn known(kind: &str, to: &str) -> Option<(&'static str, &'static str)> {
    let levels = [Level::Suspect, Level::Dead, Level::Recovering, Level::Held].map(|it| ("backend", level(it)));
    let states = ["open", "half-open", "held-open", "held-closed"].map(|it| ("breaker", it));
    let all = levels.into_iter().chain(states).chain([("doubt", "yes"), ("scale-out", "yes")]);
    all.into_iter().find(|it| *it == (kind, to))
}

/// What moves.
pub const fn control(control: Control) -> &'static str {
    match control {
        Control::Latency => "latency",
        Control::Rate => "rate",
        Control::Aimd => "aimd",
        Control::Fixed => "fixed",
    }
}

/// What moves by that, and whether connections that are kept are closed for it.
pub const fn actuator(control: Control, closes: bool) -> &'static str {
    match (control, closes) {
        (Control::Latency | Control::Aimd, false) => "window",
        (Control::Latency | Control::Aimd, true) => "window+closing",
        (Control::Rate, false) => "rate",
        (Control::Rate, true) => "rate+closing",
        (Control::Fixed, _) => "none",
    }
}

/// What limits follow.
pub const fn rung(rung: Rung) -> &'static str {
    match rung {
        Rung::Latency => "latency",
        Rung::Little => "little",
        Rung::Backlog => "backlog",
        Rung::Heartbeats => "heartbeats",
        Rung::Static => "static",
    }
}

/// What is held of a backend.
pub const fn level(level: Level) -> &'static str {
    match level {
        Level::Healthy => "healthy",
        Level::Suspect => "suspect",
        Level::Dead => "dead",
        Level::Recovering => "recovering",
        Level::Held => "held",
    }
}

/// What is held of a backend, by its name.
pub fn level_named(name: &str) -> Option<Level> {
    let all = [Level::Healthy, Level::Suspect, Level::Dead, Level::Recovering, Level::Held];
    all.into_iter().find(|it| level(*it) == name)
}

const fn level_reason(reason: life::Reason) -> &'static str {
    match reason {
        life::Reason::Silence => "silence",
        life::Reason::ProbesFailed => "probes-failed",
        life::Reason::Heard => "heard",
        life::Reason::Unconfirmed => "unconfirmed",
        life::Reason::Hangs => "hangs",
        life::Reason::Refused => "refused",
        life::Reason::Restarted => "restarted",
        life::Reason::Flaps => "flaps",
        life::Reason::HeldEnough => "held-enough",
        life::Reason::GoodInARow => "good-in-a-row",
    }
}

/// The state of a breaker.
pub const fn state(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open { .. } => "open",
        State::HalfOpen { .. } => "half-open",
        State::Forced(Forced::Open) => "held-open",
        State::Forced(Forced::Closed) => "held-closed",
    }
}

const fn breaker_reason(reason: circuit::Reason) -> &'static str {
    match reason {
        circuit::Reason::Failures => "failures",
        circuit::Reason::Slowness => "slowness",
        circuit::Reason::Death => "death",
        circuit::Reason::TimeIsOver => "time-is-over",
        circuit::Reason::Recovery => "recovery",
        circuit::Reason::TrialsGood => "trials-good",
        circuit::Reason::TrialsBad => "trials-bad",
        circuit::Reason::Spared => "spared",
        circuit::Reason::SwitchedOff => "switched-off",
        circuit::Reason::Forced => "forced",
        circuit::Reason::Released => "released",
    }
}
