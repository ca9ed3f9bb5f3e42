//! What sources owe, carried from one place of a table into another that packets may be charged in already.
//!
//! Pure but for the words that it is given. After it, no source owes less in the new place than in the old one: where it
//! owes there already, the larger of the two debts counts. So a whole table may be carried before packets come to the new
//! one and again when the last has left the old one, and as often as agents die in between.
//!
//! A bucket of a sliding window has two words, and each is carried for itself: see [`throttle_common::turns`].

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use throttle_common::{
    gcra::{self, Ticks, UNUSED},
    records::Limit,
    table::{self, Check, Commit, Look as _, OPEN_WAYS, Request, Set, WAYS},
    turns::Turns,
};

use super::{mapped::MappedSet, regions::Scale};

/// How often a bucket is tried that packets keep charging.
const TRIES: usize = 64;
/// Words of a set: a key and a bucket in each way.
const WORDS: usize = 2 * WAYS;
/// By what a source holds its slot that owes something in the window before alone: less than any unit costs.
const LEAST: Ticks = 2;

/// What a limit's buckets say, at an instant.
#[derive(Clone, Copy)]
pub(super) struct Debts<'l> {
    limit: &'l Limit,
    /// What its health clock reads.
    reads: Ticks,
}

impl<'l> Debts<'l> {
    pub(super) fn at(limit: &'l Limit, reads: Ticks) -> Self {
        Self { limit, reads }
    }

    /// What the two words of a bucket owe, each in its own window; of a bucket of one word the second owes nothing. Nor does
    /// one that is just being taken over.
    pub(super) fn of(&self, words: [Ticks; 2]) -> [Ticks; 2] {
        if words.into_iter().any(table::is_lock) {
            return [0; 2];
        }
        match words {
            [first, _] if !self.limit.is_sliding() => [self.of_word(0, first), 0],
            [first, second] => [self.of_word(0, first), self.of_word(1, second)],
        }
    }

    fn of_word(&self, number: usize, word: Ticks) -> Ticks {
        gcra::debt(word, self.limit.readings(self.reads)[number])
    }

    /// Makes a source owe at least so much, in a place of its own: in one of all ways if its slot was the one that is kept
    /// for the proven. `false` where it finds none.
    pub(super) fn owe(&self, [set, beside]: [MappedSet<'_>; 2], key: u64, debts: [Ticks; 2], way: usize) -> bool {
        let ways = if way < OPEN_WAYS { OPEN_WAYS } else { WAYS };
        let now = self.limit.reading(self.reads);
        if !self.limit.is_sliding() {
            return owe(&set, key, debts[0], ways, now);
        }
        let window = self.limit.sliding(self.reads);
        let (running, before) = window.turn(debts[0], debts[1]);
        let has_place = owe(&Turns::of(set, beside, &window), key, running.max(LEAST), ways, now);
        if let Some(way) = (0..WAYS).find(|&way| has_place && set.key(way) == key) {
            let (_, words) = window.turn(set, beside);
            raise(words.bucket(way), before, now.wrapping_sub(self.limit.window));
        }
        has_place
    }
}

/// Carries the debts of a limit's whole sets; gives how many found no place.
pub(super) fn carry(
    old: &[AtomicU64],
    new: &[AtomicU64],
    limit: &Limit,
    scale: &Scale,
    reads: impl Fn() -> Ticks,
) -> u64 {
    let mut lost = 0;
    for (old, new) in sets(old, limit).zip(sets(new, limit)) {
        for way in 0..WAYS {
            let words = old.map(|set| set.tat(way));
            // The clock is read only where something is owed at all: most of a table is empty.
            if words != [UNUSED; 2] {
                let debts = Debts::at(limit, reads());
                let owed = debts.of(words).map(|debt| scale.debt(debt));
                lost += u64::from(owed != [0; 2] && !debts.owe(new, old[0].key(way), owed, way));
            }
        }
    }
    lost
}

/// The same for buckets without keys.
pub(super) fn carry_aggregates(
    old: &[AtomicU64],
    new: &[AtomicU64],
    limit: &Limit,
    scale: &Scale,
    reads: impl Fn() -> Ticks,
) {
    let of_a_word = old.len() / words_of(limit);
    for (place, (old, new)) in old.iter().zip(new).enumerate() {
        let word = old.load(SeqCst);
        if word != UNUSED {
            let (debts, number) = (Debts::at(limit, reads()), place / of_a_word);
            raise(new, scale.debt(debts.of_word(number, word)), limit.readings(debts.reads)[number]);
        }
    }
}

/// How many of a limit's buckets owe something.
pub(super) fn owing(words: &[AtomicU64], limit: &Limit, reads: Ticks) -> u64 {
    let debts = Debts::at(limit, reads);
    let buckets = sets(words, limit).flat_map(|set| (0..WAYS).map(move |way| set.map(|set| set.tat(way))));
    buckets.filter(|&words| debts.of(words) != [0; 2]).count() as u64
}

fn words_of(limit: &Limit) -> usize {
    if limit.is_sliding() { 2 } else { 1 }
}

/// Each set of a limit with the one that has its second words; where buckets have one, the same again.
fn sets<'w>(words: &'w [AtomicU64], limit: &Limit) -> impl Iterator<Item = [MappedSet<'w>; 2]> + use<'w> {
    let (first, second) = words.split_at(words.len() / words_of(limit));
    let second = if second.is_empty() { first } else { second };
    first
        .chunks_exact(WORDS)
        .zip(second.chunks_exact(WORDS))
        .map(|(first, second)| [MappedSet(first), MappedSet(second)])
}

/// Has a bucket owe at least so much.
fn raise(bucket: &AtomicU64, debt: Ticks, now: Ticks) {
    // An update that never changes its mind fails only where there is nothing to raise.
    let _ = bucket.fetch_update(SeqCst, SeqCst, |seen| {
        (!table::is_lock(seen) && gcra::debt(seen, now) < debt).then(|| now.wrapping_add(debt))
    });
}

/// Makes a source owe at least so much, in a place of its own. `false` where it finds none.
fn owe(set: &impl Set, key: u64, debt: Ticks, ways: usize, now: Ticks) -> bool {
    // Nothing is too much for a bucket here: it was not too much for the old one.
    let request = Request { key, now, cost: debt, depth: Ticks::MAX, ways };
    for _ in 0..TRIES {
        match table::check(set, &request) {
            Check::Held { way, seen } if !table::is_lock(seen) => {
                if gcra::debt(seen, now) >= debt || set.swap_tat(way, seen, now.wrapping_add(debt)) {
                    return true;
                }
            }
            // Another CPU is taking the slot over for this source: in some nanoseconds it has.
            Check::Held { .. } => std::hint::spin_loop(),
            free @ Check::Free { .. } => match table::commit(set, &request, free) {
                Commit::Charged(_) => return true,
                Commit::Exceeded | Commit::Contended(_) => {}
                Commit::Full => return false,
            },
            Check::Exceeded | Check::Full => return false,
        }
    }
    false
}

#[cfg(test)]
#[path = "debts_tests.rs"]
mod tests;
