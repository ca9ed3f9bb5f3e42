//! Which signal limits follow for good: on the edge between two of them each is the best there is for a moment, and nobody wants
//! to read of each.

use super::{Nanos, controller::Rung, signals::STALE};

/// For so long another signal must be followed before that is said: as long as one may be late.
pub const LASTS: Nanos = STALE;

/// The signal that is said to be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    said: Rung,
    /// Since when none is followed that is said to be.
    since: Option<Nanos>,
}

impl Default for Followed {
    fn default() -> Self {
        Self { said: Rung::Static, since: None }
    }
}

impl Followed {
    /// Takes the signal that is followed at `now`, and says from which to which that has changed, when it has lasted.
    pub fn step(&mut self, now: Nanos, rung: Rung) -> Option<(Rung, Rung)> {
        if rung == self.said {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_sub(since) < LASTS {
            return None;
        }
        self.since = None;
        Some((std::mem::replace(&mut self.said, rung), rung))
    }
}
