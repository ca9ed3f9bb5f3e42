//! The laws of a bucket that many share: nobody loses it for a lost race, and nobody has more of it than there is.

use super::*;

/// A set at the clock's standstill in which source 7 owes one charge.
fn shared() -> Slots {
    let set = Slots::default();
    set.keys[0].store(7, SeqCst);
    set.tats[0].store(100, SeqCst);
    set
}

/// Three CPUs charge the bucket at once, each as it sees it; so many can.
fn race_shared(burst: u64) -> (Arc<Slots>, usize) {
    let set = Arc::new(shared());
    let threads = [(); 3].map(|()| {
        let set = set.clone();
        shuttle::thread::spawn(move || {
            let asked = request(7, 0, burst, WAYS);
            attempt_shared(&*set, &asked, check(&*set, &asked)).is_some()
        })
    });
    let charged = threads.map(|thread| thread.join().expect("no thread panics"));
    (set, charged.into_iter().filter(|charged| *charged).count())
}

#[test]
fn of_those_who_share_a_bucket_none_loses_a_race_while_there_is_room() {
    shuttle::check_random(
        || {
            let (set, charged) = race_shared(4);
            assert_eq!((charged, set.tat(0)), (3, 400));
        },
        10_000,
    );
}

#[test]
fn of_those_who_share_a_bucket_some_have_its_last_room_and_never_more_than_there_is() {
    shuttle::check_random(
        || {
            let (set, charged) = race_shared(3);
            assert!((1..=2).contains(&charged), "{charged} found room for 2");
            assert_eq!(set.tat(0), 100 * (1 + charged as u64));
        },
        10_000,
    );
}

/// A set of a bucket that many share, which is nobody's to take over and owes nothing.
fn unowed() -> Slots {
    let set = Slots::default();
    set.keys[0].store(7, SeqCst);
    set
}

/// Three CPUs judge `packets` each, whose clock goes on by `step` with each of them; gives also what the bucket is then.
fn race_for_one(packets: usize, cost: Ticks, depth: Ticks, step: Ticks) -> (Vec<Commit>, Ticks) {
    let (set, clock) = (Arc::new(unowed()), Arc::new(AtomicU64::new(START)));
    let threads = [(); 3].map(|()| {
        let (set, clock) = (set.clone(), clock.clone());
        shuttle::thread::spawn(move || {
            let judge = |_| {
                let asked = Request { key: 7, now: clock.fetch_add(step, SeqCst), cost, depth, ways: WAYS };
                commit_among(&*set, &asked, check(&*set, &asked), Some(LATE))
            };
            (0..packets).map(judge).collect::<Vec<_>>()
        })
    });
    let outcomes = threads.into_iter().flat_map(|thread| thread.join().expect("no thread panics")).collect();
    (outcomes, set.tat(0))
}

#[test]
fn a_bucket_that_three_cpus_share_admits_its_burst_and_is_charged_for_it() {
    shuttle::check_random(
        || {
            let (outcomes, bucket) = race_for_one(5, 100, 1_000, 0);
            assert_eq!(bucket, START + 100 * charged(&outcomes) as u64, "{outcomes:?}");
            // Two may have been refused because of a charge that was about to be taken back.
            assert!((8..=10).contains(&charged(&outcomes)), "{outcomes:?}");
        },
        10_000,
    );
}

#[test]
fn nobody_is_refused_by_a_bucket_that_they_share_and_that_has_room() {
    let race = |cost, step| {
        move || {
            let (outcomes, _) = race_for_one(8, cost, 1_000 * cost, step);
            assert_eq!(charged(&outcomes), outcomes.len(), "{outcomes:?}");
        }
    };
    // One that fills up, and one that the clock passes by all the time.
    for (cost, step) in [(100, 0), (2, 50)] {
        shuttle::check_random(race(cost, step), 2_000);
        shuttle::check_pct(race(cost, step), 2_000, 3);
    }
}

#[test]
fn what_is_added_to_a_bucket_that_the_clock_has_just_passed_counts_as_of_then_and_what_it_passed_long_ago_not() {
    shuttle::check_random(
        || {
            let (set, depth, cost) = (unowed(), 1_000, 100);
            for (behind, charged) in [(LATE, true), (LATE + 2, false)] {
                set.tats[0].store(START, SeqCst);
                let asked = Request { key: 7, now: START + behind, cost, depth, ways: WAYS };
                assert_eq!(insist(&set, &asked, 0, LATE) == Commit::Charged(0), charged, "{behind} ticks");
                assert_eq!(set.tat(0), START + if charged { cost } else { 0 });
            }
        },
        1,
    );
}

#[test]
fn who_shares_a_bucket_charges_none_that_has_become_another_ones() {
    shuttle::check_random(
        || {
            let (set, asked) = (shared(), request(7, 0, 9, WAYS));
            let seen = check(&set, &asked);
            for (key, bucket) in [(8, 100), (8, lock(8))] {
                set.keys[0].store(key, SeqCst);
                set.tats[0].store(bucket, SeqCst);
                assert_eq!(attempt_shared(&set, &asked, seen), None);
                assert_eq!(set.tat(0), bucket);
            }
        },
        1,
    );
}
