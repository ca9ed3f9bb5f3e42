//! When to try again what has failed: soon at first, then ever more seldom, but never not at all.

use std::time::{Duration, Instant};

/// The pause after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_mins(1);

/// The failures in a row of one thing, and when it is worth another try. Pure: the time comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    failures: u32,
    due: Option<Instant>,
}

impl Retry {
    /// Notes a failure, and gives how long to wait: 1 s after the first, twice as long after each more, at most 1 min.
    pub fn failed(&mut self, now: Instant) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now + pause);
        pause
    }

    /// Whether it is time to try.
    pub fn due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    /// How long until it is time to try.
    pub fn wait(&self, now: Instant) -> Duration {
        self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_pause_up_to_a_minute() {
        let (now, mut retry) = (Instant::now(), Retry::default());
        assert!(retry.due(now), "what has not failed is not waited for");
        let pauses: Vec<_> = (0..8).map(|_| retry.failed(now).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(!retry.due(now + Duration::from_secs(59)) && retry.due(now + LONGEST));
        assert_eq!(retry.wait(now + Duration::from_secs(59)), Duration::from_secs(1));
    }
}
