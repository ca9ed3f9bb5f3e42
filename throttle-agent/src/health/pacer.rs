//! How much of its rate a service may be asked for, where that is all that can be moved: UDP, and connections that are kept
//! and say nothing of the requests in them.
//!
//! A controller of a rate integrates what a window settles by itself, so it needs to look at how the delay changes too: the
//! rate's logarithm follows the error by a little and its change by more. That settles later and further from the best than a
//! window does, which is why it is only done where a window cannot be.

use throttle_common::speed::Speed;

use super::{
    Nanos, SECOND,
    controller::{Adjustment, Cause, PERIOD, REST_GROWS},
};

#[cfg(test)]
#[path = "pacer_tests.rs"]
mod tests;

/// What an error of one target delay takes of the rate's logarithm in a period.
pub const FOLLOWS: f64 = 0.03;
/// What a change of the error by one takes of it.
pub const LEADS: f64 = 0.15;
/// The largest error that counts, in target delays.
pub const LARGEST_ERROR: f64 = 3.0;
/// What a period takes at most, and what it gives at most.
pub const STEPS: [f64; 2] = [0.5, 1.05];
/// While it is too slow, a service may be asked for at most so many times what it was asked for.
pub const HEADROOM: f64 = 2.0;
/// What it was asked for is that of so many periods, two seconds: where a connection comes every second, most periods see
/// none.
pub const ASKED_IN: usize = (2 * SECOND / PERIOD) as usize;
/// What is left after an overflow or a bad beat, and what a good one gives in a period.
pub const BAD_LEAVES: f64 = 0.7;
/// How much it grows in a period where only heartbeats tell: 2 % a second.
pub const GROWS_BY_BEATS: f64 = 0.002;

/// The share of a service's rates that it may be asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pacer {
    share: f64,
    error: f64,
    asked: Asked,
}

/// What was admitted in the last periods, as a share of what the rates allow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Asked {
    periods: [f64; ASKED_IN],
    /// How many periods were ever taken.
    count: usize,
}

impl Asked {
    fn add(&mut self, admitted: f64) {
        self.periods[self.count % ASKED_IN] = admitted;
        self.count += 1;
    }

    /// What is asked for: the mean of all these periods, or the last where that was more; nothing before there are so many.
    fn share(&self) -> Option<f64> {
        let last = self.periods[self.count.checked_sub(1)? % ASKED_IN];
        let mean = self.periods.iter().sum::<f64>() / ASKED_IN as f64;
        (self.count >= ASKED_IN).then_some(mean.max(last))
    }
}

impl Default for Pacer {
    fn default() -> Self {
        Self { share: 1.0, error: -1.0, asked: Asked::default() }
    }
}

impl Pacer {
    /// Goes on from what an agent before this one left in force.
    pub const fn resume(&mut self, speed: Speed) {
        self.share = speed.parts() as f64 / Speed::ONE.parts() as f64;
    }

    /// Takes what the controller makes of a period's signals, and what was admitted in it as a share of what the rates allow
    /// (where that is known), and gives the share that holds for the next.
    pub fn step(&mut self, seen: &Adjustment, admitted: Option<f64>) -> f64 {
        if let Some(admitted) = admitted {
            self.asked.add(admitted);
        }
        let factor = match (seen.cause, seen.delay) {
            (Cause::NoSignal, _) => {
                // What policy says.
                (self.share, self.error) = (1.0, -1.0);
                return 1.0;
            }
            (Cause::Idle, _) => {
                self.error = -1.0;
                1.0 + REST_GROWS
            }
            (Cause::Overflow | Cause::BadBeat, _) => BAD_LEAVES,
            (_, Some(delay)) => self.follow(delay, seen.target, seen.loaded),
            (Cause::Room | Cause::Unused, None) => 1.0 + GROWS_BY_BEATS,
            (Cause::Delay | Cause::Unsure, None) => 1.0,
        };
        let least = Speed::LEAST.parts() as f64 / Speed::ONE.parts() as f64;
        self.share = (self.share * factor).clamp(least, 1.0);
        self.share
    }

    /// What few answers show is no queue.
    fn follow(&mut self, delay: Nanos, target: Nanos, loaded: bool) -> f64 {
        let (delay, target) = (if loaded { delay as f64 } else { 0.0 }, target.max(1) as f64);
        let error = ((delay - target) / target).clamp(-1.0, LARGEST_ERROR);
        let change = error - std::mem::replace(&mut self.error, error);
        if error > 0.0
            && let Some(asked) = self.asked.share()
        {
            // A rate that nobody uses up would sink for long before anybody felt it.
            self.share = self.share.min(HEADROOM * asked);
        }
        (-FOLLOWS * error - LEADS * change).exp().clamp(STEPS[0], STEPS[1])
    }
}
