//! How long a policy waits for its confirmation, on a clock that nobody sets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A revision in force that goes back by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The revision in force.
    pub revision: u64,
    /// The one whose document comes back; 0 for the empty one before the first.
    pub back_to: u64,
    /// When it was put in force.
    pub since: Moment,
    /// For how long it waits.
    pub window: Duration,
}

/// A moment in the life of a machine: which boot, and how long after it, sleep included (CLOCK_BOOTTIME).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// The kernel's name of the boot (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// The time since then.
    pub after: Duration,
}

impl Pending {
    /// How long it may still be confirmed: never more than the window, whatever became of the clocks, and no more at
    /// all after another boot. Whoever locked themselves out may have had nothing left but the power button.
    pub fn remaining(&self, now: &Moment) -> Duration {
        match now.after.checked_sub(self.since.after) {
            Some(passed) if now.boot == self.since.boot => self.window.saturating_sub(passed),
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(boot: &str, seconds: u64) -> Moment {
        Moment { boot: boot.to_owned(), after: Duration::from_secs(seconds) }
    }

    #[test]
    fn the_window_is_counted_from_the_moment_of_applying() {
        let window = Duration::from_mins(1);
        let pending = Pending { revision: 2, back_to: 1, since: moment("a", 1_000), window };
        let remaining = |now| pending.remaining(&now).as_secs();
        assert_eq!(remaining(moment("a", 1_000)), 60);
        assert_eq!(remaining(moment("a", 1_059)), 1);
        assert_eq!(remaining(moment("a", 9_000)), 0);
        assert_eq!(remaining(moment("b", 1_001)), 0, "the machine was started anew");
        assert_eq!(remaining(moment("a", 999)), 0, "a clock that went back does not make it longer");
    }
}
