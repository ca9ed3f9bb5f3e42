//! One set of the table of buckets: four slots of a key and a bucket each, shared by all CPUs without a lock.
//!
//! The law that makes it simple: a slot whose bucket is full *is* a free slot, whoever holds it, because a source that
//! owes nothing needs no memory. So a new source takes a slot over with one compare-and-swap of the key, and nothing
//! needs to be initialised or evicted.
//!
//! A packet is judged in two steps so that several limits can be read before any is charged: [`check`] only reads (a
//! flood of refusals dirties no cache line), [`commit`] charges what was seen, or looks again if it changed meanwhile.
//! Two CPUs that take over for one source at once may each charge a slot of their own for that packet; from then on
//! all find the lower one. That costs at most `ncpu - 1` charges a take-over.
//!
//! The kernel programs implement [`Set`] on map memory, the tests on atomics under a scheduler that tries the races.

use crate::gcra::{self, Ticks};

/// Slots of a set: 64 bytes, one cache line.
pub const WAYS: usize = 4;

/// The ways that any source may take; the last one is kept for proven sources.
pub const OPEN_WAYS: usize = WAYS - 1;

/// How often a charge is tried again when other CPUs change the slot under it.
pub const TRIES: usize = 4;

/// Atomic access to the slots of one set.
pub trait Set {
    /// The key in a slot.
    fn key(&self, way: usize) -> u64;
    /// The bucket in a slot.
    fn tat(&self, way: usize) -> Ticks;
    /// Replaces the key if it is still `old`.
    fn swap_key(&self, way: usize, old: u64, new: u64) -> bool;
    /// Replaces the bucket if it is still `old`.
    fn swap_tat(&self, way: usize, old: Ticks, new: Ticks) -> bool;
    /// Takes a charge back.
    fn refund(&self, way: usize, cost: Ticks);
}

/// What a packet asks of a limit.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The source, as the limit sees it.
    pub key: u64,
    /// The limit's clock.
    pub now: Ticks,
    /// The price of this packet.
    pub cost: Ticks,
    /// How deep the bucket is.
    pub depth: Ticks,
    /// The ways this source may take: [`OPEN_WAYS`], or [`WAYS`] when it is proven.
    pub ways: usize,
}

/// What a look at the set says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The source's slot, whose bucket `seen` has room.
    Held {
        /// Its place in the set.
        way: usize,
        /// Its bucket as read.
        seen: Ticks,
    },
    /// A free slot that the source may take over.
    Free {
        /// Its place in the set.
        way: usize,
        /// The key that it still carries.
        seen: u64,
    },
    /// The source's bucket is empty.
    Exceeded,
    /// The source has no slot, and none is free for it.
    Full,
}

/// What became of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Charged to the slot at this place.
    Charged(usize),
    /// Another CPU emptied the bucket first.
    Exceeded,
    /// Another source took the slot first, and none is left.
    Full,
}

/// Reads the set on behalf of a packet.
#[inline(always)]
pub fn check<S: Set>(set: &S, request: &Request) -> Check {
    let mut keys = [0; WAYS];
    let mut way = 0;
    // From the first way to the last: of two slots with one key the lower is the source's.
    while way < WAYS {
        keys[way] = set.key(way);
        if keys[way] == request.key {
            let seen = set.tat(way);
            return match gcra::admit(seen, request.now, request.cost, request.depth) {
                Some(_) => Check::Held { way, seen },
                None => Check::Exceeded,
            };
        }
        way += 1;
    }
    if request.cost > request.depth {
        return Check::Exceeded;
    }
    // Likewise: all CPUs prefer the same slot.
    let mut way = 0;
    while way < WAYS {
        if way < request.ways && gcra::debt(set.tat(way), request.now) == 0 {
            return Check::Free { way, seen: keys[way] };
        }
        way += 1;
    }
    Check::Full
}

/// Charges what `check` saw, looking again when the slot changed.
///
/// After [`TRIES`] lost races a held bucket refuses (the contention is that source), and a place that others keep
/// taking counts as none.
#[inline(always)]
pub fn commit<S: Set>(set: &S, request: &Request, mut seen: Check) -> Commit {
    let mut tries = 0;
    while tries < TRIES {
        tries += 1;
        let way = match seen {
            Check::Held { way, seen } => {
                if charge(set, request, way, seen) {
                    if set.key(way) == request.key {
                        return Commit::Charged(way);
                    }
                    // The slot was taken over between the look and the charge: the debt is not its new owner's.
                    set.refund(way, request.cost);
                }
                None
            }
            Check::Free { way, seen } => set.swap_key(way, seen, request.key).then_some(way),
            Check::Exceeded => return Commit::Exceeded,
            Check::Full => return Commit::Full,
        };
        seen = check(set, request);
        if let (Some(taken), Check::Held { way, .. }) = (way, seen)
            && way != taken
        {
            // Another CPU took a lower slot for the same source: that one it is.
            set.swap_key(taken, request.key, 0);
        }
    }
    match seen {
        Check::Held { .. } | Check::Exceeded => Commit::Exceeded,
        Check::Free { .. } | Check::Full => Commit::Full,
    }
}

#[inline(always)]
fn charge<S: Set>(set: &S, request: &Request, way: usize, seen: Ticks) -> bool {
    match gcra::admit(seen, request.now, request.cost, request.depth) {
        Some(next) => set.swap_tat(way, seen, next),
        None => false,
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
