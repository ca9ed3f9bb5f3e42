//! What is usual: the delay of a service that nobody waits in, and how much it delivers at most.

use std::collections::VecDeque;

use super::{Nanos, SECOND};

#[cfg(test)]
#[path = "baseline_tests.rs"]
mod tests;

/// The least delay of so long is the baseline, as far as it may rise.
pub const LOOKS_BACK: Nanos = 30 * SECOND;
/// How much the baseline rises a minute at most. Without a bound the target doubles in an overload of ten minutes, and
/// overload becomes the norm, as it does where Gradient2 averages and Envoy measures anew under load.
pub const RISES_A_MINUTE: f64 = 0.05;
/// The highest throughput of so long is what the service can do (BBR's bandwidth filter, in seconds).
pub const PEAK_OF: usize = 10;

/// The least delay lately: it falls freely, and rises by [`RISES_A_MINUTE`] at most.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Baseline {
    value: Option<f64>,
    at: Nanos,
    /// The least of each second of the last [`LOOKS_BACK`], by the second's number.
    least: VecDeque<(u64, f64)>,
}

impl Baseline {
    /// Takes a delay that was measured, in nanoseconds, and gives the baseline.
    pub fn add(&mut self, now: Nanos, delay: f64) -> f64 {
        let second = now / SECOND;
        match self.least.back_mut() {
            Some((of, least)) if *of == second => *least = least.min(delay),
            _ => self.least.push_back((second, delay)),
        }
        while self.least.front().is_some_and(|(of, _)| (second - of) * SECOND >= LOOKS_BACK) {
            self.least.pop_front();
        }
        let least = self.least.iter().map(|(_, least)| *least).fold(f64::INFINITY, f64::min);
        let minutes = now.saturating_sub(self.at) as f64 / (60 * SECOND) as f64;
        let value = self.value.map_or(least, |value| least.min(value * (1.0 + RISES_A_MINUTE).powf(minutes)));
        (self.value, self.at) = (Some(value), now);
        value
    }

    /// Takes it that the least delay after an instant is that of the work itself, because nobody can have waited since; as far
    /// as it is no more than so much.
    pub fn relearn(&mut self, after: Nanos, most: f64) {
        let since = self.least.iter().filter(|(second, _)| *second > after / SECOND).map(|(_, least)| *least);
        let least = since.reduce(f64::min).map(|least| least.min(most));
        self.value = self.value.zip(least).map(|(value, least)| value.max(least)).or(self.value);
    }

    /// The baseline, in nanoseconds; `None` before the first delay.
    pub const fn value(&self) -> Option<f64> {
        self.value
    }
}

/// What a service delivers: over the last second, and at most in the last [`PEAK_OF`] in which it was busy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Throughput {
    /// What ended in each period of the last second.
    recent: VecDeque<(Nanos, u32)>,
    /// Since when it is watched.
    since: Option<Nanos>,
    /// The highest of each second, by the second's number.
    peaks: VecDeque<(u64, f64)>,
}

impl Throughput {
    /// Takes what ended in the period before `now`. A service that is not `busy` delivers what it is asked for, and that
    /// says nothing of what it can do: it only raises the peak, and ages none.
    pub fn add(&mut self, now: Nanos, completed: u32, busy: bool) {
        let since = *self.since.get_or_insert(now);
        self.recent.push_back((now, completed));
        while self.recent.front().is_some_and(|(at, _)| now.saturating_sub(*at) >= SECOND) {
            self.recent.pop_front();
        }
        if now.saturating_sub(since) < SECOND {
            return;
        }
        let (second, rate) = (now / SECOND, self.per_second());
        match self.peaks.back_mut() {
            Some((last, peak)) if *last == second || !busy => *peak = peak.max(rate),
            _ => self.peaks.push_back((second, rate)),
        }
        while self.peaks.len() > PEAK_OF {
            self.peaks.pop_front();
        }
    }

    /// What ended in the last second.
    pub fn per_second(&self) -> f64 {
        self.recent.iter().map(|(_, completed)| f64::from(*completed)).sum()
    }

    /// The most that ended in a second lately; `None` where it is not known.
    pub fn peak(&self) -> Option<f64> {
        self.peaks.iter().map(|(_, rate)| *rate).reduce(f64::max)
    }
}
