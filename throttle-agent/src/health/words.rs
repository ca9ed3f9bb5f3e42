//! What health comes to, in words: as a person on call reads them at three in the morning, in the log, in the status and in
//! what is sent to others.

use std::time::Duration;

use super::{
    Nanos,
    circuit::{self, Forced, State},
    controller::{Adjustment, Cause, Rung},
    life::{self, Level},
    transition::{Place, Transition, What},
};

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;

/// A change in a sentence; where health only observes, or the kernel has no such breaker, it is not `in_force`.
pub fn sentence(service: &str, transition: &Transition, in_force: bool) -> String {
    let who = transition.place.as_ref().map_or_else(|| format!("service {service}"), |place| named(service, place));
    match transition.what {
        What::Level(change) => format!("{who} {}: {}", held(change.to), why_held(change.reason)),
        What::Breaker(change) => {
            let turns = if in_force { turns(change, transition.at) } else { would_turn(change) };
            format!("the breaker of {who} {turns}: {}", why_broken(change.reason))
        }
        What::Signal { from, to } => {
            let lost = if to > from { format!(": {} is no longer known", signal(from)) } else { String::new() };
            let would = if in_force { "" } else { "would " };
            format!("limits of {who} {would}follow {} now{lost}", signal(to))
        }
        What::Doubt(true) => {
            format!("{who}: so many backends fell silent at once that the fault may be here; no verdict for a moment")
        }
        What::Doubt(false) => format!("{who}: verdicts on its backends are taken again"),
        What::ScaleOut(true) => {
            format!("{who} needs more workers: it has been asked for more than it may bear for 10 s; add some")
        }
        What::ScaleOut(false) => format!("{who} has enough workers again: nothing was refused for 10 s"),
        What::Unwatched { kind: "backend", was } => format!("{who} is no longer watched; it was {was}"),
        What::Unwatched { kind: "breaker", was } => format!("the breaker of {who} is no longer watched; it was {was}"),
        What::Unwatched { kind, .. } => format!("{who} no longer follows its health; its {kind} is over"),
    }
}

/// A backend, by its service and place.
pub fn named(service: &str, Place { backend, address }: &Place) -> String {
    format!("backend {backend} of {service} ({address})")
}

/// What is held of a backend, after its name.
const fn held(level: Level) -> &'static str {
    match level {
        Level::Healthy => "is well",
        Level::Suspect => "is suspect",
        Level::Dead => "is dead",
        Level::Recovering => "is coming back",
        Level::Held => "is back but held out",
    }
}

/// Why a backend is held to be so.
pub const fn why_held(reason: life::Reason) -> &'static str {
    match reason {
        life::Reason::Silence => "its heartbeats stay away",
        life::Reason::ProbesFailed => "its probes fail",
        life::Reason::Heard => "it is heard of again",
        life::Reason::Unconfirmed => "neither it nor its host answered any of 5 probes in a row",
        life::Reason::Hangs => "its host answers, but it says nothing for 3 s and more; look at the process",
        life::Reason::Refused => "it refuses connections; nothing listens there",
        life::Reason::Restarted => "it was restarted",
        life::Reason::Flaps => "it has come and gone too often",
        life::Reason::HeldEnough => "it was held out for long enough",
        life::Reason::GoodInARow => "it answered well 3 times in a row",
    }
}

fn turns(circuit::Change { from, to, reason }: circuit::Change, at: Nanos) -> String {
    match (from, to) {
        (_, State::Closed) => "closes, new connections pass".to_owned(),
        (_, State::Open { .. }) if reason == circuit::Reason::Death => {
            "opens, new connections are refused until it answers again, then a few try".to_owned()
        }
        (_, State::Open { until }) => {
            let rest = span(until.saturating_sub(at));
            format!("opens, new connections are refused for {rest}, then a few try")
        }
        (_, State::HalfOpen { left: 0 }) => "half-opens, and as many as may try it do so already".to_owned(),
        (_, State::HalfOpen { left }) => format!("half-opens, up to {left} new connections may try"),
        (_, State::Forced(Forced::Open)) => "is held open, all new connections are refused".to_owned(),
        (_, State::Forced(Forced::Closed)) => "is held closed, new connections pass whatever happens".to_owned(),
    }
}

/// The same where that is only shown. What an operator wants is in force all the same, and what is switched off was.
fn would_turn(change: circuit::Change) -> String {
    let would = match (change.from, change.to) {
        (State::Forced(_), _) | (_, State::Forced(_)) => return turns(change, 0),
        _ if change.reason == circuit::Reason::SwitchedOff => return turns(change, 0),
        (_, State::Closed) => "close",
        (_, State::Open { .. }) => "open",
        (_, State::HalfOpen { .. }) => "half-open",
    };
    format!("would {would}, but that is only shown and new connections pass")
}

/// Why a breaker is as it is.
pub const fn why_broken(reason: circuit::Reason) -> &'static str {
    match reason {
        circuit::Reason::Failures => "half or more of what ended in 10 s failed",
        circuit::Reason::Slowness => "four of five answers in 10 s were slow or failed",
        circuit::Reason::Death => "the backend is dead",
        circuit::Reason::TimeIsOver => "it was open for long enough",
        circuit::Reason::Recovery => "the backend answers again",
        circuit::Reason::TrialsGood => "8 trials were good",
        circuit::Reason::TrialsBad => "3 of 10 trials were slow, failed or did not end",
        circuit::Reason::Spared => "never is more than half of a service kept away, and others are",
        circuit::Reason::SwitchedOff => "policy has no breakers here any more",
        circuit::Reason::Forced => "an operator wants it so",
        circuit::Reason::Released => "an operator leaves it to itself again",
    }
}

/// What limits follow.
pub const fn signal(rung: Rung) -> &'static str {
    match rung {
        Rung::Latency => "the time to first byte",
        Rung::Little => "what is under way against what ends",
        Rung::Backlog => "the listen backlog",
        Rung::Heartbeats => "heartbeats",
        Rung::Static => "policy alone",
    }
}

/// Why the window is what it is.
pub fn cause(Adjustment { cause, delay, target, .. }: &Adjustment) -> String {
    match (cause, delay) {
        (Cause::Delay, Some(delay)) => {
            format!("requests wait {} beyond what is usual, {} are allowed: it shrinks", span(*delay), span(*target))
        }
        (Cause::Delay, None) => "requests wait too long: it shrinks".to_owned(),
        (Cause::Overflow, _) => {
            "the listening socket overflows, or resets more than are answered: it shrinks".to_owned()
        }
        (Cause::BadBeat, _) => "heartbeats fail or are late: it shrinks".to_owned(),
        (Cause::Room, _) => "there is room, and use for more: it grows".to_owned(),
        (Cause::Unused, _) => "it is not used up: it stays".to_owned(),
        (Cause::Idle, _) => "nobody asks for anything: it goes back to what policy says".to_owned(),
        (Cause::Unsure, _) => "nothing has been measured yet: it stays".to_owned(),
        (Cause::NoSignal, _) => "nothing is known: it is what policy says".to_owned(),
    }
}

/// A span, to three digits.
pub fn span(nanos: Nanos) -> String {
    let seconds = Duration::from_nanos(nanos).as_secs_f64();
    let (value, unit) = if seconds < 1.0 { (seconds * 1e3, "ms") } else { (seconds, "s") };
    let places = usize::from(value < 10.0);
    let text = format!("{value:.places$}");
    format!("{} {unit}", text.strip_suffix(".0").unwrap_or(&text))
}
