//! How much a service may be asked at once, and how fast its limits' clock runs: from what it shows, every [`PERIOD`].
//!
//! Latency drives the *window* W of what may be under way at once; the rate follows by itself. (A rate that follows latency
//! integrates twice, and oscillates: a tenth to nine tenths of the goodput in simulation.) Above its target delay the window
//! shrinks by Breakwater's law (OSDI 2020), below it grows while it is used. Where there is no latency, the next best signal
//! stands in ([`Rung`]), and what comes out says which. Work that takes longer than it did is told from waiting where the window
//! has long been at its least (as BBR tells it, with its probe of the round trip). The clock's speed m is only a guard: it keeps what every source may
//! send from running far ahead of what the service delivers. Both need more than one slow answer, and where nobody asks for
//! anything both go back to what policy says. Dry-run is the caller's: it shows this and writes nothing.

use throttle_common::speed::Speed;

use self::ladder::{Delay, Ladder};
pub use self::ladder::{LEAST_SAMPLES, RESTS_AFTER, Rung};
use super::{
    MILLISECOND, Nanos, SECOND,
    baseline::Throughput,
    signals::{STALE, Signals},
    whole,
};

mod ladder;

#[cfg(test)]
#[path = "controller_tests.rs"]
mod tests;

/// How often a service is looked at.
pub const PERIOD: Nanos = 100 * MILLISECOND;
/// How strongly the window shrinks: b of `1 - b (d - d_t)/d_t`. Breakwater has 0.02 each round trip.
pub const SHRINKS: f64 = 0.3;
/// The most that one step shrinks, whatever the delay (Breakwater).
pub const SHRINKS_MOST: f64 = 0.5;
/// How much the window grows in a period, where it is used: it doubles in 3.5 s.
pub const GROWS: f64 = 0.02;
/// What is left of the window after an overflow.
pub const OVERFLOW_LEAVES: f64 = 0.7;
/// The share of the objective that may be spent on waiting, and the least target.
pub const TARGET_SHARE: f64 = 0.2;
/// The least target delay.
pub const LEAST_TARGET: Nanos = 5 * MILLISECOND;
/// The window is at most so many times what Little's law asks for at the target (BBR's gain).
pub const LITTLE_GAIN: f64 = 2.0;
/// The rate that all sources together may ask for, above what was delivered at most.
pub const RATE_GAIN: f64 = 1.25;
/// Of what is open, what a window leaves at least that has to be closed first.
pub const AHEAD_LEAVES: f64 = 0.7;
/// How much the window grows each second where only heartbeats tell: by so much of itself, and by as much of what policy
/// allows at least as brings it all back within [`BACK_BY_BEATS`].
pub const GROWS_BY_BEATS: f64 = 0.02;
/// See [`GROWS_BY_BEATS`].
pub const BACK_BY_BEATS: Nanos = 60 * SECOND;
/// How much the speed grows in a period in which nobody waits: from a sixteenth it is back after 3 s.
pub const CALM_GROWS: f64 = 0.1;
/// How much window and speed grow in a period from then on: from 2 to 1 000 in 3 s.
pub const REST_GROWS: f64 = 0.25;

/// Where the least window is taken for so long and delays are no shorter, they are none of those who wait: then the work itself
/// takes as long, and that is usual from now on, within the objective.
pub const RELEARNS_AFTER: Nanos = 10 * SECOND;

/// What policy says of a service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// The latency that clients are promised, in nanoseconds: its fifth is the target of the delay.
    pub objective: Nanos,
    /// The least window; 2 or more, or one stuck request would stop a service.
    pub least: u32,
    /// The largest window.
    pub most: u32,
    /// The window where nothing is known.
    pub fixed: u32,
    /// What its limits admit in a second at full speed; where there is no such limit, the speed guards nothing.
    pub rate: Option<f64>,
}

/// Why the window is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The delay is above its target: it shrinks.
    Delay,
    /// Something overflowed: it shrinks.
    Overflow,
    /// A heartbeat was bad: it shrinks.
    BadBeat,
    /// There is room, and use for more: it grows.
    Room,
    /// It is not used: it stays.
    Unused,
    /// Nobody asks for anything: it goes back to what policy says.
    Idle,
    /// What is known does not suffice to move it: it stays.
    Unsure,
    /// Nothing is known: it is what policy says.
    NoSignal,
}

/// What a service may do from now on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adjustment {
    /// What may be under way at once.
    pub window: u32,
    /// How fast its limits' clock runs.
    pub speed: Speed,
    /// Which signal decided.
    pub rung: Rung,
    /// Why.
    pub cause: Cause,
    /// How long requests wait beyond what is usual, in nanoseconds; nothing where no delay is known.
    pub delay: Option<Nanos>,
    /// How long they may.
    pub target: Nanos,
    /// Whether that delay is shown by enough answers, or enough is under way, to say anything of the service.
    pub loaded: bool,
}

/// The control of one service.
#[derive(Clone, Debug)]
pub struct Controller {
    terms: Terms,
    window: f64,
    rate_share: f64,
    rung: Rung,
    ladder: Ladder,
    throughput: Throughput,
    flow_at: Nanos,
    beat_at: Nanos,
    /// When it went on from what an agent before this one left.
    resumed: Option<Nanos>,
    /// Since when delays are above their target though no more than the least window is under way.
    least_since: Option<Nanos>,
}

impl Controller {
    /// One that knows nothing yet: what policy says.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            window: f64::from(terms.fixed),
            rate_share: 1.0,
            rung: Rung::Static,
            ladder: Ladder::default(),
            throughput: Throughput::default(),
            flow_at: 0,
            beat_at: 0,
            resumed: None,
            least_since: None,
        }
    }

    /// Forgets what is usual, for a backend of another incarnation: the window begins at its least.
    pub fn restart(&mut self) {
        *self = Self { window: f64::from(self.terms.least), ..Self::new(self.terms) };
    }

    /// Goes on from what an agent before this one left in force: a window and a speed, and the delay that was usual.
    pub fn resume(&mut self, now: Nanos, window: u32, speed: Speed, usual: Option<Nanos>) {
        (self.window, self.resumed) = (f64::from(window), Some(now));
        self.rate_share = speed.parts() as f64 / Speed::ONE.parts() as f64;
        if let Some(usual) = usual {
            self.ladder.expect(now, usual);
        }
    }

    /// Begins again with what policy says, because that has been in force meanwhile. What is usual stays known.
    pub fn lapse(&mut self) {
        (self.window, self.rate_share, self.resumed) = (f64::from(self.terms.fixed), 1.0, None);
        self.ladder.lapse();
        self.bound(None, 0.0);
    }

    /// Goes by other terms from now on. What is known stays; the window moves only where it must.
    pub fn follow(&mut self, terms: Terms) {
        self.terms = terms;
        self.bound(None, 0.0);
    }

    /// The time to first byte that is usual, where it is known.
    pub fn usual(&self) -> Option<Nanos> {
        self.ladder.usual(Rung::Latency).map(whole)
    }

    /// Takes what the last period showed, and says what holds for the next. `share` is what suspicion, slow start and the
    /// operator leave, from 0 to 1.
    pub fn step(&mut self, now: Nanos, signals: &Signals, share: f64) -> Adjustment {
        let used = 2.0 * f64::from(signals.most_in_flight) >= self.window;
        if let Some(flow) = signals.flow.filter(|flow| flow.at > self.flow_at && flow.fresh(now).is_some()) {
            self.flow_at = flow.at;
            self.throughput.add(now, flow.value.completed, used);
        }
        let target = self.target();
        let idle = self.ladder.rests(now, signals, used);
        let (rung, delay) = self.ladder.look(now, signals, self.window, &self.throughput);
        self.rung = rung;
        // Who is not held back by the window is not helped by a smaller one: at low load one slow answer says little. But where
        // many wait there is a queue, and a window far wider than it would only let it grow.
        let many = |delay: Delay| delay.many && signals.most_in_flight >= LEAST_SAMPLES;
        let waits = delay.filter(|delay| delay.beyond > target && (used || many(*delay)));
        let under_way = signals.flow.and_then(|flow| flow.fresh(now)).map_or(0, |(flow, _)| flow.in_flight);
        let loaded = delay.is_some_and(|delay| delay.many) || under_way >= LEAST_SAMPLES;
        let cause = match (rung, delay) {
            // What was in force when this began stays until a signal can have come.
            (Rung::Static, _) if self.resumed.is_some_and(|at| now.saturating_sub(at) < STALE) => Cause::Unsure,
            (Rung::Static, _) => {
                self.window = f64::from(self.terms.fixed);
                Cause::NoSignal
            }
            (Rung::Heartbeats, _) => self.follow_beats(now, signals, used),
            _ if signals.overflow => {
                self.window *= OVERFLOW_LEAVES;
                Cause::Overflow
            }
            (_, Some(delay)) if waits.is_some() => {
                self.window *= shrunk(delay, target);
                Cause::Delay
            }
            _ if idle => {
                let grown = ((1.0 + REST_GROWS) * self.window).min(f64::from(self.terms.fixed));
                self.window = self.window.max(grown);
                Cause::Idle
            }
            (_, Some(_)) if used => {
                self.window += (GROWS * self.window).max(1.0);
                Cause::Room
            }
            (_, Some(_)) => Cause::Unused,
            (_, None) => Cause::Unsure,
        };
        let full = f64::from(signals.most_in_flight) >= self.window.floor();
        self.bound(waits, target);
        self.guard(rung, waits.filter(|_| loaded), target, full && loaded, idle);
        self.relearn(now, rung, waits.is_some(), signals.most_in_flight);
        Adjustment {
            window: whole(self.window) as u32,
            speed: speed(self.rate_share.min(share)),
            rung,
            cause,
            delay: delay.map(|delay| whole(delay.beyond)),
            target: whole(target),
            loaded,
        }
    }

    /// What a window that is only shown would come to: without effect on the delay that it follows, it would shrink to its
    /// least. It settles where the delay is at its target, at what Little's law makes of that.
    pub fn imagine(&mut self, adjustment: Adjustment) -> Adjustment {
        let usual = self.ladder.usual(adjustment.rung);
        // What makes its clients wait delivers all that it can.
        let most = match adjustment.cause {
            Cause::Delay => Some(self.throughput.per_second()),
            _ => self.throughput.peak(),
        };
        let settles = usual.zip(most).map(|(usual, most)| most * (usual + self.target()) / SECOND as f64);
        self.window = self.window.max(settles.unwrap_or_default().min(f64::from(self.terms.most)));
        Adjustment { window: whole(self.window) as u32, ..adjustment }
    }

    /// Has the window not run ahead of an actuator that is slower than it: what waits now is the delay of all that is open, and
    /// not of the few that are left of it when all above the window are closed.
    pub fn wait_for(&mut self, adjustment: Adjustment, open: u32) -> Adjustment {
        self.window = self.window.max((AHEAD_LEAVES * f64::from(open)).min(f64::from(self.terms.most)));
        Adjustment { window: whole(self.window) as u32, ..adjustment }
    }

    fn target(&self) -> f64 {
        (TARGET_SHARE * self.terms.objective as f64).max(LEAST_TARGET as f64)
    }

    fn follow_beats(&mut self, now: Nanos, signals: &Signals, used: bool) -> Cause {
        let beat = signals.bad_beat.filter(|beat| beat.value && beat.at > self.beat_at);
        if let Some(beat) = beat {
            self.beat_at = beat.at.min(now);
            self.window *= OVERFLOW_LEAVES;
            Cause::BadBeat
        } else if used {
            let least = f64::from(self.terms.most) * SECOND as f64 / BACK_BY_BEATS as f64;
            self.window += (GROWS_BY_BEATS * self.window).max(least) * PERIOD as f64 / SECOND as f64;
            Cause::Room
        } else {
            Cause::Unused
        }
    }

    /// Keeps the window within what policy allows, and, where it holds somebody back who waits, within what Little's law makes
    /// of what is delivered at most. Where nobody waits, what is delivered is what was asked for, and says nothing of what
    /// can be.
    fn bound(&mut self, delay: Option<Delay>, target: f64) {
        let little = delay
            .zip(self.throughput.peak())
            .map(|(delay, peak)| LITTLE_GAIN * peak * (delay.usual + target) / SECOND as f64);
        let most = f64::from(self.terms.most).min(little.unwrap_or(f64::INFINITY));
        self.window = self.window.min(most).max(f64::from(self.terms.least));
    }

    /// Has what is usual be what it takes with as little under way as there can be, where that has lasted: such a delay is no
    /// queue that a smaller window could shorten.
    fn relearn(&mut self, now: Nanos, rung: Rung, waits: bool, most_in_flight: u32) {
        let least = self.terms.least;
        if !waits || self.window > f64::from(least) || most_in_flight > least {
            self.least_since = None;
            return;
        }
        let since = *self.least_since.get_or_insert(now);
        if now.saturating_sub(since) >= RELEARNS_AFTER {
            self.ladder.relearn(rung, since, self.terms.objective as f64 - self.target());
            self.least_since = None;
        }
    }

    /// How much of its rate all sources together may ask for: far more than is delivered only fills queues elsewhere. What few
    /// show slows nobody down, and what is delivered says something only where many wait or all places are taken.
    fn guard(&mut self, rung: Rung, waits: Option<Delay>, target: f64, full: bool, idle: bool) {
        let known = self.throughput.peak().zip(self.terms.rate).filter(|_| rung <= Rung::Little);
        self.rate_share = match (known, waits) {
            (Some((_, rate)), Some(delay)) if delay.beyond > 2.0 * target => self.throughput.per_second() / rate,
            (Some((peak, rate)), waits) if full || waits.is_some() => RATE_GAIN * peak / rate,
            // Nobody is kept slow for an overload that is over.
            _ => self.rate_share * (1.0 + if idle { REST_GROWS } else { CALM_GROWS }),
        }
        .clamp(Speed::LEAST.parts() as f64 / Speed::ONE.parts() as f64, 1.0);
    }
}

/// What one step leaves of the window: `1 - b (d - d_t)/d_t`.
///
/// The window of a busy service is proportional to its delay, so a step multiplies a small deviation by
/// `1 - b (1 + base/d_t)`; with a signal that is k periods old it settles only where
/// `b (1 + base/d_t) < 2 sin(pi / (2 (2k + 1)))`. Half of that bound is taken, and 0.3 at most. A step shrinks by a half at
/// most, and so do all the steps together that are taken before the first can be seen to work.
fn shrunk(delay: Delay, target: f64) -> f64 {
    let periods = delay.age as f64 / PERIOD as f64;
    let settles = (std::f64::consts::FRAC_PI_2 / (2.0 * periods + 1.0)).sin();
    let gain = (settles / (1.0 + delay.usual / target)).min(SHRINKS);
    (1.0 - gain * (delay.beyond - target) / target).max(SHRINKS_MOST.powf(1.0 / (1.0 + periods)))
}

/// The nearest speed that a clock can run at.
fn speed(share: f64) -> Speed {
    let parts = whole(share.clamp(0.0, 1.0) * Speed::ONE.parts() as f64);
    Speed::of_parts(parts.max(Speed::LEAST.parts())).unwrap_or(Speed::ONE)
}
