//! How long a host has been silent, in terms of how often it is heard: the suspicion.
//!
//! `suspicion = silence / usual interval`, as chitchat has it (a phi-accrual detector, Hayashibara et al. 2004, without its
//! logarithm): a host that is heard every 100 ms and silent for 800 ms comes to 8. Time is an argument.

use std::{collections::VecDeque, time::Duration};

/// Intervals that make what is usual.
const INTERVALS: usize = 200;
/// What is usual before any was seen, and how many intervals that counts for.
const PRIOR: Duration = super::INTERVAL;
const PRIOR_WEIGHT: u32 = 5;
/// A longer interval is an absence and says nothing of what is usual.
const LONGEST: Duration = Duration::from_secs(10);

/// What was heard of one host.
#[derive(Clone, Debug, Default)]
pub(super) struct Detector {
    intervals: VecDeque<Duration>,
    sum: Duration,
    last: Option<Duration>,
}

impl Detector {
    /// The host was heard.
    pub(super) fn hear(&mut self, now: Duration) {
        if let Some(last) = self.last.replace(now) {
            let interval = now.saturating_sub(last);
            if interval <= LONGEST {
                self.intervals.push_back(interval);
                self.sum += interval;
            }
            if self.intervals.len() > INTERVALS {
                self.sum -= self.intervals.pop_front().unwrap_or_default();
            }
        }
    }

    /// For so long nobody listened: that was no silence of the host's.
    pub(super) fn excuse(&mut self, deaf: Duration) {
        self.last = self.last.map(|last| last + deaf);
    }

    /// Forgets all: a host that comes back is judged by what is heard from then on.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// How much speaks for the host being dead; `None` before it was heard twice, since then it may have been long ago.
    pub(super) fn suspicion(&self, now: Duration) -> Option<f64> {
        let seen = u32::try_from(self.intervals.len()).ok().filter(|&seen| seen > 0)?;
        let usual = (self.sum + PRIOR * PRIOR_WEIGHT) / (seen + PRIOR_WEIGHT);
        Some(now.saturating_sub(self.last?).as_secs_f64() / usual.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn heard_every(interval: u64, times: u64) -> Detector {
        let mut detector = Detector::default();
        (0..times).for_each(|time| detector.hear(ms(time * interval)));
        detector
    }

    #[test]
    fn one_word_may_be_an_old_one() {
        assert_eq!(heard_every(100, 1).suspicion(ms(100)), None);
        assert!(heard_every(100, 2).suspicion(ms(200)).is_some());
    }

    #[test]
    fn suspicion_is_silence_over_what_is_usual() {
        let detector = heard_every(100, 1000);
        let suspicion = detector.suspicion(ms(99_900 + 800)).unwrap();
        assert!((7.5..8.0).contains(&suspicion), "{suspicion}");
        assert!(detector.suspicion(ms(99_900)).unwrap() < 0.01);
    }

    #[test]
    fn what_nobody_could_hear_is_no_silence() {
        let mut detector = heard_every(100, 1000);
        detector.excuse(ms(700));
        assert!(detector.suspicion(ms(99_900 + 800)).unwrap() < 1.1);
    }

    #[test]
    fn an_absence_does_not_change_what_is_usual() {
        let mut detector = heard_every(100, 1000);
        detector.hear(ms(99_900 + 60_000));
        let before = detector.suspicion(ms(99_900 + 60_800)).unwrap();
        assert!((7.5..8.0).contains(&before), "{before}");
        detector.reset();
        assert_eq!(detector.suspicion(ms(99_900 + 60_800)), None);
    }
}
