//! Breakers: what becomes of a new connection to a service or a backend that fails.
//!
//! The agent says which [`State`] a breaker has; the kernel follows it between two steps of the agent, and goes on alone when
//! the agent is silent: when the open time is over it admits trials, [`TRIALS`] in a round, and where nobody says what came
//! of them it begins another round when [`TRIAL_EXPIRES`] has passed. Nobody says either that the fault is over, so that each
//! of these rounds but the first admits twice as many as the one before, and after [`ROUNDS_ALONE`] of them all pass: what a
//! dead agent left is not kept for ever, and what it protected is not met by all at once.
//!
//! A breaker is two words. [`Word`] is what the agent says, with one store: a kind, the number of the round, and an instant.
//! [`Taken`] is what the kernel has admitted in a round; whoever admits a trial swaps it, so that a round never has more.
//! Established connections are no affair of a breaker.

/// Connections that a round of trials admits in all (Resilience4j's permitted calls in half-open state).
pub const TRIALS: u32 = 10;
/// After so long a trial that has not ended counts as failed: nanoseconds.
pub const TRIAL_EXPIRES: u64 = 5_000_000_000;

/// Rounds of the kernel's own after which all pass: a minute of them.
pub const ROUNDS_ALONE: u64 = 12;

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
        /// When the kernel begins to admit trials: nanoseconds of CLOCK_MONOTONIC.
        until: u64,
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
    #[inline(always)]
    pub const fn admit(self, now: u64, taken: u32) -> Admission {
        let left = match self {
            Self::Closed | Self::Forced(Forced::Closed) => return Admission::Pass,
            Self::Open { until } if now >= until => TRIALS,
            Self::HalfOpen { left } => left,
            Self::Open { .. } | Self::Forced(Forced::Open) => return Admission::Refuse,
        };
        if taken < left { Admission::Trial } else { Admission::Refuse }
    }
}

/// A breaker where it lies. All bytes zero, it is closed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    /// A [`Word`].
    pub word: u64,
    /// A [`Taken`].
    pub taken: u64,
}

/// What the agent says of a breaker: 2 bits of kind, 12 of the number of its rounds, 50 of an instant in units of 2^14 ns.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word(u64);

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;
const FORCED_OPEN: u64 = 3;
const KIND_SHIFT: u32 = 62;
const EPOCH_SHIFT: u32 = 50;
const EPOCHS: u64 = (1 << (KIND_SHIFT - EPOCH_SHIFT)) - 1;
const INSTANTS: u64 = (1 << EPOCH_SHIFT) - 1;
const UNIT_SHIFT: u32 = 14;

/// What the kernel has admitted: 12 bits of the number of the agent's round, 36 of the kernel's own since then, 16 of a count.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken(u64);

const COUNT_BITS: u32 = 16;
const ROUND_BITS: u32 = 36;
const ROUNDS: u64 = (1 << ROUND_BITS) - 1;

impl Taken {
    /// That of a word.
    #[inline(always)]
    pub const fn of(word: u64) -> Self {
        Self(word)
    }

    /// Its word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// How many trials of a round were admitted.
    #[inline(always)]
    const fn in_round(self, round: u64) -> u32 {
        if self.0 >> COUNT_BITS == round { (self.0 & ((1 << COUNT_BITS) - 1)) as u32 } else { 0 }
    }

    #[inline(always)]
    const fn new(round: u64, count: u32) -> Self {
        Self(round << COUNT_BITS | count as u64)
    }
}

/// How often what a round admits has been doubled after so many of the kernel's own. The first is as the agent's: one that
/// lets a round pass on purpose has time to say so.
#[inline(always)]
const fn doublings(rounds: u64) -> u64 {
    rounds.saturating_sub(1)
}

impl Word {
    /// That of a word.
    #[inline(always)]
    pub const fn of(word: u64) -> Self {
        Self(word)
    }

    /// Its word.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Whether every connection passes.
    #[inline(always)]
    pub const fn is_closed(self) -> bool {
        self.0 >> KIND_SHIFT == CLOSED
    }

    /// The state that it stands for, at the beginning of a round.
    #[inline(always)]
    pub const fn state(self) -> State {
        match self.0 >> KIND_SHIFT {
            OPEN => State::Open { until: self.instant() },
            HALF_OPEN => State::HalfOpen { left: TRIALS },
            FORCED_OPEN => State::Forced(Forced::Open),
            _ => State::Closed,
        }
    }

    /// When it half-opens, or was said to be half open.
    #[inline(always)]
    const fn instant(self) -> u64 {
        (self.0 & INSTANTS) << UNIT_SHIFT
    }

    #[inline(always)]
    const fn epoch(self) -> u64 {
        self.0 >> EPOCH_SHIFT & EPOCHS
    }

    /// The round that runs at an instant.
    #[inline(always)]
    const fn round(self, now: u64) -> u64 {
        self.epoch() << ROUND_BITS | (now.saturating_sub(self.instant()) / TRIAL_EXPIRES) & ROUNDS
    }

    /// How many rounds have passed of which nobody said anything, while it admits trials; a breaker is closed by
    /// [`ROUNDS_ALONE`].
    #[inline(always)]
    pub const fn rounds_alone(self, now: u64) -> u64 {
        match self.0 >> KIND_SHIFT {
            OPEN | HALF_OPEN => {
                let rounds = now.saturating_sub(self.instant()) / TRIAL_EXPIRES;
                if rounds < ROUNDS_ALONE { rounds } else { ROUNDS_ALONE }
            }
            _ => 0,
        }
    }

    /// How many trials the round that runs has admitted.
    #[inline(always)]
    pub const fn taken(self, taken: Taken, now: u64) -> u32 {
        taken.in_round(self.round(now))
    }

    /// The state that it has at an instant, for who has no count of its own.
    pub const fn state_at(self, taken: Taken, now: u64) -> State {
        let rounds = self.rounds_alone(now);
        let left = (TRIALS << doublings(rounds)).saturating_sub(self.taken(taken, now));
        match self.state() {
            _ if rounds == ROUNDS_ALONE => State::Closed,
            State::Open { until } if now >= until => State::HalfOpen { left },
            State::HalfOpen { .. } => State::HalfOpen { left },
            state => state,
        }
    }

    /// The instants after `now` at which it admits again, if nobody says anything: when its time is over, and when the next
    /// round begins.
    pub fn turns(self, now: u64) -> impl Iterator<Item = u64> {
        let (begins, admits) = match self.state() {
            State::Open { until } => (until, true),
            State::HalfOpen { .. } => (self.instant(), true),
            State::Closed | State::Forced(_) => (0, false),
        };
        let rounds = now.saturating_sub(begins) / TRIAL_EXPIRES;
        let next = begins.saturating_add((rounds + 1).saturating_mul(TRIAL_EXPIRES));
        [begins, next].into_iter().filter(move |&at| admits && at > now)
    }

    /// What becomes of a new connection.
    #[inline(always)]
    pub const fn admit(self, taken: Taken, now: u64) -> Admission {
        match self.rounds_alone(now) {
            ROUNDS_ALONE => Admission::Pass,
            // As many as a doubling for each of them makes room for.
            rounds => self.state().admit(now, self.taken(taken, now) >> doublings(rounds)),
        }
    }

    /// What is taken when one trial more is.
    #[inline(always)]
    pub const fn one_more(self, taken: Taken, now: u64) -> Taken {
        let round = self.round(now);
        Taken::new(round, taken.in_round(round) + 1)
    }

    /// What to store so that a breaker that stands so has a state from `now` on. A round that runs goes on: what it has
    /// admitted counts, and the kernel begins none of its own as long as it is said again.
    #[must_use]
    pub const fn then(self, state: State, now: u64) -> Self {
        let (kind, at) = match state {
            State::Closed | State::Forced(Forced::Closed) => (CLOSED, 0),
            State::Forced(Forced::Open) => (FORCED_OPEN, 0),
            // Never earlier than it is said.
            State::Open { until } => (OPEN, until.saturating_add((1 << UNIT_SHIFT) - 1)),
            State::HalfOpen { .. } => (HALF_OPEN, now),
        };
        let epoch = if self.goes_on(state, now) { self.epoch() } else { (self.epoch() + 1) & EPOCHS };
        Self(kind << KIND_SHIFT | epoch << EPOCH_SHIFT | (at >> UNIT_SHIFT) & INSTANTS)
    }

    /// Whether what was admitted before counts for a state that is published now: the round that runs is its, or has
    /// admitted nothing yet.
    const fn goes_on(self, state: State, now: u64) -> bool {
        let admits = match self.state() {
            State::Open { until } => now >= until,
            State::HalfOpen { .. } => true,
            State::Closed | State::Forced(_) => return false,
        };
        match state {
            State::HalfOpen { .. } => admits && now.saturating_sub(self.instant()) < TRIAL_EXPIRES,
            State::Open { .. } => !admits,
            State::Closed | State::Forced(_) => false,
        }
    }

    /// What is taken once this has followed `before`, and the round may yet admit `left`. Of a round that goes on the kernel
    /// knows best how many it has admitted; of a new one it may have admitted some since a moment ago.
    pub fn taken_after(self, before: Self, taken: Taken, now: u64, left: u32) -> Taken {
        let (round, spent) = (self.round(now), TRIALS.saturating_sub(left));
        let counted = taken.in_round(round);
        let goes_on = self.epoch() == before.epoch();
        Taken::new(round, if goes_on { counted.max(spent) } else { (counted + spent).min(TRIALS) })
    }
}

#[cfg(test)]
#[path = "breakers_tests.rs"]
mod tests;
