//! When a service needs more workers than it has: throttling keeps it alive, and does not serve what it refuses.

use super::{Nanos, SECOND};

#[cfg(test)]
#[path = "scale_out_tests.rs"]
mod tests;

/// For so long it must want for more before that is said, and want for nothing before that is taken back.
pub const LASTS: Nanos = 10 * SECOND;
/// A pause that is shorter does not end it: refusals come in bursts.
pub const PAUSES: Nanos = SECOND;

/// Whether a service needs more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScaleOut {
    wants: bool,
    /// Since when what is seen is so, where it differs from what is said: for `wants` its absence.
    since: Option<Nanos>,
    /// When it last wanted for more.
    last: Nanos,
}

impl ScaleOut {
    /// Whether it needs more.
    pub const fn wants(&self) -> bool {
        self.wants
    }

    /// One that needed more when an agent before this one told of it last.
    pub const fn wanting() -> Self {
        Self { wants: true, since: None, last: 0 }
    }

    /// Takes whether it wanted for more within the period that ends at `now`, and says where that changes what is said.
    pub fn step(&mut self, now: Nanos, short: bool) -> Option<bool> {
        if short {
            self.last = now;
        }
        let pausing = now.saturating_sub(self.last) < PAUSES;
        let differs = if self.wants { !short && !pausing } else { short || self.since.is_some() && pausing };
        if !differs {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_sub(since) < LASTS {
            return None;
        }
        (self.wants, self.since) = (!self.wants, None);
        Some(self.wants)
    }
}
