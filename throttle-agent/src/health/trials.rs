//! A breaker in its place: what it is told of deaths, of ends and of trials between two steps, and what is published of it.

use super::{
    Nanos,
    breaker::{Breaker, State, TRIALS},
    circuit::{Change, Evidence, Forced, Life, Outcomes},
};

/// A breaker with what it is to see at the next step.
#[derive(Clone, Debug)]
pub(super) struct Circuit {
    pub(super) breaker: Breaker,
    pub(super) forced: Option<Forced>,
    pub(super) was_dead: bool,
    pub(super) ended: Outcomes,
}

/// Trials of a breaker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trials {
    /// Those that the kernel has admitted in the round that runs.
    pub(super) taken: u32,
    /// Whether all that ended were trials beside these.
    pub(super) all_are: bool,
}

impl Circuit {
    pub(super) fn new(now: Nanos) -> Self {
        Self { breaker: Breaker::new(now), forced: None, was_dead: false, ended: Outcomes::default() }
    }

    /// Where nothing but an operator may move it, nothing else is told to it.
    pub(super) fn step(&mut self, now: Nanos, breaks: bool, trials: Trials, dead: bool, dice: f64) -> Option<Change> {
        let ended = std::mem::take(&mut self.ended);
        if !breaks {
            let evidence = Evidence { forced: self.forced, ..Evidence::default() };
            return self.breaker.step(now, &evidence, dice);
        }
        // A probe that has ended was a trial of our own; and where nobody is kept away, whoever comes is one.
        let own = if trials.all_are { u32::try_from(ended.all()).unwrap_or(u32::MAX) } else { 0 };
        let known = if let State::HalfOpen { left } = self.breaker.state() { TRIALS - left } else { 0 };
        let trials = trials.taken.saturating_sub(known).saturating_add(own);
        // A backend that has come back is tried at once, but only once: what trials say counts more.
        let life = match (dead, std::mem::replace(&mut self.was_dead, dead)) {
            (true, _) => Life::Dead,
            (false, true) => Life::Back,
            (false, false) => Life::Unremarkable,
        };
        let evidence = Evidence { outcomes: ended, trials, life, forced: self.forced };
        self.breaker.step(now, &evidence, dice)
    }

    /// What the kernel is told: of one that is only shown nothing, but for what an operator forces.
    pub(super) fn published(&self, acts: bool) -> State {
        match self.breaker.state() {
            state if acts || matches!(state, State::Forced(_)) => state,
            _ => State::Closed,
        }
    }
}
