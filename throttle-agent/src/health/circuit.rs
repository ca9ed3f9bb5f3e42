//! The words of a breaker: what it sees, what it says, and, from what it shares with the kernel, the rule by which that
//! admits between two steps.

pub use throttle_common::breakers::{Admission, Forced, State};

/// What became of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Answered within the objective.
    pub good: u32,
    /// Answered, but later than that.
    pub slow: u32,
    /// Refused, reset, answered with an error of the server, or not at all.
    pub failed: u32,
}

impl Outcomes {
    pub(super) const fn all(self) -> u64 {
        self.good as u64 + self.bad()
    }

    pub(super) const fn bad(self) -> u64 {
        self.slow as u64 + self.failed as u64
    }

    pub(super) fn add(&mut self, more: Self) {
        self.good = self.good.saturating_add(more.good);
        self.slow = self.slow.saturating_add(more.slow);
        self.failed = self.failed.saturating_add(more.failed);
    }
}

/// What was seen since the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// What ended.
    pub outcomes: Outcomes,
    /// Trials that the kernel admitted.
    pub trials: u32,
    /// What the detector holds of the backend.
    pub life: Life,
    /// What the operator wants.
    pub forced: Option<Forced>,
}

/// What the detector holds of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Life {
    /// Nothing that a breaker should know.
    #[default]
    Unremarkable,
    /// It is ejected.
    Dead,
    /// It was, and is heard of again: it may be tried at once.
    Back,
}

/// Why a breaker changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// [`FAILED_PERCENT`](super::breaker::FAILED_PERCENT) of what ended failed.
    Failures,
    /// [`BAD_PERCENT`](super::breaker::BAD_PERCENT) of what ended was slow or failed.
    Slowness,
    /// The backend is dead.
    Death,
    /// The open time is over.
    TimeIsOver,
    /// A dead backend is heard of again.
    Recovery,
    /// [`GOOD_TRIALS`](super::breaker::GOOD_TRIALS) trials were good.
    TrialsGood,
    /// More than the others were slow, failed or did not end.
    TrialsBad,
    /// An operator forces it.
    Forced,
    /// An operator leaves it to itself again.
    Released,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
    /// Why.
    pub reason: Reason,
}
