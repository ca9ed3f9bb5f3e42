//! A circuit breaker: new connections are kept from a backend that fails, and a few try it again when time has passed.
//!
//! The agent calls [`Breaker::step`] every period with what ended meanwhile ([`Evidence`]) and publishes the [`State`]. The
//! kernel enforces it on each new connection ([`State::admit`]), and half-opens by itself when the open time is over: that
//! works with the agent dead. Established connections are no affair of a breaker.
//!
//! A round of trials has [`TRIALS`] of them in all, not at once, and each that does not end is a failed one after
//! [`TRIAL_EXPIRES`]. So a round always ends, and no trial leaks: Hystrix' single trial did where nobody told its end. Of
//! clients' trials of a backend nobody tells but its heartbeats, and they may be rarer: as long as it lives they are waited
//! for.
//!
//! Each time that it opens anew it is for twice as long, because who fails again is asked too often. That must not prolong an
//! outage: once the backend answers its probes well, several times in a row, a wait lasts no longer than the first one. A
//! service whose clients alone can tell how it is has no longer waits at all ([`Breaker::of_service`]).

use std::{collections::VecDeque, num::NonZero};

pub use throttle_common::breakers::{TRIAL_EXPIRES, TRIALS};

pub use super::circuit::{Admission, Change, Evidence, Forced, Life, Outcomes, Reason, State};
use super::{Nanos, SECOND, whole};

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;

/// Spans that are looked back on, each counted by itself: Hystrix' 10 buckets of 1 s.
pub const WINDOW: usize = 10;
/// How long each span is at least.
pub const SPAN: Nanos = SECOND;
/// Outcomes of a backend's own rhythm that a span has room for, so that all have more than [`LEAST_SAMPLES`]: one that is asked
/// rarely is judged later, and not never.
pub const BEATS_OF_A_SPAN: u64 = 3;
/// Outcomes within the window below which nothing is said (Hystrix' request volume threshold).
pub const LEAST_SAMPLES: u64 = 20;
/// The share of failures that opens, in percent (Hystrix and Resilience4j).
pub const FAILED_PERCENT: u64 = 50;
/// The share of failed or slow outcomes that opens, in percent. Resilience4j waits for 100, which a single quick answer
/// puts off.
pub const BAD_PERCENT: u64 = 80;
/// Good ones among them that close.
pub const GOOD_TRIALS: u32 = 8;
/// How long it is open for the first time (Hystrix' sleep window). Each further time doubles it. No wait is cut to less
/// because the backend answers well, so that one whose probes are better than its trials is tried no more often.
pub const OPEN_TIME: Nanos = 5 * SECOND;
/// The longest open time of a backend, but for the jitter (Envoy's longest ejection).
pub const LONGEST_OPEN_TIME: Nanos = 300 * SECOND;
/// How far an open time is off at most, to both sides, in percent: breakers that opened together do not try together.
pub const JITTER_PERCENT: u64 = 20;
/// Outcomes within the window that say whether one fails beside others, where twenty would be too late.
pub const FEW_SAMPLES: u64 = 3;
/// For each span of this length that it stays closed one doubling is forgotten: as Envoy lets its multiplier of
/// ejections sink while a host is well.
pub const FORGIVES: Nanos = 60 * SECOND;

/// The breaker of one backend or service.
#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    state: State,
    since: Nanos,
    /// Doublings of the next open time, and what it comes to at most.
    doublings: u32,
    longest: Nanos,
    /// How long each span of the window is.
    span: Nanos,
    /// What ended in each, by its number modulo [`WINDOW`].
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
        let is_over = |admitted: &&Nanos| now.saturating_sub(**admitted) >= TRIAL_EXPIRES;
        let lives = matches!(evidence.life, Life::Alive | Life::Back);
        let expired = if lives { 0 } else { self.running.iter().take_while(is_over).count() };
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
            longest: LONGEST_OPEN_TIME,
            span: SPAN,
            window: [(0, Outcomes::default()); WINDOW],
            round: Round::default(),
        }
    }

    /// A backend's, which is closed. It is asked, or beats, every `interval`.
    pub fn of_backend(now: Nanos, interval: Nanos) -> Self {
        Self { span: SPAN.max(interval.saturating_mul(BEATS_OF_A_SPAN)), ..Self::new(now) }
    }

    /// A service's, which is closed. Only its clients tell how it is, so that a few may try it every [`OPEN_TIME`], however
    /// often it has opened.
    pub fn of_service(now: Nanos) -> Self {
        Self { longest: OPEN_TIME, ..Self::new(now) }
    }

    /// The same one, which goes on from the state that an agent before this one left in force. A round in which the kernel alone
    /// let in more is one of ours from now on.
    #[must_use]
    pub fn resume(self, now: Nanos, state: State) -> Self {
        let state =
            if let State::HalfOpen { left } = state { State::HalfOpen { left: left.min(TRIALS) } } else { state };
        let admitted = if let State::HalfOpen { left } = state { TRIALS - left } else { 0 };
        let running = (0..admitted).map(|_| now).collect();
        Self { state, since: now, round: Round { running, admitted, ..Round::default() }, ..self }
    }

    /// It goes on after nobody has looked at it for a while: of a round that ran meanwhile nobody knows how it ended.
    pub fn look_again(&mut self) {
        if let State::HalfOpen { .. } = self.state {
            (self.state, self.round) = (State::HalfOpen { left: TRIALS }, Round::default());
        }
    }

    /// It is closed, because policy has no breakers here any more.
    pub fn switch_off(&mut self, now: Nanos) -> Change {
        let from = self.state;
        *self = self.anew(now);
        Change { from, to: self.state, reason: Reason::SwitchedOff }
    }

    /// One that is closed and has forgotten all but how often it opened.
    fn anew(&self, now: Nanos) -> Self {
        Self { doublings: self.doublings, longest: self.longest, span: self.span, ..Self::new(now) }
    }

    /// What becomes of new connections.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Since when.
    pub const fn since(&self) -> Nanos {
        self.since
    }

    /// Whether it keeps new connections away, all or all but a few, of its own accord.
    pub const fn is_away(&self) -> bool {
        matches!(self.state, State::Open { .. } | State::HalfOpen { .. })
    }

    /// Whether its backend is at fault half as much as opens it, or more, by what there is to judge by.
    pub fn is_failing(&self, now: Nanos) -> bool {
        let sum = self.sum(now);
        let all = sum.all();
        all >= FEW_SAMPLES
            && (2 * u64::from(sum.failed) * 100 >= all * FAILED_PERCENT || 2 * sum.bad() * 100 >= all * BAD_PERCENT)
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
                *self = self.anew(now);
                return Some((State::Closed, Reason::Released));
            }
            (_, None) => {}
        }
        if evidence.spared && self.is_away() {
            *self = Self { state: self.state, ..self.anew(now) };
            return Some((State::Closed, Reason::Spared));
        }
        match self.state {
            State::Closed => {
                self.count(now, evidence.outcomes);
                let reason = match evidence.life {
                    Life::Dead => Some(Reason::Death),
                    // Who answers well by now has not failed lately, and is kept from nobody for what was.
                    _ => self.verdict(now).filter(|_| !evidence.well),
                };
                reason.filter(|_| !evidence.spared).map(|reason| (self.open(now, dice), reason))
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
            Life::Unremarkable | Life::Alive if now >= until => Reason::TimeIsOver,
            Life::Unremarkable | Life::Alive if evidence.well && now >= self.since + OPEN_TIME => Reason::Recovery,
            Life::Unremarkable | Life::Alive => return None,
        };
        self.round = Round::default();
        self.round.add(now, evidence);
        Some((State::HalfOpen { left: TRIALS - self.round.admitted }, reason))
    }

    /// What ended within the window.
    fn sum(&self, now: Nanos) -> Outcomes {
        let oldest = (now / self.span).saturating_sub(WINDOW as u64 - 1);
        let mut sum = Outcomes::default();
        self.window.iter().filter(|(number, _)| *number >= oldest).for_each(|(_, outcomes)| sum.add(*outcomes));
        sum
    }

    fn count(&mut self, now: Nanos, outcomes: Outcomes) {
        let number = now / self.span;
        let span = &mut self.window[(number % WINDOW as u64) as usize];
        if span.0 != number {
            *span = (number, Outcomes::default());
        }
        span.1.add(outcomes);
    }

    /// What the window says.
    fn verdict(&self, now: Nanos) -> Option<Reason> {
        let sum = self.sum(now);
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
        let time = open_time(self.doublings, dice, self.longest);
        // More doublings than reach the bound would only take longer to be forgiven.
        self.doublings = (self.doublings + 1).min((self.longest / OPEN_TIME).ilog2() + 1);
        State::Open { until: now + time }
    }
}

/// How long it is open after so many doublings: [`OPEN_TIME`] doubled, `longest` at most, and by the dice up to
/// [`JITTER_PERCENT`] shorter or longer.
pub fn open_time(doublings: u32, dice: f64, longest: Nanos) -> Nanos {
    let time = OPEN_TIME.saturating_mul(1 << doublings.min(31)).min(longest);
    let jitter = time / 100 * JITTER_PERCENT;
    time - jitter + whole(2.0 * jitter as f64 * dice.clamp(0.0, 1.0))
}
