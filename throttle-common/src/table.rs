//! One set of the table of buckets: four slots of a key and a bucket each, shared by all CPUs without a lock.
//!
//! The law that makes it simple: a slot whose bucket is full *is* a free slot, whoever holds it, because a source that
//! owes nothing needs no memory. So a new source takes a slot over with one compare-and-swap of the key, and nothing
//! needs to be initialised or evicted.
//!
//! A packet is judged in two steps so that several limits can be read before any is charged: [`check`] only reads (a
//! flood of refusals dirties no cache line), [`commit`] charges what was seen, or looks again if it changed meanwhile.
//!
//! A take-over locks the slot: for some nanoseconds its bucket is an odd number that names the source it is taken over
//! for ([`lock`]). So no charge of the owner can fall between the look that found it full and the change of the key, and
//! no source ever pays for another, but for one charge that is given back at once. Two CPUs that take slots over for one
//! source at once may each charge one of their own; from then on all find the lower one. That costs at most `ncpu - 1`
//! charges a take-over; where charges last there is [`attempt_once`].
//!
//! Races for one source's bucket are its own. Of many who share a bucket whoever loses every race adds its charge to it unseen
//! ([`commit_among`]), and takes back what was too much: so a shared bucket is charged for all that it admits.
//!
//! The kernel programs implement [`Set`] on map memory, the tests on atomics under a scheduler that tries the races; the
//! agent's `explain` only looks, and implements [`Look`] on a copy.

use crate::gcra::{self, TICKS_PER_NANO, Ticks};

/// Slots of a set: 64 bytes, one cache line.
pub const WAYS: usize = 4;

/// The ways that any source may take; the last one is kept for proven sources.
pub const OPEN_WAYS: usize = WAYS - 1;

/// How often a charge is tried again when other CPUs change the slot under it.
pub const TRIES: usize = 4;

/// How much later than one that has charged a bucket a CPU may have read its clock that loses the race: see
/// [`gcra::adds_up`]. Ten microseconds.
pub const LATE: Ticks = 10_000 * TICKS_PER_NANO;

/// What the slots of one set hold.
pub trait Look {
    /// The key in a slot.
    fn key(&self, way: usize) -> u64;
    /// The bucket in a slot.
    fn tat(&self, way: usize) -> Ticks;

    /// By how much the bucket is less deep than others: what it owes beside [`Look::tat`], as it weighs now. 0 for all
    /// buckets of one word; for those of two, and what follows, see [`crate::turns`].
    #[inline(always)]
    fn weight(&self, _way: usize) -> Ticks {
        0
    }

    /// Whether nothing is owed beside [`Look::tat`], and nobody takes the slot over there.
    #[inline(always)]
    fn is_quiet_beside(&self, _way: usize) -> bool {
        true
    }

    /// Whether the slot is being taken over by a CPU that locked it beside [`Look::tat`].
    #[inline(always)]
    fn is_locked_beside(&self, _way: usize) -> bool {
        false
    }
}

/// Atomic access to the slots of one set.
pub trait Set: Look {
    /// Replaces the key. Only for whoever has locked the slot.
    fn set_key(&self, way: usize, key: u64);
    /// Replaces the bucket if it is still `old`.
    fn swap_tat(&self, way: usize, old: Ticks, new: Ticks) -> bool;
    /// Takes a charge back.
    fn refund(&self, way: usize, cost: Ticks);
}

/// A set whose buckets can be charged unseen.
pub trait Add: Set {
    /// Adds a charge, and gives the bucket as it was.
    fn add(&self, way: usize, cost: Ticks) -> Ticks;
}

/// What a packet asks of a limit.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The source, as the limit sees it.
    pub key: u64,
    /// The limit's clock.
    pub now: Ticks,
    /// The price of this packet; even.
    pub cost: Ticks,
    /// How deep the bucket is.
    pub depth: Ticks,
    /// The ways this source may take: [`OPEN_WAYS`], or [`WAYS`] when it is proven.
    pub ways: usize,
}

/// What a look at the set says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The source's slot, whose bucket `seen` has room, or that another CPU is just taking over for it.
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
        /// Its full bucket as read.
        seen: Ticks,
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
    /// Other CPUs have kept changing the bucket at this place, which has room.
    Contended(usize),
    /// Another source took the slot first, and none is left.
    Full,
}

/// The bucket of a slot that is being taken over for `key`. Buckets proper are even, because every cost is.
#[inline(always)]
pub const fn lock(key: u64) -> Ticks {
    key << 1 | 1
}

/// Whether the slot is being taken over: its bucket is full, and nobody else may touch it.
#[inline(always)]
pub const fn is_lock(tat: Ticks) -> bool {
    tat & 1 == 1
}

/// Reads the set on behalf of a packet.
#[inline(always)]
pub fn check<S: Look>(set: &S, request: &Request) -> Check {
    // From the first way to the last: of two slots with one key the lower is the source's.
    let mut way = 0;
    while way < WAYS {
        if set.key(way) == request.key {
            let seen = set.tat(way);
            // One that is being taken over for another source was full: this source owes nothing.
            if !is_lock(seen) && !set.is_locked_beside(way) {
                return match gcra::admit(seen, request.now, request.cost, room(set, request, way)) {
                    Some(_) => Check::Held { way, seen },
                    None => Check::Exceeded,
                };
            }
        }
        way += 1;
    }
    if request.cost > request.depth {
        return Check::Exceeded;
    }
    // Likewise: all CPUs prefer the same slot.
    let mut free = Check::Full;
    let mut way = WAYS;
    while way > 0 {
        way -= 1;
        let seen = set.tat(way);
        if seen == lock(request.key) {
            return Check::Held { way, seen };
        }
        let full = || !is_lock(seen) && gcra::debt(seen, request.now) == 0 && set.is_quiet_beside(way);
        if way < request.ways && full() {
            free = Check::Free { way, seen };
        }
    }
    free
}

/// How deep a bucket is now.
#[inline(always)]
fn room<S: Look>(set: &S, request: &Request, way: usize) -> Ticks {
    request.depth.saturating_sub(set.weight(way))
}

/// Charges what `check` saw, looking again when the slot changed.
///
/// After [`TRIES`] lost races a held bucket is [`Commit::Contended`], and a place that others keep taking counts as none.
#[inline(always)]
pub fn commit<S: Set>(set: &S, request: &Request, mut seen: Check) -> Commit {
    let mut tries = 0;
    while tries < TRIES {
        tries += 1;
        match seen {
            Check::Exceeded => return Commit::Exceeded,
            Check::Full => return Commit::Full,
            _ => {}
        }
        if let Some(way) = attempt(set, request, seen) {
            return Commit::Charged(way);
        }
        seen = check(set, request);
    }
    match seen {
        Check::Exceeded => Commit::Exceeded,
        Check::Held { way, .. } => Commit::Contended(way),
        Check::Free { .. } | Check::Full => Commit::Full,
    }
}

/// The same where many may share the bucket. Of one source the contention is its own (`late` is nothing); of many somebody is
/// always first, and whoever loses every race charges it by addition, which loses none while there is room: see
/// [`gcra::adds_up`].
#[inline(always)]
pub fn commit_among<S: Add>(set: &S, request: &Request, seen: Check, late: Option<Ticks>) -> Commit {
    match (commit(set, request, seen), late) {
        (Commit::Contended(way), Some(late)) => insist(set, request, way, late),
        (settled, _) => settled,
    }
}

#[inline(always)]
fn insist<S: Add>(set: &S, request: &Request, way: usize, late: Ticks) -> Commit {
    if add(set, request, way, late) { Commit::Charged(way) } else { Commit::Exceeded }
}

/// Charges what `check` saw, once, and gives the way; `None` where the slot has changed since, or nothing was seen.
#[inline(always)]
pub fn attempt<S: Set>(set: &S, request: &Request, seen: Check) -> Option<usize> {
    match seen {
        Check::Held { way, seen } => charge(set, request, way, seen).then_some(way),
        Check::Free { way, seen } => take_over(set, request, way, seen).then_some(way),
        Check::Exceeded | Check::Full => None,
    }
}

/// The same for whoever keeps what it took, as a connection its place: of CPUs that take slots over for one source at once, one
/// charges. Each looks at the lower slots again once it has charged, also a slot that the source had, and gives way to who is
/// there; who locks one of them later finds this slot's key.
#[inline(always)]
pub fn attempt_once<S: Set>(set: &S, request: &Request, seen: Check) -> Option<usize> {
    let way = attempt(set, request, seen)?;
    let mut lower = 0;
    while lower < WAYS - 1 {
        let tat = set.tat(lower);
        if lower < way && (tat == lock(request.key) || (!is_lock(tat) && set.key(lower) == request.key)) {
            set.refund(way, request.cost);
            return None;
        }
        lower += 1;
    }
    Some(way)
}

/// The same under a clock that stands still, where many share a bucket. One that owes something is charged by addition, which
/// loses no race; what exceeds its depth is taken back. Until then another may find no room where there is some, but nobody
/// finds room where there is none.
#[inline(always)]
pub fn attempt_shared<S: Add>(set: &S, request: &Request, seen: Check) -> Option<usize> {
    match seen {
        Check::Held { way, seen } if !is_lock(seen) && gcra::debt(seen, request.now) > 0 => {
            add(set, request, way, 0).then_some(way)
        }
        _ => attempt(set, request, seen),
    }
}

#[inline(always)]
fn add<S: Add>(set: &S, request: &Request, way: usize, late: Ticks) -> bool {
    let seen = set.add(way, request.cost);
    // As `charge` does, of a bucket that may owe nothing any more: then its slot may change hands, or is just being locked.
    let mine = !is_lock(seen)
        && gcra::adds_up(seen, request.now, request.cost, room(set, request, way), late)
        && !set.is_locked_beside(way)
        && set.key(way) == request.key;
    if !mine {
        set.refund(way, request.cost);
    }
    mine
}

#[inline(always)]
fn charge<S: Set>(set: &S, request: &Request, way: usize, seen: Ticks) -> bool {
    if is_lock(seen) {
        return false;
    }
    let Some(next) = gcra::admit(seen, request.now, request.cost, room(set, request, way)) else { return false };
    if !set.swap_tat(way, seen, next) {
        return false;
    }
    // In this order: who had locked the slot beside and is done by now has changed its key before.
    let mine = !set.is_locked_beside(way) && set.key(way) == request.key;
    if !mine {
        // The slot changed hands between the look at its key and that at its bucket: the charge is not its new owner's.
        set.refund(way, request.cost);
    }
    mine
}

#[inline(always)]
fn take_over<S: Set>(set: &S, request: &Request, way: usize, seen: Ticks) -> bool {
    let lock = lock(request.key);
    if !set.swap_tat(way, seen, lock) {
        return false;
    }
    let mut other = 0;
    while other < WAYS {
        // Another CPU has a slot for the same source, or is about to have a lower one: that one it is.
        let tat = set.tat(other);
        if (other < way && tat == lock) || (other != way && !is_lock(tat) && set.key(other) == request.key) {
            unlock(set, way, lock, seen);
            return false;
        }
        other += 1;
    }
    if !set.is_quiet_beside(way) {
        unlock(set, way, lock, seen);
        return false;
    }
    set.set_key(way, request.key);
    // The bucket is full, and so the cost is all that it owes.
    unlock(set, way, lock, request.now.wrapping_add(request.cost));
    true
}

/// Makes a locked slot's bucket one again. Where somebody's charge is on it, which is about to be taken back, it is so by the
/// difference.
#[inline(always)]
fn unlock<S: Set>(set: &S, way: usize, lock: Ticks, bucket: Ticks) {
    if !set.swap_tat(way, lock, bucket) {
        set.refund(way, lock.wrapping_sub(bucket));
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
