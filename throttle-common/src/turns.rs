//! A set whose buckets have two words, used by turns: those of a window that slides ([`crate::windows::Sliding`]).
//!
//! The second words lie in a set of their own, at the same ways; only the first set has keys. Whoever charges a bucket or
//! takes a slot over writes the word of the window that runs on its clock ([`crate::table`] sees no other), and reads the
//! other one beside it. A place is free when neither word owes anything.
//!
//! At the edge between two windows CPUs whose clocks differ by some nanoseconds write different words. So who has locked
//! a slot looks at the other word after that, and who has charged a bucket looks there for a lock: one of the two sees
//! the other, and gives way.

use crate::{
    gcra::Ticks,
    table::{Add, Look, Set, is_lock},
    windows::Sliding,
};

/// Both words of the buckets of one set, at an instant.
#[derive(Clone, Copy, Debug)]
pub struct Turns<'w, S> {
    keys: S,
    /// The words of the window that runs.
    running: S,
    /// Those of the window before.
    before: S,
    window: &'w Sliding,
}

impl<'w, S: Copy> Turns<'w, S> {
    /// The set that has the keys and the first words, and the one that has the second words.
    #[inline(always)]
    pub fn of(first: S, second: S, window: &'w Sliding) -> Self {
        let (running, before) = window.turn(first, second);
        Self { keys: first, running, before, window }
    }
}

impl<S: Look> Look for Turns<'_, S> {
    #[inline(always)]
    fn key(&self, way: usize) -> u64 {
        self.keys.key(way)
    }

    #[inline(always)]
    fn tat(&self, way: usize) -> Ticks {
        self.running.tat(way)
    }

    #[inline(always)]
    fn weight(&self, way: usize) -> Ticks {
        self.window.weight(self.before.tat(way))
    }

    #[inline(always)]
    fn is_quiet_beside(&self, way: usize) -> bool {
        let word = self.before.tat(way);
        !is_lock(word) && self.window.owed(word) == 0
    }

    #[inline(always)]
    fn is_locked_beside(&self, way: usize) -> bool {
        is_lock(self.before.tat(way))
    }
}

impl<S: Set> Set for Turns<'_, S> {
    #[inline(always)]
    fn set_key(&self, way: usize, key: u64) {
        self.keys.set_key(way, key);
    }

    #[inline(always)]
    fn swap_tat(&self, way: usize, old: Ticks, new: Ticks) -> bool {
        self.running.swap_tat(way, old, new)
    }

    #[inline(always)]
    fn refund(&self, way: usize, cost: Ticks) {
        self.running.refund(way, cost);
    }
}

impl<S: Add> Add for Turns<'_, S> {
    #[inline(always)]
    fn add(&self, way: usize, cost: Ticks) -> Ticks {
        self.running.add(way, cost)
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
