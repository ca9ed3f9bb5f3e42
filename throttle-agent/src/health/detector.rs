//! Whether a backend lives: from heartbeats, probes and what the kernel saw of it, with `now`.
//!
//! Silence makes a backend suspect, and a suspect is throttled; dead it is only when it also fails its confirmation:
//! [`CONFIRMATIONS`] probes in a row, with no sign of life that the kernel saw. A refused connection needs none of that: who
//! refuses is there, and does not serve. [`super::watch`] looks at all backends of a service and knows when the fault is
//! the observer's own.
//!
//! The constants were found by simulation (`cargo xtask bench -- health`), where they make less than a mistake in a node's
//! day; a fixed timeout with as few takes almost twice as long.

pub use super::life::{Change, Incarnation, Level, Reason, Sign};
use super::{
    MILLISECOND, Nanos, SECOND,
    flapping::Flapping,
    succession::{Order, Succession},
    suspicion::{self, Rhythm, is_silence},
};

#[cfg(test)]
#[path = "detector_tests.rs"]
mod tests;

/// How often a backend beats, where nothing else is declared.
pub const INTERVAL: Nanos = 200 * MILLISECOND;
/// Probes that fail in a row before a backend is suspect whose beats are not what is waited for.
pub const FAILED_PROBES: u32 = 2;
/// Probes of a suspect that must fail, one every [`CONFIRM_EVERY`].
pub const CONFIRMATIONS: u32 = 5;
/// How long between two probes of a suspect, and how long each waits for its answer.
pub const CONFIRM_EVERY: Nanos = 100 * MILLISECOND;
/// Connections to the host of a suspect that are tried at each confirmation. Each alone shows that the host lives, and where
/// packets are lost one by one, few lose all: with one connection a backend that the kernel sees nothing else of dies by
/// mistake 2.7 times in a simulated day, with three 0.4 times, where a sign of life counts for 300 ms.
pub const KNOCKS: usize = 3;
/// A sign of life that the kernel saw within so long keeps a suspect from being dead: as long as all its confirmations take.
/// Where 30 % of the packets are lost in each direction, half of all connections fail; within 300 ms twelve did together once
/// in twelve minutes of a backend that lived, twenty within this do some two hundred times less often.
pub const SIGN_OF_LIFE: Nanos = CONFIRMATIONS as u64 * CONFIRM_EVERY;
/// A backend whose kernel answers but whose application says nothing for so long hangs: Akka's acceptable pause.
pub const HANGS_AFTER: Nanos = 3 * SECOND;
/// Probes that must have found it mute by then; without them it hangs after [`HANGS_AFTER`] once more. Where 30 % of the packets
/// are lost in each direction a probe that was not even connected says nothing, and of those that were half stay without
/// an answer: one that lives is taken to hang once in twenty minutes where silence alone counts.
pub const MUTE_PROBES: u32 = 20;
/// Good answers or beats in a row before a backend that was dead is well again.
pub const GOOD_IN_A_ROW: u32 = 3;
/// A shorter outage of the same generation needs no slow start.
pub const SHORT_OUTAGE: Nanos = SECOND;
/// How long the load of one that came back takes to grow to all of it.
pub const SLOW_START: Nanos = 10 * SECOND;
/// The share that it begins with.
pub const FIRST_SHARE: f64 = 0.1;

/// How a backend is to be judged at an instant; [`super::watch`] says it for all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leniency {
    /// How many times as long silence may be: 1 for an observer that is well.
    pub patience: u64,
    /// Whether the fault may be the observer's: then nobody dies of silence.
    pub frozen: bool,
}

/// What is known of one backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Detector {
    interval: Nanos,
    level: Level,
    since: Nanos,
    rhythm: Rhythm,
    beats: Succession,
    /// When its application gave its last sign of life, and when anything of its host did.
    heard: Nanos,
    seen: Nanos,
    /// Whether the silence now ending has been a plain interval, which belongs to the rhythm.
    steady: bool,
    failed_probes: u32,
    /// Probes that found it mute since it was last heard.
    mute_probes: u32,
    next_probe: Nanos,
    good: u32,
    /// Since when it is out, and when it last refused, if it has not answered since: beats do not speak for who refuses.
    out_since: Nanos,
    refused: Option<Nanos>,
    slow_since: Option<Nanos>,
    /// Whether it was out and has not been well since.
    cold: bool,
    /// Whether it was ever heard of.
    was_heard: bool,
    flapping: Flapping,
}

impl Detector {
    /// A backend that is to beat every `interval` nanoseconds. It is taken to be well, and to have been heard just now.
    pub fn new(now: Nanos, interval: Nanos) -> Self {
        Self {
            interval,
            level: Level::Healthy,
            since: now,
            rhythm: Rhythm::new(interval),
            beats: Succession::default(),
            heard: now,
            seen: now,
            steady: false,
            failed_probes: 0,
            mute_probes: 0,
            next_probe: now,
            good: 0,
            out_since: now,
            refused: None,
            slow_since: None,
            cold: false,
            was_heard: false,
            flapping: Flapping::default(),
        }
    }

    /// The same one, of which an agent before this one held so; how it is now shows at once. Since when it is out nobody
    /// knows, so that it starts slowly, and one that was held is for as long as for one death.
    #[must_use]
    pub fn resume(self, level: Level) -> Self {
        let flapping = if level == Level::Held { Flapping::held(self.since) } else { self.flapping };
        Self { level, out_since: 0, cold: !matches!(level, Level::Healthy | Level::Suspect), flapping, ..self }
    }

    /// How often it is to beat.
    pub const fn interval(&self) -> Nanos {
        self.interval
    }

    /// What is held of it.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Since when.
    pub const fn since(&self) -> Nanos {
        self.since
    }

    /// Whether it has given a sign of life: before that it is only taken to be well.
    pub const fn was_heard(&self) -> bool {
        self.was_heard
    }

    /// How suspicious its silence is.
    pub fn phi(&self, now: Nanos) -> f64 {
        self.rhythm.phi(now.saturating_sub(self.heard))
    }

    /// The share of its load that it may have, from 0 for a dead one to 1.
    pub fn share(&self, now: Nanos) -> f64 {
        let of_level = match self.level {
            Level::Healthy => suspicion::share(self.phi(now)),
            Level::Suspect if !self.cold => suspicion::LEAST_SHARE,
            Level::Suspect | Level::Recovering => FIRST_SHARE,
            Level::Dead | Level::Held => 0.0,
        };
        of_level.min(self.slow_since.map_or(1.0, |since| slow_start(now.saturating_sub(since))))
    }

    /// Takes what was seen of it at `now`.
    pub fn sign(&mut self, now: Nanos, sign: Sign) -> Option<Change> {
        match sign {
            Sign::Packet => {
                self.seen = now;
                None
            }
            Sign::Unsent => {
                // Nobody asked it, so that it is no silence of its own.
                self.heard = self.heard.saturating_add(self.interval).min(now);
                self.steady = false;
                None
            }
            Sign::Unanswered | Sign::Mute => {
                self.mute_probes = self.mute_probes.saturating_add(u32::from(sign == Sign::Mute));
                self.failed_probes = self.failed_probes.saturating_add(1);
                self.good = 0;
                None
            }
            Sign::Refused => {
                (self.seen, self.good, self.refused) = (now, 0, Some(now));
                (self.level != Level::Dead).then(|| self.die(now, Reason::Refused))
            }
            Sign::Answered => {
                self.refused = None;
                self.alive(now)
            }
            Sign::Beat { of, sequence } => self.beat(now, of, sequence),
        }
    }

    fn beat(&mut self, now: Nanos, of: Incarnation, sequence: u64) -> Option<Change> {
        let order = self.beats.take(now, self.interval, of, sequence);
        if !order.is_fresh() {
            return None;
        }
        self.was_heard = true;
        if order == Order::Restarted {
            self.rhythm = Rhythm::new(self.interval);
            (self.heard, self.seen, self.steady, self.good) = (now, now, false, 0);
            (self.failed_probes, self.mute_probes, self.refused) = (0, 0, None);
            self.slow_since = None;
            return match self.level {
                Level::Recovering | Level::Held => {
                    self.out_since = 0;
                    None
                }
                _ => Some(self.back(now, Reason::Restarted)),
            };
        }
        if self.refused.is_some_and(|at| !is_silence(now.saturating_sub(at), self.interval, 1)) {
            return None;
        }
        // Who is probed would have refused again; who only beats is asked by nobody.
        self.refused = None;
        if self.steady && self.level == Level::Healthy {
            self.rhythm.add(now.saturating_sub(self.heard));
        }
        self.steady = true;
        self.alive(now)
    }

    /// The application gave a sign of life.
    fn alive(&mut self, now: Nanos) -> Option<Change> {
        (self.heard, self.seen, self.failed_probes, self.mute_probes) = (now, now, 0, 0);
        self.was_heard = true;
        match self.level {
            Level::Healthy | Level::Held => None,
            Level::Suspect => {
                // What ends a suspicion is a pause, no interval.
                self.steady = false;
                Some(self.turn(now, if self.cold { Level::Recovering } else { Level::Healthy }, Reason::Heard))
            }
            Level::Dead => Some(self.back(now, Reason::Heard)),
            Level::Recovering => {
                self.good += 1;
                if self.good < GOOD_IN_A_ROW {
                    return None;
                }
                let short = now.saturating_sub(self.out_since) < SHORT_OUTAGE;
                (self.cold, self.slow_since) = (false, (!short).then_some(now));
                Some(self.turn(now, Level::Healthy, Reason::GoodInARow))
            }
        }
    }

    /// Looks at it at `now`: every tick of the agent, after the signs of the tick have been given.
    pub fn tick(&mut self, now: Nanos, leniency: Leniency) -> Option<Change> {
        let silence = now.saturating_sub(self.heard);
        let patience = leniency.patience.max(1);
        let silent = is_silence(silence, self.interval, patience);
        if self.slow_since.is_some_and(|since| now.saturating_sub(since) >= SLOW_START) {
            self.slow_since = None;
        }
        match self.level {
            Level::Healthy | Level::Recovering if silent || self.failed_probes >= FAILED_PROBES => {
                let reason = if silent { Reason::Silence } else { Reason::ProbesFailed };
                if self.level == Level::Healthy {
                    self.out_since = self.heard;
                }
                (self.failed_probes, self.next_probe) = (0, now);
                Some(self.turn(now, Level::Suspect, reason))
            }
            Level::Suspect if leniency.frozen => {
                // Confirmation begins anew when the observer is to be trusted again.
                (self.failed_probes, self.mute_probes) = (0, 0);
                None
            }
            Level::Suspect if u64::from(self.failed_probes) >= u64::from(CONFIRMATIONS) => {
                if now.saturating_sub(self.seen) >= SIGN_OF_LIFE {
                    Some(self.die(now, Reason::Unconfirmed))
                } else {
                    let surely = if self.mute_probes < MUTE_PROBES { 2 } else { 1 };
                    (silence >= HANGS_AFTER.saturating_mul(surely * patience)).then(|| self.die(now, Reason::Hangs))
                }
            }
            Level::Held if silent => Some(self.die(now, Reason::Silence)),
            Level::Held if self.flapping.released(now) => Some(self.turn(now, Level::Recovering, Reason::HeldEnough)),
            _ => None,
        }
    }

    /// Whether it is to be probed now, beside the probes that policy asks for: its application, and its host by [`KNOCKS`]
    /// connections. A suspect is, every [`CONFIRM_EVERY`].
    pub fn probe_is_due(&mut self, now: Nanos) -> bool {
        let due = self.level == Level::Suspect && now >= self.next_probe;
        if due {
            self.next_probe = now + CONFIRM_EVERY;
        }
        due
    }

    /// The observer did not look for so long: that was no silence of the backend's.
    pub fn excuse(&mut self, now: Nanos, pause: Nanos) {
        self.heard = self.heard.saturating_add(pause).min(now);
        self.seen = self.seen.saturating_add(pause).min(now);
        self.steady = false;
        (self.failed_probes, self.mute_probes) = (0, 0);
    }

    fn die(&mut self, now: Nanos, reason: Reason) -> Change {
        if self.level == Level::Healthy {
            self.out_since = now;
        }
        self.flapping.count(now);
        self.steady = false;
        self.turn(now, Level::Dead, reason)
    }

    fn back(&mut self, now: Nanos, reason: Reason) -> Change {
        if reason == Reason::Restarted {
            // However short the outage was, a new incarnation needs its slow start.
            self.out_since = 0;
        }
        (self.good, self.cold) = (0, true);
        if self.level == Level::Dead && self.flapping.holds(now) {
            return self.turn(now, Level::Held, Reason::Flaps);
        }
        self.turn(now, Level::Recovering, reason)
    }

    fn turn(&mut self, now: Nanos, to: Level, reason: Reason) -> Change {
        let from = std::mem::replace(&mut self.level, to);
        self.since = now;
        Change { from, to, reason }
    }
}

/// The share of its load for one that came back so long ago: from [`FIRST_SHARE`] evenly up to 1 over [`SLOW_START`].
pub fn slow_start(ago: Nanos) -> f64 {
    let grown = (ago as f64 / SLOW_START as f64).min(1.0);
    FIRST_SHARE + (1.0 - FIRST_SHARE) * grown
}
