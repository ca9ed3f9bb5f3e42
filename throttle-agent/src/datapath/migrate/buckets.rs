//! What sources owe, carried from one table into another that packets may be charged in already.
//!
//! Pure but for the words that it is given. After it, no source owes less in the new table than in the old one: where
//! it owes there already, the larger of the two debts counts. So it may be done before packets come to the new table and
//! again when the last has left the old one, and as often as agents die in between.

use std::sync::atomic::{AtomicU64, Ordering};

use throttle_common::{
    gcra::{self, Ticks},
    table::{self, Check, Commit, Look as _, OPEN_WAYS, Request, Set, WAYS},
};

use crate::datapath::{mapped::MappedSet, regions::Scale};

/// How often a bucket is tried that packets keep charging.
const TRIES: usize = 64;
/// Words of a set: a key and a bucket in each way.
const WORDS: usize = 2 * WAYS;

/// Carries the debts of whole sets; gives how many found no place.
pub(super) fn carry(old: &[AtomicU64], new: &[AtomicU64], scale: &Scale, now: impl Fn() -> Ticks) -> u64 {
    let mut lost = 0;
    for (old, new) in old.chunks_exact(WORDS).zip(new.chunks_exact(WORDS)) {
        let (old, new) = (MappedSet(old), MappedSet(new));
        for way in 0..WAYS {
            // The clock is read only where something is owed at all: most of a table is empty.
            let tat = old.tat(way);
            if tat != 0 && !table::is_lock(tat) {
                let now = now();
                let debt = scale.debt(gcra::debt(tat, now));
                let ways = if way < OPEN_WAYS { OPEN_WAYS } else { WAYS };
                lost += u64::from(debt > 0 && !owe(&new, old.key(way), debt, ways, now));
            }
        }
    }
    lost
}

/// The same for buckets without keys.
pub(super) fn carry_aggregates(old: &[AtomicU64], new: &[AtomicU64], scale: &Scale, now: impl Fn() -> Ticks) {
    for (old, new) in old.iter().zip(new) {
        let tat = old.load(Ordering::Relaxed);
        if tat != 0 {
            let now = now();
            let debt = scale.debt(gcra::debt(tat, now));
            // An update that never changes its mind fails only where there is nothing to raise.
            let _ = new.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |seen| {
                (gcra::debt(seen, now) < debt).then(|| now.wrapping_add(debt))
            });
        }
    }
}

/// Makes a source owe at least so much, in a place of its own. `false` where it finds none.
pub(in crate::datapath) fn owe(set: &impl Set, key: u64, debt: Ticks, ways: usize, now: Ticks) -> bool {
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Ticks = 1 << 40;
    const KEEP: Scale = Scale::within(gcra::MAX_DEPTH);

    fn words(slots: &[(u64, Ticks)]) -> Vec<AtomicU64> {
        let mut words: Vec<AtomicU64> = slots
            .iter()
            .flat_map(|&(key, debt)| [key, if debt > 0 { NOW + debt } else { 0 }])
            .map(AtomicU64::new)
            .collect();
        words.resize_with(words.len().next_multiple_of(WORDS), AtomicU64::default);
        words
    }

    fn debt(set: &[AtomicU64], key: u64) -> Ticks {
        let set = MappedSet(set);
        (0..WAYS).filter(|&way| set.key(way) == key).map(|way| gcra::debt(set.tat(way), NOW)).max().unwrap_or(0)
    }

    #[test]
    fn a_bucket_that_is_just_being_taken_over_owes_nothing() {
        let old = words(&[(7, 100)]);
        old[1].store(table::lock(9), Ordering::Relaxed);
        let new = words(&[(0, 0)]);
        assert_eq!(carry(&old, &new, &KEEP, || NOW), 0);
        assert!(new.iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn only_what_finds_no_place_is_lost_and_the_place_of_the_proven_stays_theirs() {
        let old = words(&[(1, 10), (2, 20), (3, 30), (4, 40)]);
        let new = words(&[(5, 50), (6, 60)]);
        // One open place is left, which the first takes; the fourth was proven, and so is where it goes.
        assert_eq!(carry(&old, &new, &KEEP, || NOW), 2);
        assert_eq!([1, 2, 3, 4, 5, 6].map(|key| debt(&new, key)), [10, 0, 0, 40, 50, 60]);
    }

    proptest! {
        #[test]
        fn nobody_owes_less_or_more_than_the_larger_of_both_however_often_it_is_carried(
            old in prop::collection::vec(0u64..1_000, WAYS),
            new in prop::collection::vec(0u64..1_000, WAYS),
            times in 1usize..4,
        ) {
            let slots = |debts: &[u64]| -> Vec<_> { (1..).zip(debts.iter().map(|debt| debt * 2)).collect() };
            let (before, after) = (words(&slots(&old)), words(&slots(&new)));
            for _ in 0..times {
                prop_assert_eq!(carry(&before, &after, &KEEP, || NOW), 0);
                carry_aggregates(&before[1..2], &after[1..2], &KEEP, || NOW);
            }
            for (key, (old, new)) in (1..).zip(old.iter().zip(&new)) {
                prop_assert_eq!(debt(&after, key), 2 * old.max(new));
            }
        }
    }
}
