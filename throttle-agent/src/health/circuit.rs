//! The words of a breaker: what it sees, what it says, and, from what it shares with the kernel, the rule by which that
//! admits between two steps.

pub use throttle_common::breakers::{Admission, Forced, State};

/// What holds where several breakers guard one address: what an operator says of one, else the strictest.
pub fn joined(states: impl IntoIterator<Item = State>) -> State {
    let rank = |state: &State| match *state {
        State::Closed => (0, 0),
        State::HalfOpen { left } => (1, u64::MAX - u64::from(left)),
        State::Open { until } => (2, until),
        State::Forced(Forced::Closed) => (3, 0),
        State::Forced(Forced::Open) => (4, 0),
    };
    states.into_iter().max_by_key(rank).unwrap_or(State::Closed)
}

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

    /// The same where what is slow is nobody's fault.
    pub(super) const fn but_for_slowness(self) -> Self {
        Self { good: self.good.saturating_add(self.slow), slow: 0, failed: self.failed }
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
    /// Whether it has answered well several times in a row: then no wait need be longer than the first.
    pub well: bool,
    /// Whether it is to be kept from nobody whatever it shows, because others are and somebody has to serve.
    pub spared: bool,
    /// What the operator wants.
    pub forced: Option<Forced>,
}

/// What the detector holds of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Life {
    /// Nothing that a breaker should know.
    #[default]
    Unremarkable,
    /// It lives, and its heartbeats will say how it serves, however seldom they are.
    Alive,
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
    /// The backend is heard of again, or answers well.
    Recovery,
    /// [`GOOD_TRIALS`](super::breaker::GOOD_TRIALS) trials were good.
    TrialsGood,
    /// More than the others were slow, failed or did not end.
    TrialsBad,
    /// So many others are kept away that this one must not be.
    Spared,
    /// Policy has no breakers here any more.
    SwitchedOff,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_breakers_that_guard_one_address_the_strictest_holds_unless_an_operator_holds_one() {
        let [early, late] = [7, 8].map(|until| State::Open { until });
        let [few, many] = [0, 9].map(|left| State::HalfOpen { left });
        let [open, closed] = [Forced::Open, Forced::Closed].map(State::Forced);
        let by_strictness = [State::Closed, many, few, early, late, closed, open];
        for (number, state) in by_strictness.into_iter().enumerate() {
            for other in &by_strictness[..=number] {
                assert_eq!(joined([state, *other]), state);
                assert_eq!(joined([*other, state]), state);
            }
        }
        assert_eq!(joined([]), State::Closed);
    }
}
