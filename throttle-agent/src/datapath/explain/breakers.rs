//! What breakers say of a connection that a packet opens, by the copy of what it meets.

use throttle_common::breakers::{Admission, Breaker, State, Taken, Word};

use super::copy::{Copy, first};

/// A breaker that a packet meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// Its number: that of a service's below [`throttle_common::records::FIRST_BACKEND`], else that of a backend's.
    pub number: u16,
    /// How it stands. One that is held closed is closed.
    pub state: State,
    /// From when on it lets connections pass, on the clock that the program reads: the instant of the question where it
    /// does already, `None` where it never will by itself.
    pub passes_at: Option<u64>,
    /// Whether it keeps this one away.
    pub refuses: bool,
}

impl Copy {
    /// Whether a breaker keeps the packet's connection away at an instant.
    pub(super) fn is_kept_away(&self, at: u64) -> bool {
        self.asks_breakers() && self.breakers.iter().any(|(_, breaker)| !admits(breaker, at))
    }

    /// The instants at which a breaker may change its mind.
    pub(super) fn turns_of_breakers(&self, now: u64) -> impl Iterator<Item = u64> + '_ {
        self.breakers.iter().flat_map(move |(_, breaker)| Word::of(breaker.word).turns(now))
    }

    /// What each breaker says at `now`, whatever the others do.
    pub(super) fn walk_breakers(&self, now: u64) -> Vec<Met> {
        let one = |(number, breaker): &(u16, Breaker)| {
            let word = Word::of(breaker.word);
            Met {
                number: *number,
                state: word.state_at(Taken::of(breaker.taken), now),
                passes_at: first(now, word.turns(now).collect(), |at| admits(breaker, at)),
                refuses: !admits(breaker, now),
            }
        };
        self.breakers.iter().filter(|_| self.asks_breakers()).map(one).collect()
    }

    fn asks_breakers(&self) -> bool {
        self.policy.has_breakers != 0 && self.question.opens_connection()
    }
}

fn admits(breaker: &Breaker, at: u64) -> bool {
    Word::of(breaker.word).admit(Taken::of(breaker.taken), at) != Admission::Refuse
}
