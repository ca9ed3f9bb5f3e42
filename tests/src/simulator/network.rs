//! What happens to heartbeats on their way, and to those who send and watch: bursts of loss, jitter, pauses.
//!
//! Calm hours and bad ones take turns. The rates were chosen so that a fixed timeout makes about as many mistakes as in the
//! research that the detector's constants come from: 134 in a node's day at 3.1 intervals, 20 at 5.1, 1.5 at 8.1.

use super::dice::Dice;
use throttle_agent::health::{MILLISECOND, Nanos, SECOND, whole};

/// How long it stays calm, or bad.
pub const TURN: Nanos = 3_600 * SECOND;
/// How long a link is good between two bursts of loss, in a bad hour, on average.
pub const GOOD: Nanos = 42 * SECOND;
/// How long a burst lasts on average: 3.3 heartbeats (Gilbert and Elliott's two states).
pub const BURST: Nanos = 660 * MILLISECOND;
/// The share of packets that a burst loses, in each direction.
pub const LOST: f64 = 0.5;
/// How long a sender runs between two pauses, on average.
pub const RUNS: Nanos = 1_800 * SECOND;
/// How long it pauses on average: a garbage collector, a busy host.
pub const PAUSE: Nanos = 300 * MILLISECOND;

/// The way between one backend and the observer.
#[derive(Clone, Debug)]
pub struct Link {
    bursts: bool,
    until: Nanos,
}

impl Link {
    /// One that is good at first.
    pub fn new(dice: &mut Dice) -> Self {
        Self { bursts: false, until: dice.exponential(GOOD) }
    }

    /// How long a packet takes that is sent at `now`, which never goes back; `None` where it is lost.
    pub fn carry(&mut self, now: Nanos, dice: &mut Dice) -> Option<Nanos> {
        while now >= self.until {
            self.bursts = !self.bursts;
            self.until += dice.exponential(if self.bursts { BURST } else { GOOD });
        }
        let bad = now / TURN % 2 == 1;
        if bad && self.bursts && dice.happens(LOST) {
            return None;
        }
        let millis = if bad { 3.0 * (0.9 * dice.normal()).exp() } else { 0.4 * (0.3 * dice.normal()).exp() };
        Some(whole(millis * MILLISECOND as f64))
    }
}

/// Somebody who stands still now and then.
#[derive(Clone, Debug)]
pub struct Pauses {
    runs: Nanos,
    pause: Nanos,
    from: Nanos,
    until: Nanos,
}

impl Pauses {
    /// Who runs so long and then stands still for so long, on average.
    pub fn new(runs: Nanos, pause: Nanos, dice: &mut Dice) -> Self {
        let from = dice.exponential(runs);
        Self { runs, pause, from, until: from + dice.exponential(pause) }
    }

    /// Until when it stands still, if it does at `now`, which never goes back.
    pub fn until(&mut self, now: Nanos, dice: &mut Dice) -> Option<Nanos> {
        while now >= self.until {
            self.from = self.until + dice.exponential(self.runs);
            self.until = self.from + dice.exponential(self.pause);
        }
        (now >= self.from).then_some(self.until)
    }
}
