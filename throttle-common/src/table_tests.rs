//! The laws of a set: alone, against an oracle that forgets nothing; on many CPUs, over thousands of schedules.

use super::*;
use proptest::prelude::*;
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::{collections::HashMap, vec::Vec};

#[derive(Default)]
struct Slots {
    keys: [AtomicU64; WAYS],
    tats: [AtomicU64; WAYS],
}

impl Set for Slots {
    fn key(&self, way: usize) -> u64 {
        self.keys[way].load(SeqCst)
    }
    fn tat(&self, way: usize) -> Ticks {
        self.tats[way].load(SeqCst)
    }
    fn swap_key(&self, way: usize, old: u64, new: u64) -> bool {
        self.keys[way].compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }
    fn swap_tat(&self, way: usize, old: Ticks, new: Ticks) -> bool {
        self.tats[way].compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }
    fn refund(&self, way: usize, cost: Ticks) {
        self.tats[way].fetch_sub(cost, SeqCst);
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
        arrivals in prop::collection::vec((1u64..=3, 0u64..150), 1..300), burst in 1u64..5,
    ) {
        shuttle::check_random(move || {
            let set = Slots::default();
            let mut oracle = HashMap::new();
            let mut now = START;
            for (key, gap) in arrivals.clone() {
                now += gap;
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

/// Runs `cpus` threads that each ask `asks` times at one instant, and gives how many were admitted of each key.
fn hammer(cpus: u64, asks: usize, burst: u64, key_of: fn(u64) -> u64) -> HashMap<u64, u64> {
    let set = Arc::new(Slots::default());
    let threads: Vec<_> = (0..cpus)
        .map(|cpu| {
            let set = set.clone();
            shuttle::thread::spawn(move || {
                let asked = request(key_of(cpu), START, burst, OPEN_WAYS);
                let admitted = (0..asks).filter(|_| matches!(admit(&set, &asked), Commit::Charged(_))).count();
                (asked.key, admitted as u64)
            })
        })
        .collect();
    let mut admitted = HashMap::new();
    for thread in threads {
        let (key, count) = thread.join().expect("no thread panics");
        *admitted.entry(key).or_default() += count;
    }
    admitted
}

#[test]
fn one_source_on_three_cpus_stays_within_its_burst_and_two_charges() {
    shuttle::check_random(
        || {
            let admitted = hammer(3, 3, 4, |_| 7)[&7];
            assert!((4..=4 + 2).contains(&admitted), "{admitted} admitted of a burst of 4");
        },
        20_000,
    );
}

#[test]
fn more_sources_than_ways_on_many_cpus_stay_within_the_bound() {
    shuttle::check_random(
        || {
            for (key, admitted) in hammer(5, 3, 2, |cpu| cpu + 1) {
                assert!(admitted <= 2 + 4, "source {key}: {admitted} admitted of a burst of 2");
            }
        },
        20_000,
    );
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
