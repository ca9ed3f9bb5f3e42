use proptest::prelude::*;
use throttle_common::{windows, words::Algorithm};

use super::*;

const NOW: Ticks = 1 << 40;
const WINDOW: Ticks = 1 << 30;

fn limit(algorithm: Algorithm) -> Limit {
    Limit {
        price: gcra::Price { mantissa: 2, shift: 0 },
        depth: WINDOW,
        window: if algorithm.is_windowed() { WINDOW } else { 0 },
        algorithm: algorithm as u8,
        window_shift: windows::shift(WINDOW),
        ..Limit::NONE
    }
}

/// A debt stays as it is.
fn keep() -> Scale {
    let terms = limit(Algorithm::TokenBucket).terms();
    Scale::between(&terms, &terms).up_to(gcra::MAX_DEPTH)
}

/// Buckets by their keys and what they owe at an instant that they count from; whole sets of them.
fn words(slots: &[(u64, Ticks)], from: Ticks) -> Vec<AtomicU64> {
    let words = slots.iter().flat_map(|&(key, debt)| [key, if debt > 0 { from + debt } else { UNUSED }]);
    let mut words: Vec<AtomicU64> = words.map(AtomicU64::new).collect();
    words.resize_with(words.len().next_multiple_of(WORDS), AtomicU64::default);
    words
}

/// What a source owes, by a place that it has.
fn debt(set: &[AtomicU64], key: u64) -> Ticks {
    let set = MappedSet(set);
    (0..WAYS).filter(|&way| set.key(way) == key).map(|way| gcra::debt(set.tat(way), NOW)).max().unwrap_or(0)
}

#[test]
fn a_bucket_that_is_just_being_taken_over_owes_nothing() {
    let old = words(&[(7, 100)], NOW);
    old[1].store(table::lock(9), SeqCst);
    let new = words(&[(0, 0)], NOW);
    assert_eq!(carry(&old, &new, &limit(Algorithm::TokenBucket), &keep(), || NOW), 0);
    assert!(new.iter().all(|word| word.load(SeqCst) == 0));
}

#[test]
fn only_what_finds_no_place_is_lost_and_the_place_of_the_proven_stays_theirs() {
    let old = words(&[(1, 10), (2, 20), (3, 30), (4, 40)], NOW);
    let new = words(&[(5, 50), (6, 60)], NOW);
    // One open place is left, which the first takes; the fourth was proven, and so is where it goes.
    assert_eq!(carry(&old, &new, &limit(Algorithm::TokenBucket), &keep(), || NOW), 2);
    assert_eq!([1, 2, 3, 4, 5, 6].map(|key| debt(&new, key)), [10, 0, 0, 40, 50, 60]);
}

/// What a source has used of a limit with windows, as a packet at an instant finds it; of a set with its second words.
fn used(words: &[AtomicU64], limit: &Limit, reads: Ticks, key: u64) -> Ticks {
    let [set, beside] = sets(words, limit).next().unwrap();
    let way = (0..WAYS).find(|&way| set.key(way) == key).unwrap();
    let now = limit.reading(reads);
    if !limit.is_sliding() {
        return gcra::debt(set.tat(way), now);
    }
    let window = limit.sliding(reads);
    let set = Turns::of(set, beside, &window);
    gcra::debt(set.tat(way), now) + set.weight(way)
}

proptest! {
    #[test]
    fn nobody_owes_less_or_more_than_the_larger_of_both_however_often_it_is_carried(
        old in prop::collection::vec(0u64..1_000, WAYS),
        new in prop::collection::vec(0u64..1_000, WAYS),
        times in 1usize..4,
    ) {
        let slots = |debts: &[u64]| -> Vec<_> { (1..).zip(debts.iter().map(|debt| debt * 2)).collect() };
        let (before, after) = (words(&slots(&old), NOW), words(&slots(&new), NOW));
        let limit = limit(Algorithm::TokenBucket);
        for _ in 0..times {
            prop_assert_eq!(carry(&before, &after, &limit, &keep(), || NOW), 0);
            carry_aggregates(&before[1..2], &after[1..2], &limit, &keep(), || NOW);
        }
        for (key, (old, new)) in (1..).zip(old.iter().zip(&new)) {
            prop_assert_eq!(debt(&after, key), 2 * old.max(new));
        }
    }

    #[test]
    fn what_a_window_has_counted_it_goes_on_counting(
        slides in any::<bool>(),
        number in 2u64..1_000,
        elapsed in 0..WINDOW,
        counted in prop::collection::vec([0..WINDOW / 2, 0..WINDOW / 2], WAYS),
        later in 0..2 * WINDOW,
        times in 1usize..4,
    ) {
        let limit = limit(if slides { Algorithm::SlidingWindow } else { Algorithm::FixedWindow });
        let (start, now) = (number * WINDOW, number * WINDOW + elapsed);
        let of = |window: usize, from| {
            let debts: Vec<_> = (1..).zip(counted.iter().map(|counted| counted[window] * 2)).collect();
            words(&debts, from)
        };
        let (running, before) = (of(0, start), of(1, start - WINDOW));
        let (first, second) = limit.sliding(now).turn(&running, &before);
        let old: Vec<AtomicU64> = if slides {
            first.iter().chain(second).map(|word| AtomicU64::new(word.load(SeqCst))).collect()
        } else {
            running
        };
        let new: Vec<AtomicU64> = old.iter().map(|_| AtomicU64::default()).collect();
        for _ in 0..times {
            prop_assert_eq!(carry(&old, &new, &limit, &keep(), || now), 0);
        }
        for (key, counted) in (1..).zip(&counted) {
            let owes = counted[0] > 0 || slides && counted[1] > 0;
            for reads in [now, now + later] {
                let (used, expected) = if owes { (used(&new, &limit, reads, key), used(&old, &limit, reads, key)) } else { (0, 0) };
                prop_assert!((expected..=expected + LEAST).contains(&used), "{key}: {used} of {expected} at {reads}");
            }
        }
        // So do those without keys.
        let [from, to] = [&old, &old].map(|words| -> Vec<AtomicU64> {
            words.iter().skip(1).step_by(2).map(|word| AtomicU64::new(word.load(SeqCst))).collect()
        });
        for word in &to {
            word.store(UNUSED, SeqCst);
        }
        carry_aggregates(&from, &to, &limit, &keep(), || now);
        prop_assert!(from.iter().zip(&to).all(|(from, to)| from.load(SeqCst) == to.load(SeqCst)));
    }
}
