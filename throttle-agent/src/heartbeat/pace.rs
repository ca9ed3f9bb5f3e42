//! When an instance is probed: every interval, a little early or late, so that neither the instances of one agent nor the
//! agents of one instance keep step.

use std::time::Duration;

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;

/// By how much a probe may be early or late, as a part of the interval: a tenth, and [`FIRST`] at most.
const JITTER: u64 = 10;

/// The first beat is due within so many nanoseconds, however seldom they are.
const FIRST: u64 = 1_000_000_000;

/// The pace of one instance. Times are since any one instant; no delay is ever made up for by probes in a row.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    interval: u64,
    /// The beat that the next probe belongs to, without its jitter.
    beat: u64,
    dice: Dice,
}

impl Pace {
    /// A pace that begins at `now`, with its first beat anywhere in the first interval, or second.
    pub(super) fn new(now: Duration, interval: Duration, seed: u64) -> Self {
        let (interval, mut dice) = (nanos(interval).max(1), Dice::new(seed));
        let phase = dice.below(interval.min(FIRST));
        Self { interval, beat: nanos(now) + phase, dice }
    }

    /// When to probe next: the beats that have passed by `now` are left out.
    pub(super) fn next(&mut self, now: Duration) -> Duration {
        let jitter = (self.interval / JITTER).min(FIRST);
        let shift = self.dice.below(2 * jitter + 1);
        let at = Duration::from_nanos((self.beat + shift).saturating_sub(jitter));
        let passed = nanos(now).saturating_sub(self.beat) / self.interval;
        self.beat += (passed + 1) * self.interval;
        at.max(now)
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX / 4)
}

/// Dice of no secret: xorshift64* (Vigna 2016).
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        // The state is never 0. Seeds that differ by little are spread first.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from 0 to `bound`, which it does not reach.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        // The high half of the product spreads evenly, but for less than one in 2^32 of intervals up to a minute.
        ((u128::from(drawn) * u128::from(bound)) >> 64) as u64
    }
}
