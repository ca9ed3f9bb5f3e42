//! The laws of a set: alone, against an oracle that forgets nothing; on many CPUs, over thousands of schedules.

use super::*;
use proptest::prelude::*;
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::{collections::HashMap, vec::Vec};

#[path = "table_shared_tests.rs"]
mod shared;

#[derive(Default)]
struct Slots {
    keys: [AtomicU64; WAYS],
    tats: [AtomicU64; WAYS],
}

impl Look for Slots {
    fn key(&self, way: usize) -> u64 {
        self.keys[way].load(SeqCst)
    }
    fn tat(&self, way: usize) -> Ticks {
        self.tats[way].load(SeqCst)
    }
}

impl Set for Slots {
    fn set_key(&self, way: usize, key: u64) {
        assert!(is_lock(self.tat(way)), "only who has locked the slot names its owner");
        self.keys[way].store(key, SeqCst);
    }
    fn swap_tat(&self, way: usize, old: Ticks, new: Ticks) -> bool {
        self.tats[way].compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }
    fn refund(&self, way: usize, cost: Ticks) {
        self.tats[way].fetch_sub(cost, SeqCst);
    }
}

impl Add for Slots {
    fn add(&self, way: usize, cost: Ticks) -> Ticks {
        self.tats[way].fetch_add(cost, SeqCst)
    }
}

const START: Ticks = 1_000_000;

fn request(key: u64, now: Ticks, burst: u64, ways: usize) -> Request {
    Request { key, now, cost: 100, depth: 100 * burst, ways }
}

fn admit(set: &Slots, request: &Request) -> Commit {
    commit(set, request, check(set, request))
}

proptest! {
    #[test]
    fn agrees_with_a_table_that_forgets_nothing(
        arrivals in prop::collection::vec((1u64..=3, 0u64..75), 1..300), burst in 1u64..5,
    ) {
        shuttle::check_random(move || {
            let set = Slots::default();
            let mut oracle = HashMap::new();
            let mut now = START;
            for (key, gap) in arrivals.clone() {
                now += 2 * gap;
                let asked = request(key, now, burst, OPEN_WAYS);
                let expected = gcra::admit(*oracle.get(&key).unwrap_or(&0), now, asked.cost, asked.depth);
                if let Some(next) = expected {
                    oracle.insert(key, next);
                }
                assert_eq!(matches!(admit(&set, &asked), Commit::Charged(_)), expected.is_some());
            }
        }, 1);
    }
}

/// Judges `packets` of each key on a thread of its own, at one set. The clock goes on by `step` with each reading, so
/// that a thread which is held up judges with a clock that has become old.
fn race(set: Slots, keys: &[u64], packets: usize, burst: u64, step: Ticks) -> Vec<Vec<Commit>> {
    let (set, clock) = (Arc::new(set), Arc::new(AtomicU64::new(START)));
    let judge = |&key: &u64| {
        let (set, clock) = (set.clone(), clock.clone());
        shuttle::thread::spawn(move || {
            let judge = |_| admit(&set, &request(key, clock.fetch_add(step, SeqCst), burst, OPEN_WAYS));
            (0..packets).map(judge).collect()
        })
    };
    let threads: Vec<_> = keys.iter().map(judge).collect();
    threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
}

fn charged(outcomes: &[Commit]) -> usize {
    outcomes.iter().filter(|outcome| matches!(outcome, Commit::Charged(_))).count()
}

#[test]
fn one_source_on_three_cpus_stays_within_its_burst_and_two_charges() {
    shuttle::check_random(
        || {
            let charged: usize = race(Slots::default(), &[7; 3], 3, 4, 0).iter().map(|cpu| charged(cpu)).sum();
            assert!((4..=4 + 2).contains(&charged), "{charged} admitted of a burst of 4");
        },
        20_000,
    );
}

#[test]
fn so_it_does_while_time_passes() {
    shuttle::check_random(
        || {
            let charged: usize = race(Slots::default(), &[7; 3], 3, 1, 30).iter().map(|cpu| charged(cpu)).sum();
            // 8 steps of 30 ticks earn two more, and three CPUs may take two slots too many.
            assert!((1..=1 + 2 + 2).contains(&charged), "{charged} admitted of a burst of 1");
        },
        20_000,
    );
}

/// A set in which source 7 owes nothing any more, and so may lose its slot to anybody.
fn settled() -> Slots {
    let set = Slots::default();
    set.keys[0].store(7, SeqCst);
    set.tats[0].store(START - 2, SeqCst);
    set
}

#[test]
fn a_source_that_comes_back_while_its_slot_is_taken_gets_its_burst_and_no_more() {
    shuttle::check_random(
        || {
            let outcomes = race(settled(), &[7, 8, 9], 3, 2, 0);
            assert!(charged(&outcomes[0]) <= 2, "{outcomes:?}");
        },
        20_000,
    );
}

#[test]
fn nobody_pays_for_the_source_that_had_the_slot_before() {
    shuttle::check_random(
        || {
            // One of the two tokens may for a moment be out for a charge that its maker is about to give back.
            for outcomes in race(settled(), &[7, 8, 9], 1, 2, 0) {
                assert_ne!(outcomes, [Commit::Exceeded]);
            }
        },
        20_000,
    );
}

/// Judges packets of each key on a thread of its own, whose clock stands where it is told.
fn race_by_clocks(set: Slots, cpus: [(u64, Ticks); 2], packets: usize, burst: u64) -> [usize; 2] {
    let set = Arc::new(set);
    let threads = cpus.map(|(key, now)| {
        let set = set.clone();
        shuttle::thread::spawn(move || {
            let judge = |_| admit(&set, &request(key, now, burst, OPEN_WAYS));
            charged(&(0..packets).map(judge).collect::<Vec<_>>())
        })
    });
    threads.map(|thread| thread.join().expect("no thread panics"))
}

/// A set in which others owe at the lower ways, the first of them until `free`.
fn taken(free: Ticks) -> Slots {
    let set = Slots::default();
    for (way, tat) in [free, START + 1_000].into_iter().enumerate() {
        set.keys[way].store(100 + way as u64, SeqCst);
        set.tats[way].store(tat, SeqCst);
    }
    set
}

#[test]
fn a_way_that_becomes_free_between_two_clocks_is_no_second_burst() {
    // One CPU stands still between its look and its take-over of the lower way, while the other, whose clock is a little
    // behind, spends the source's burst at the higher one: a few switches at the right place, not many at any.
    shuttle::check_pct(
        || {
            let charged = race_by_clocks(taken(START + 2), [(7, START + 2), (7, START)], 4, 3);
            assert!((3..=3 + 1).contains(&charged.iter().sum::<usize>()), "{charged:?} admitted of a burst of 3");
        },
        20_000,
        3,
    );
}

#[test]
fn a_way_that_two_sources_reach_for_goes_to_one_of_them() {
    let reach = || {
        // The third way is free, and none after it.
        let charged = race_by_clocks(taken(START + 1_000), [(7, START), (8, START)], 3, 2);
        assert!(matches!(charged, [2, 0] | [0, 2]), "{charged:?} admitted by one bucket of 2");
    };
    shuttle::check_random(reach, 10_000);
    shuttle::check_pct(reach, 10_000, 3);
}

#[test]
fn a_flood_never_takes_the_way_of_the_proven() {
    shuttle::check_random(
        || {
            let set = Slots::default();
            for spoofed in 10..1_000 {
                admit(&set, &request(spoofed, START, 1, OPEN_WAYS));
            }
            assert_eq!(admit(&set, &request(5_000, START, 1, OPEN_WAYS)), Commit::Full);
            assert_eq!(admit(&set, &request(7, START, 1, WAYS)), Commit::Charged(OPEN_WAYS));
        },
        1,
    );
}

#[test]
fn a_refusal_writes_nothing() {
    shuttle::check_random(
        || {
            let set = Slots::default();
            let asked = request(7, START, 1, OPEN_WAYS);
            admit(&set, &asked);
            let before: Vec<_> = (0..WAYS).map(|way| (set.key(way), set.tat(way))).collect();
            assert_eq!(check(&set, &asked), Check::Exceeded);
            assert_eq!(admit(&set, &asked), Commit::Exceeded);
            assert!((0..WAYS).map(|way| (set.key(way), set.tat(way))).eq(before));
        },
        1,
    );
}

#[test]
fn a_debtor_is_not_forgotten_while_others_pass_by() {
    shuttle::check_random(
        || {
            let set = Slots::default();
            let debtor = |now| request(7, now, 3, OPEN_WAYS);
            while matches!(admit(&set, &debtor(START)), Commit::Charged(_)) {}
            for (step, passer) in (10..500).enumerate() {
                admit(&set, &request(passer, START + step as u64 / 10, 1, OPEN_WAYS));
            }
            assert_eq!(admit(&set, &debtor(START + 99)), Commit::Exceeded);
            assert!(matches!(admit(&set, &debtor(START + 100)), Commit::Charged(_)));
        },
        1,
    );
}

/// A set in which somebody who saw another owner's bucket adds a charge while a slot is locked.
struct Met<'s>(&'s Slots);

impl Look for Met<'_> {
    fn key(&self, way: usize) -> u64 {
        self.0.key(way)
    }
    fn tat(&self, way: usize) -> Ticks {
        self.0.tat(way)
    }
}

impl Set for Met<'_> {
    fn set_key(&self, way: usize, key: u64) {
        self.0.set_key(way, key);
        assert!(is_lock(self.0.add(way, 100)));
    }
    fn swap_tat(&self, way: usize, old: Ticks, new: Ticks) -> bool {
        self.0.swap_tat(way, old, new)
    }
    fn refund(&self, way: usize, cost: Ticks) {
        self.0.refund(way, cost);
    }
}

#[test]
fn a_charge_that_meets_a_locked_slot_and_is_taken_back_leaves_it_to_its_new_owner() {
    shuttle::check_random(
        || {
            let set = Slots::default();
            assert!(matches!(check(&set, &request(8, 0, 9, WAYS)), Check::Free { way: 0, seen: 0 }));
            assert_eq!(attempt(&Met(&set), &request(8, 0, 9, WAYS), Check::Free { way: 0, seen: 0 }), Some(0));
            set.refund(0, 100);
            assert_eq!((set.key(0), set.tat(0)), (8, 100));
        },
        1,
    );
}
