//! A breaker in its place: what it is told of deaths, of ends and of trials between two steps, and what is published of it.

use super::{
    Nanos,
    breaker::{Breaker, OPEN_TIME, State, TRIALS},
    circuit::{Change, Evidence, Forced, Life, Outcomes},
    detector::GOOD_IN_A_ROW,
};

/// A breaker with what it is to see at the next step.
#[derive(Clone, Debug)]
pub(super) struct Circuit {
    pub(super) breaker: Breaker,
    pub(super) forced: Option<Forced>,
    was_dead: bool,
    ended: Outcomes,
    good_in_a_row: u32,
    /// Until when the kernel is told that it is open, at most: should the agent fall silent, a few try it then.
    lease: Nanos,
}

/// What a breaker is told beside what ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// What the detector holds of its backend.
    pub(super) life: Life,
    /// Whether it is to keep nobody away.
    pub(super) spared: bool,
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
    pub(super) fn of(breaker: Breaker) -> Self {
        let (lease, ended) = (breaker.since() + OPEN_TIME, Outcomes::default());
        Self { breaker, forced: None, was_dead: false, ended, good_in_a_row: 0, lease }
    }

    /// Counts what has ended.
    pub(super) fn count(&mut self, ended: Outcomes) {
        self.ended.add(ended);
    }

    /// Counts how a probe has ended, or a beat; nothing of one that says neither that it is well nor that it is not.
    pub(super) fn count_probe(&mut self, ended: Outcomes) {
        self.good_in_a_row = if ended.good > 0 { self.good_in_a_row.saturating_add(1) } else { 0 };
        self.count(ended);
    }

    /// What was bad since the last step may be the observer's own fault.
    pub(super) fn excuse(&mut self) {
        self.ended = Outcomes { good: self.ended.good, ..Outcomes::default() };
    }

    /// What was slow since the last step is no fault of its own.
    pub(super) fn excuse_slowness(&mut self) {
        self.ended = self.ended.but_for_slowness();
    }

    /// Where there are no breakers it is closed, unless an operator holds it.
    pub(super) fn step(&mut self, now: Nanos, breaks: bool, trials: Trials, told: Told, dice: f64) -> Option<Change> {
        let Told { life, spared } = told;
        self.lease = now + OPEN_TIME;
        let ended = std::mem::take(&mut self.ended);
        if !breaks {
            if self.forced.is_none() && self.breaker.is_away() {
                return Some(self.breaker.switch_off(now));
            }
            let evidence = Evidence { forced: self.forced, ..Evidence::default() };
            return self.breaker.step(now, &evidence, dice);
        }
        // A probe that has ended was a trial of our own; and where nobody is kept away, whoever comes is one.
        let own = if trials.all_are { u32::try_from(ended.all()).unwrap_or(u32::MAX) } else { 0 };
        let known = if let State::HalfOpen { left } = self.breaker.state() { TRIALS - left } else { 0 };
        let trials = trials.taken.saturating_sub(known).saturating_add(own);
        // A backend that has come back is tried at once, but only once: what trials say counts more.
        let was_dead = std::mem::replace(&mut self.was_dead, life == Life::Dead);
        let life = if was_dead && life != Life::Dead { Life::Back } else { life };
        let well = self.good_in_a_row >= GOOD_IN_A_ROW;
        let evidence = Evidence { outcomes: ended, trials, life, well, spared, forced: self.forced };
        self.breaker.step(now, &evidence, dice)
    }

    /// What the kernel is told: of one that is only shown nothing, but for what an operator forces. A wait that is longer than
    /// the first is said again and again, because only an agent that is there can end it when the backend answers.
    pub(super) fn published(&self, acts: bool) -> State {
        match self.breaker.state() {
            State::Open { until } if acts => State::Open { until: until.min(self.lease) },
            state if acts || matches!(state, State::Forced(_)) => state,
            _ => State::Closed,
        }
    }
}
