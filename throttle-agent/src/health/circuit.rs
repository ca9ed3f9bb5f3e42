//! The words of a breaker: what it sees, what it says, and the rule by which the kernel admits between two steps.

use super::{Nanos, breaker::TRIALS};

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

/// A state that an operator holds it in, whatever is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forced {
    /// Nothing is admitted.
    Open,
    /// All is admitted.
    Closed,
}

/// What becomes of new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All are admitted.
    Closed,
    /// None are, until an instant; then trials.
    Open {
        /// When the kernel begins to admit trials.
        until: Nanos,
    },
    /// Trials are.
    HalfOpen {
        /// How many the round may yet admit.
        left: u32,
    },
    /// What an operator says.
    Forced(Forced),
}

/// What becomes of one new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is admitted.
    Pass,
    /// It is admitted as a trial.
    Trial,
    /// It is refused.
    Refuse,
}

impl State {
    /// What becomes of a new connection when `taken` trials of the round have been admitted since this was published: the
    /// rule that the kernel follows between two steps of the agent.
    pub const fn admit(self, now: Nanos, taken: u32) -> Admission {
        let left = match self {
            Self::Closed | Self::Forced(Forced::Closed) => return Admission::Pass,
            Self::Open { until } if now >= until => TRIALS,
            Self::HalfOpen { left } => left,
            Self::Open { .. } | Self::Forced(Forced::Open) => return Admission::Refuse,
        };
        if taken < left { Admission::Trial } else { Admission::Refuse }
    }
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
