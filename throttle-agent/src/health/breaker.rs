//! A circuit breaker: new connections are kept from a backend that fails, and a few try it again when time has passed.
//!
//! The agent calls [`Breaker::step`] every period with what ended meanwhile ([`Evidence`]) and publishes the [`State`]. The
//! kernel enforces it on each new connection ([`State::admit`]), and half-opens by itself when the open time is over: that
//! works with the agent dead. Established connections are no affair of a breaker.
//!
//! A round of trials has [`TRIALS`] of them in all, not at once, and each that does not end is a failed one after
//! [`TRIAL_EXPIRES`]. So a round always ends, and no trial leaks: Hystrix' single trial did where nobody told its end.

use std::{collections::VecDeque, num::NonZero};

pub use throttle_common::breakers::{TRIAL_EXPIRES, TRIALS};

pub use super::circuit::{Admission, Change, Evidence, Forced, Life, Outcomes, Reason, State};
use super::{Nanos, SECOND, whole};

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;

/// Seconds that are looked back on, each counted by itself: Hystrix' 10 buckets of 1 s.
pub const WINDOW: usize = 10;
/// Outcomes within the window below which nothing is said (Hystrix' request volume threshold).
pub const LEAST_SAMPLES: u64 = 20;
/// The share of failures that opens, in percent (Hystrix and Resilience4j).
pub const FAILED_PERCENT: u64 = 50;
/// The share of failed or slow outcomes that opens, in percent. Resilience4j waits for 100, which a single quick answer
/// puts off.
pub const BAD_PERCENT: u64 = 80;
/// Good ones among them that close.
pub const GOOD_TRIALS: u32 = 8;
/// How long it is open for the first time (Hystrix' sleep window). Each further time doubles it.
pub const OPEN_TIME: Nanos = 5 * SECOND;
/// The longest open time, but for the jitter (Envoy's longest ejection).
pub const LONGEST_OPEN_TIME: Nanos = 300 * SECOND;
/// How far an open time is off at most, to both sides, in percent: breakers that opened together do not try together.
pub const JITTER_PERCENT: u64 = 20;
/// For each span of this length that it stays closed one doubling is forgotten: as Envoy lets its multiplier of
/// ejections sink while a host is well.
pub const FORGIVES: Nanos = 60 * SECOND;

/// The breaker of one backend or service.
#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    state: State,
    since: Nanos,
    /// Doublings of the next open time.
    doublings: u32,
    /// What ended in each second, by the second's number modulo [`WINDOW`].
    window: [(u64, Outcomes); WINDOW],
    round: Round,
}

/// A round of trials.
#[derive(Clone, Debug, Default, PartialEq)]
struct Round {
    /// When those that have not ended were admitted, the earliest first.
    running: VecDeque<Nanos>,
    admitted: u32,
    good: u32,
    bad: u32,
}

impl Round {
    fn add(&mut self, now: Nanos, evidence: &Evidence) {
        let admitted = evidence.trials.min(TRIALS - self.admitted);
        self.admitted += admitted;
        self.running.extend((0..admitted).map(|_| now));
        // Who ends is one of those that were admitted: of other connections, which were there before, nothing is learnt.
        let running = self.running.len() as u32;
        let good = evidence.outcomes.good.min(running);
        let bad = u32::try_from(evidence.outcomes.bad()).unwrap_or(u32::MAX).min(running - good);
        self.running.drain(..(good + bad) as usize);
        let expired =
            self.running.iter().take_while(|admitted| now.saturating_sub(**admitted) >= TRIAL_EXPIRES).count();
        self.running.drain(..expired);
        self.good += good;
        self.bad += bad + expired as u32;
    }
}

impl Breaker {
    /// One that is closed.
    pub fn new(now: Nanos) -> Self {
        Self {
            state: State::Closed,
            since: now,
            doublings: 0,
            window: [(0, Outcomes::default()); WINDOW],
            round: Round::default(),
        }
    }

    /// One that goes on from the state that an agent before this one left in force.
    pub fn resume(now: Nanos, state: State) -> Self {
        let admitted = if let State::HalfOpen { left } = state { TRIALS.saturating_sub(left) } else { 0 };
        let running = (0..admitted).map(|_| now).collect();
        Self { state, round: Round { running, admitted, ..Round::default() }, ..Self::new(now) }
    }

    /// What becomes of new connections.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Since when.
    pub const fn since(&self) -> Nanos {
        self.since
    }

    /// Takes what was seen since the last step, and says what changes. `dice` is drawn evenly from 0 (included) to 1
    /// (excluded), anew for each step.
    ///
    /// There is one change a step at most: what follows from the same evidence follows at the next.
    pub fn step(&mut self, now: Nanos, evidence: &Evidence, dice: f64) -> Option<Change> {
        let (to, reason) = self.next(now, evidence, dice)?;
        let from = std::mem::replace(&mut self.state, to);
        self.since = now;
        Some(Change { from, to, reason })
    }

    fn next(&mut self, now: Nanos, evidence: &Evidence, dice: f64) -> Option<(State, Reason)> {
        match (self.state, evidence.forced) {
            (State::Forced(held), Some(forced)) if held == forced => return None,
            (_, Some(forced)) => return Some((State::Forced(forced), Reason::Forced)),
            (State::Forced(_), None) => {
                *self = Self { doublings: self.doublings, ..Self::new(now) };
                return Some((State::Closed, Reason::Released));
            }
            (_, None) => {}
        }
        match self.state {
            State::Closed => {
                self.count(now, evidence.outcomes);
                let reason = if evidence.life == Life::Dead { Some(Reason::Death) } else { self.verdict(now) };
                reason.map(|reason| (self.open(now, dice), reason))
            }
            State::Open { until } => self.while_open(now, until, evidence),
            State::HalfOpen { .. } => {
                self.round.add(now, evidence);
                let Round { admitted, good, bad, .. } = self.round;
                if evidence.life == Life::Dead {
                    Some((self.open(now, dice), Reason::Death))
                } else if bad > TRIALS - GOOD_TRIALS {
                    Some((self.open(now, dice), Reason::TrialsBad))
                } else if good >= GOOD_TRIALS {
                    self.window = Self::new(now).window;
                    Some((State::Closed, Reason::TrialsGood))
                } else {
                    self.state = State::HalfOpen { left: TRIALS - admitted };
                    None
                }
            }
            State::Forced(_) => None,
        }
    }

    fn while_open(&mut self, now: Nanos, until: Nanos, evidence: &Evidence) -> Option<(State, Reason)> {
        let reason = match evidence.life {
            Life::Dead => {
                // Probes see when it is back: no client needs to try it. Should the agent die, trials begin by themselves.
                self.state = State::Open { until: until.max(now + OPEN_TIME) };
                return None;
            }
            Life::Back => Reason::Recovery,
            Life::Unremarkable if now >= until => Reason::TimeIsOver,
            Life::Unremarkable => return None,
        };
        self.round = Round::default();
        self.round.add(now, evidence);
        Some((State::HalfOpen { left: TRIALS - self.round.admitted }, reason))
    }

    fn count(&mut self, now: Nanos, outcomes: Outcomes) {
        let second = now / SECOND;
        let slot = &mut self.window[(second % WINDOW as u64) as usize];
        if slot.0 != second {
            *slot = (second, Outcomes::default());
        }
        slot.1.add(outcomes);
    }

    /// What the window says.
    fn verdict(&self, now: Nanos) -> Option<Reason> {
        let oldest = (now / SECOND).saturating_sub(WINDOW as u64 - 1);
        let mut sum = Outcomes::default();
        self.window.iter().filter(|(second, _)| *second >= oldest).for_each(|(_, outcomes)| sum.add(*outcomes));
        let all = NonZero::new(sum.all()).filter(|all| all.get() >= LEAST_SAMPLES)?.get();
        if u64::from(sum.failed) * 100 >= all * FAILED_PERCENT {
            Some(Reason::Failures)
        } else {
            (sum.bad() * 100 >= all * BAD_PERCENT).then_some(Reason::Slowness)
        }
    }

    fn open(&mut self, now: Nanos, dice: f64) -> State {
        if self.state == State::Closed {
            let forgiven = now.saturating_sub(self.since) / FORGIVES;
            self.doublings = self.doublings.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX));
        }
        let time = open_time(self.doublings, dice);
        // More doublings than reach the bound would only take longer to be forgiven.
        self.doublings = (self.doublings + 1).min((LONGEST_OPEN_TIME / OPEN_TIME).ilog2() + 1);
        State::Open { until: now + time }
    }
}

/// How long it is open after so many doublings: [`OPEN_TIME`] doubled, [`LONGEST_OPEN_TIME`] at most, and by the dice up
/// to [`JITTER_PERCENT`] shorter or longer.
pub fn open_time(doublings: u32, dice: f64) -> Nanos {
    let time = OPEN_TIME.saturating_mul(1 << doublings.min(31)).min(LONGEST_OPEN_TIME);
    let jitter = time / 100 * JITTER_PERCENT;
    time - jitter + whole(2.0 * jitter as f64 * dice.clamp(0.0, 1.0))
}
