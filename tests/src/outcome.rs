//! What came of a phase of load, of a simulated server and of a real one: answers while they were worth something.

use crate::simulator::scenario::CAPACITY;

/// Recovered is who gives such a share of what is possible.
pub const RECOVERED: f64 = 0.95;
/// Seconds at the beginning of a phase that say nothing of how steady it is.
const SETTLING: usize = 5;

/// What came of a phase.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Answers within the objective, in each tenth of a second.
    pub good: Vec<u32>,
    /// Good answers in a second that were possible: what was asked for, or what the server can do, whichever is less.
    pub possible: f64,
    /// The 99th percentile of how long answered clients waited, in milliseconds; 0 of none.
    pub p99: f64,
}

impl Outcome {
    /// Of a phase in which clients asked so many times, of a server with such a share of its capacity. `waits` are those of
    /// all answers, in nanoseconds.
    pub fn new(good: Vec<u32>, asked: u64, capacity: f64, mut waits: Vec<u64>) -> Self {
        waits.sort_unstable();
        let p99 = waits.get(waits.len() * 99 / 100).map_or(0.0, |wait| *wait as f64 / 1e6);
        let possible = (asked as f64 * 10.0 / good.len() as f64).min(capacity * CAPACITY);
        Self { good, possible, p99 }
    }

    /// Good answers, of those that were possible.
    pub fn goodput(&self) -> f64 {
        let good: u32 = self.good.iter().sum();
        f64::from(good) * 10.0 / self.good.len() as f64 / self.possible
    }

    /// Good answers in each whole second.
    pub fn seconds(&self) -> Vec<f64> {
        self.good.chunks_exact(10).map(|tenths| f64::from(tenths.iter().sum::<u32>())).collect()
    }

    /// Seconds until the first second began that had [`RECOVERED`] of what was possible; `None` where none had.
    pub fn recovery(&self) -> Option<f64> {
        let enough = |tenths: &[u32]| f64::from(tenths.iter().sum::<u32>()) >= RECOVERED * self.possible;
        self.good.windows(10).position(enough).map(|tenths| tenths as f64 / 10.0)
    }

    /// How much the goodput of a second differs from that of another, once it has settled: the coefficient of variation. That
    /// of a server which is always busy is 0.03 where its work is exponential; of one that gives nothing there is none.
    pub fn oscillation(&self) -> Option<f64> {
        let seconds: Vec<_> = self.seconds().split_off(SETTLING.min(self.good.len() / 10));
        let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
        let variance = seconds.iter().map(|good| (good - mean).powi(2)).sum::<f64>() / seconds.len() as f64;
        (mean >= 1.0).then(|| variance.sqrt() / mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_measured_by_what_was_possible_in_it() {
        // A server of 1 000 a second that is asked for 400, gives nothing for two seconds, and then all of it.
        let good = [vec![0; 20], vec![40; 80]].concat();
        let outcome = Outcome::new(good, 4_000, 1.0, (1..=100).map(|wait| wait * 1_000_000).collect());
        assert!((outcome.possible - 400.0).abs() < 1e-9 && (outcome.goodput() - 0.8).abs() < 1e-9, "{outcome:?}");
        // The second that begins at 1.9 s has nine tenths, and the next all of it.
        assert_eq!(outcome.recovery(), Some(2.0));
        assert!((outcome.p99 - 100.0).abs() < 1e-9 && outcome.oscillation() == Some(0.0), "{outcome:?}");
        let nothing = Outcome::new(vec![0; 100], 4_000, 1.0, Vec::new());
        assert_eq!((nothing.recovery(), nothing.oscillation()), (None, None));
    }
}
