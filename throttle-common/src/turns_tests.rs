//! The laws of buckets with two words: alone, against an oracle that forgets nothing; on many CPUs, around the edge of a
//! window, over thousands of schedules.

use super::*;
use crate::{
    gcra,
    table::{Commit, OPEN_WAYS, Request, WAYS, check, commit, commit_among, lock},
    windows,
};
use proptest::prelude::*;
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::{collections::HashMap, vec::Vec};

/// The words of two sets: keys, first words, second words.
#[derive(Default)]
struct Both {
    keys: [AtomicU64; WAYS],
    words: [[AtomicU64; WAYS]; 2],
}

/// One of the two sets.
#[derive(Clone, Copy)]
struct One<'b>(&'b Both, usize);

impl Look for One<'_> {
    fn key(&self, way: usize) -> u64 {
        assert_eq!(self.1, 0, "only the first set has keys");
        self.0.keys[way].load(SeqCst)
    }
    fn tat(&self, way: usize) -> Ticks {
        self.0.words[self.1][way].load(SeqCst)
    }
}

impl Set for One<'_> {
    fn set_key(&self, way: usize, key: u64) {
        let locked = |words: &[AtomicU64; WAYS]| words[way].load(SeqCst) == lock(key);
        assert!(self.0.words.iter().any(locked), "only who has locked the slot names its owner");
        self.0.keys[way].store(key, SeqCst);
    }
    fn swap_tat(&self, way: usize, old: Ticks, new: Ticks) -> bool {
        self.0.words[self.1][way].compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }
    fn refund(&self, way: usize, cost: Ticks) {
        self.0.words[self.1][way].fetch_sub(cost, SeqCst);
    }
}

impl Add for One<'_> {
    fn add(&self, way: usize, cost: Ticks) -> Ticks {
        self.0.words[self.1][way].fetch_add(cost, SeqCst)
    }
}

const LENGTH: Ticks = 1_000;
const COST: Ticks = 100;
/// The key of a bucket that many share: that of slots which nobody has taken yet.
const SHARED: u64 = 0;
/// The beginning of a window.
const EDGE: Ticks = 1_000 * LENGTH;

fn admit(both: &Both, key: u64, now: Ticks, amount: u64) -> Commit {
    let window = Sliding::at(now, LENGTH, windows::shift(LENGTH));
    let set = Turns::of(One(both, 0), One(both, 1), &window);
    let request = Request { key, now: window.start(), cost: COST, depth: amount * COST, ways: OPEN_WAYS };
    let seen = check(&set, &request);
    if key == SHARED { commit_among(&set, &request, seen, Some(0)) } else { commit(&set, &request, seen) }
}

fn charged(outcomes: &[Commit]) -> u64 {
    outcomes.iter().filter(|outcome| matches!(outcome, Commit::Charged(_))).count() as u64
}

proptest! {
    #[test]
    fn agrees_with_a_table_that_forgets_nothing(
        arrivals in prop::collection::vec((1u64..=3, prop_oneof![0u64..200, 0u64..2_500]), 1..300), amount in 1u64..6,
    ) {
        shuttle::check_random(move || {
            let both = Both::default();
            let mut oracle = HashMap::<u64, [Ticks; 2]>::new();
            let mut now = EDGE;
            for (key, gap) in arrivals.clone() {
                now += gap;
                let window = Sliding::at(now, LENGTH, windows::shift(LENGTH));
                let words = oracle.entry(key).or_default();
                let (running, before) = window.turn(0, 1);
                let room = (amount * COST).saturating_sub(window.weight(words[before]));
                let expected = gcra::admit(words[running], window.start(), COST, room);
                words[running] = expected.unwrap_or(words[running]);
                assert_eq!(matches!(admit(&both, key, now, amount), Commit::Charged(_)), expected.is_some());
            }
        }, 1);
    }
}

/// Judges packets on a thread for each of these clocks, of the source that is named with it.
fn race(both: Both, cpus: &[(u64, Ticks)], packets: usize, amount: u64) -> (Arc<Both>, Vec<Vec<Commit>>) {
    let both = Arc::new(both);
    let judge = |&(key, now): &(u64, Ticks)| {
        let both = both.clone();
        shuttle::thread::spawn(move || (0..packets).map(|_| admit(&both, key, now, amount)).collect())
    };
    let threads: Vec<_> = cpus.iter().map(judge).collect();
    let outcomes = threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect();
    (both, outcomes)
}

#[test]
fn one_source_on_three_cpus_stays_within_its_amount_and_two_charges() {
    shuttle::check_random(
        || {
            let charged: u64 = race(Both::default(), &[(7, EDGE); 3], 3, 4).1.iter().map(|cpu| charged(cpu)).sum();
            assert!((4..=4 + 2).contains(&charged), "{charged} admitted of 4");
        },
        10_000,
    );
}

#[test]
fn around_an_edge_a_source_gets_what_both_windows_admit_at_most() {
    let cpus = [(7, EDGE - 1), (7, EDGE), (7, EDGE)];
    let judge = move || {
        let charged: u64 = race(Both::default(), &cpus, 4, 3).1.iter().map(|cpu| charged(cpu)).sum();
        assert!((1..=2 * (3 + 2)).contains(&charged), "{charged} admitted of 3 and 3");
    };
    shuttle::check_random(judge, 5_000);
    shuttle::check_pct(judge, 5_000, 3);
}

#[test]
fn a_bucket_that_three_cpus_share_admits_its_amount_less_what_the_window_before_weighs() {
    let judge = || {
        let both = Both::default();
        // Four in the window before, of which the rest weighs two and a half.
        both.words[1][0].store(EDGE - LENGTH + 4 * COST, SeqCst);
        let now = EDGE + 3 * LENGTH / 8;
        let (both, outcomes) = race(both, &[(SHARED, now); 3], 4, 9);
        let charged: u64 = outcomes.iter().map(|cpu| charged(cpu)).sum();
        assert_eq!(both.words[0][0].load(SeqCst), EDGE + charged * COST, "{outcomes:?}");
        // Two may have been refused because of a charge that was about to be taken back.
        assert!((4..=6).contains(&charged), "{outcomes:?}");
    };
    shuttle::check_random(judge, 10_000);
    shuttle::check_pct(judge, 5_000, 3);
}

/// A set in which source 7 owes nothing any more, and the places beside it are taken.
fn settled() -> Both {
    let both = Both::default();
    for way in 0..WAYS {
        both.keys[way].store(if way == 0 { 7 } else { 100 + way as u64 }, SeqCst);
        for (words, begin) in both.words.iter().zip([EDGE, EDGE - LENGTH]) {
            words[way].store(if way == 0 { 0 } else { begin + COST }, SeqCst);
        }
    }
    both
}

#[test]
fn a_place_taken_over_around_an_edge_holds_what_its_owner_was_charged_and_nothing_else() {
    let judge = || {
        // One CPU takes the place over for a source in the old window, another charges its owner in the new one.
        let (both, outcomes) = race(settled(), &[(8, EDGE - 1), (7, EDGE)], 1, 2);
        let owner = both.keys[0].load(SeqCst);
        let owed = |word: usize, begin: Ticks| gcra::debt(both.words[word][0].load(SeqCst), begin);
        let (old, new) = (owed(1, EDGE - LENGTH), owed(0, EDGE));
        let of = |key: u64| charged(&outcomes[usize::from(key != 8)]) * COST;
        let expected = if owner == 8 { (of(8), 0) } else { (0, of(7)) };
        assert_eq!((old, new), expected, "{owner} owns it: {outcomes:?}");
    };
    shuttle::check_random(judge, 10_000);
    shuttle::check_pct(judge, 10_000, 3);
}

#[test]
fn a_place_stays_taken_until_the_window_after_its_last_has_ended() {
    shuttle::check_random(
        || {
            let both = Both::default();
            for key in 1..=OPEN_WAYS as u64 {
                assert!(matches!(admit(&both, key, EDGE, 5), Commit::Charged(_)));
            }
            for now in [EDGE + 1, EDGE + LENGTH, EDGE + 2 * LENGTH - 1] {
                assert_eq!(admit(&both, 50, now, 5), Commit::Full);
            }
            assert!(matches!(admit(&both, 50, EDGE + 2 * LENGTH, 5), Commit::Charged(_)));
        },
        1,
    );
}
