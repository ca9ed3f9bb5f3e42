//! The two clocks: the wall's, in which people say when, and the kernel's, in which blocks end and events happen.

use jiff::{SignedDuration, Timestamp};

/// By how much the wall clock may wander before the kernel's ends are written anew.
const SLACK: SignedDuration = SignedDuration::from_secs(1);

/// What the wall clock said when the kernel's monotonic clock said 0. It is held still over small corrections, so that
/// the same end in wall time is the same number in the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    zero: Timestamp,
}

impl Clock {
    /// Reads both clocks.
    pub fn new() -> Self {
        Self { zero: measure() }
    }

    /// Follows the wall clock when it was set (or the machine slept), and says whether it was.
    pub fn follow(&mut self) -> bool {
        let zero = measure();
        let moved = zero.duration_since(self.zero).abs() > SLACK;
        if moved {
            self.zero = zero;
        }
        moved
    }

    /// A moment in nanoseconds of the kernel's clock; 1 for one before it started, because 0 stands for no end.
    pub fn kernel(&self, at: Timestamp) -> u64 {
        u64::try_from(at.duration_since(self.zero).as_nanos()).unwrap_or(0).max(1)
    }

    /// A moment of the kernel's clock on the wall.
    pub fn wall(&self, nanos: u64) -> Timestamp {
        let since = SignedDuration::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX));
        self.zero.saturating_add(since).unwrap_or(Timestamp::MAX)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

fn measure() -> Timestamp {
    let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let since = SignedDuration::new(monotonic.tv_sec, i32::try_from(monotonic.tv_nsec).unwrap_or(0));
    Timestamp::now().saturating_sub(since).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_survives_the_way_to_the_kernel_and_back() {
        let mut clock = Clock::new();
        let end = Timestamp::now() + SignedDuration::from_secs(60);
        assert_eq!(clock.wall(clock.kernel(end)), end);
        assert!(!clock.follow(), "nobody set the clock");
        assert_eq!(clock.kernel(Timestamp::UNIX_EPOCH), 1);
    }
}
