//! How suspicious the silence of a backend is: a number that grows with it, and a share of load that sinks with the number.
//!
//! Phi accrual in its exponential form, as Cassandra computes it: `phi = silence / mean interval / ln 10`, so a phi of 1 is
//! a silence that one interval in ten exceeds, a phi of 3 one in a thousand, were intervals exponential. It throttles
//! softly and condemns nobody: at an equal rate of mistakes no adaptive detector beats a fixed timeout when beats are lost
//! in bursts. The verdict is [`super::detector`]'s.

use super::Nanos;

#[cfg(test)]
#[path = "suspicion_tests.rs"]
mod tests;

/// A backend is suspect after a silence of so many intervals, in tenths: three beats are missing.
pub const SUSPECT_TENTHS: u64 = 31;
/// Intervals that the mean remembers (Hayashibara et al. 2004, Cassandra, Akka).
pub const REMEMBERED: u32 = 1_000;
/// The declared interval counts as so many that were seen (chitchat), so that the first beats do not decide alone.
pub const PRIOR: u32 = 5;
/// Intervals that are longer than so many declared ones are pauses, and say nothing of the rhythm (chitchat).
pub const LONGEST_INTERVALS: u64 = 10;
/// The phi up to which nothing is throttled.
pub const UNSUSPICIOUS: f64 = 1.0;
/// The phi from which on only [`LEAST_SHARE`] is left.
pub const SUSPICIOUS: f64 = 3.0;
/// The share of its load that suspicion leaves to a backend: a wrong one costs three quarters for a moment, no ejection.
pub const LEAST_SHARE: f64 = 0.25;

/// The rhythm of one backend's heartbeats: its mean interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rhythm {
    declared: Nanos,
    mean: f64,
    /// Intervals in the mean, the prior included; those before the last [`REMEMBERED`] fade.
    count: u32,
}

impl Rhythm {
    /// That of a backend which declares to beat every so many nanoseconds, and has not yet.
    pub fn new(declared: Nanos) -> Self {
        let declared = declared.max(1);
        Self { declared, mean: declared as f64, count: PRIOR }
    }

    /// Takes the interval between two beats that followed each other.
    pub fn add(&mut self, interval: Nanos) {
        if interval <= self.declared.saturating_mul(LONGEST_INTERVALS) {
            self.count = (self.count + 1).min(REMEMBERED);
            self.mean += (interval as f64 - self.mean) / f64::from(self.count);
        }
    }

    /// How suspicious a silence is; 0 for none. Beats that come more often than declared make nobody suspicious sooner.
    pub fn phi(&self, silence: Nanos) -> f64 {
        silence as f64 / self.mean.max(self.declared as f64) / std::f64::consts::LN_10
    }
}

/// Whether three beats of one that is to beat every `interval` are missing, for an observer with such patience.
pub const fn is_silence(span: Nanos, interval: Nanos, patience: u64) -> bool {
    span.saturating_mul(10) >= interval.saturating_mul(SUSPECT_TENTHS * patience)
}

/// The share of its load that a backend may have at such a phi, from 1 down to [`LEAST_SHARE`].
pub fn share(phi: f64) -> f64 {
    let within = ((phi - UNSUSPICIOUS) / (SUSPICIOUS - UNSUSPICIOUS)).clamp(0.0, 1.0);
    1.0 - within * (1.0 - LEAST_SHARE)
}
