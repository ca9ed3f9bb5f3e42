//! What changed with a service's health, and the last changes of all services.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc};

use super::{Nanos, circuit, controller::Rung, life};

/// Changes that are kept.
pub const KEPT: usize = 512;

/// One place where a backend is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The backend's name in the policy.
    pub backend: Arc<str>,
    /// Where it is.
    pub address: SocketAddr,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: Nanos,
    /// Of which backend; of the service itself where it is none's.
    pub place: Option<Place>,
    /// What changed, and why.
    pub what: What,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// What is held of a backend.
    Level(life::Change),
    /// A breaker.
    Breaker(circuit::Change),
    /// What the limits follow.
    Signal {
        /// What they followed.
        from: Rung,
        /// What they follow now.
        to: Rung,
    },
    /// Whether so many backends fell silent at once that the fault may be the observer's: then verdicts wait.
    Doubt(bool),
    /// Whether it needs more workers than it has.
    ScaleOut(bool),
    /// Something that others were told of, and that nobody watches any more: what it was.
    Unwatched {
        /// Of what, as [`super::names`] has it.
        kind: &'static str,
        /// What others were told last.
        was: &'static str,
    },
}

/// A change that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Counts them all.
    pub number: u64,
    /// Of which service.
    pub service: Arc<str>,
    /// What changed.
    pub transition: Transition,
    /// The sentence by which it was told: whether it was in force then is part of it.
    pub said: String,
}

/// The last [`KEPT`] changes.
#[derive(Debug, Default)]
pub struct Chronicle {
    kept: VecDeque<Kept>,
    count: u64,
}

impl Chronicle {
    /// Keeps a change.
    pub fn add(&mut self, service: Arc<str>, transition: Transition, said: String) {
        self.count += 1;
        self.kept.push_back(Kept { number: self.count, service, transition, said });
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }

    /// Those that are kept, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter().rev()
    }

    /// How many there were in all.
    pub const fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_changes_and_counts_all() {
        let mut chronicle = Chronicle::default();
        for at in 0..KEPT as u64 + 10 {
            let transition = Transition { at, place: None, what: What::Doubt(true) };
            chronicle.add("web".into(), transition, String::new());
        }
        let kept: Vec<_> = chronicle.iter().map(|it| (it.number, it.transition.at)).collect();
        assert_eq!((kept.len(), kept[0], kept[KEPT - 1]), (KEPT, (522, 521), (11, 10)));
        assert_eq!(chronicle.count(), 522);
    }
}
