//! The laws of counts: who trips a penalty was refused so often within its time, and who was refused so often at once does.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

const MILLI: u64 = 1_000_000;

/// The refusals, by their number, at which a penalty is tripped.
fn trips(times: &[u64], after: u32, within: u32) -> Vec<usize> {
    let mut word = 0;
    let trips = |(number, now): (usize, &u64)| {
        word = step(word, *now, within);
        (count(word, *now) == after).then_some(number)
    };
    times.iter().enumerate().filter_map(trips).collect()
}

proptest! {
    #[test]
    fn only_who_is_refused_so_often_within_the_time_trips_it(
        start in any::<u64>(),
        gaps in prop::collection::vec(0..3_000 * MILLI, 1..200),
        after in 1..40_u32,
        millis in 1..20_000_u64,
    ) {
        let times: Vec<u64> = gaps.iter().scan(start, |now, gap| { *now = now.wrapping_add(*gap); Some(*now) }).collect();
        for last in trips(&times, after, units(millis)) {
            prop_assert!(last + 1 >= after as usize);
            let first = times[last + 1 - after as usize];
            prop_assert!(times[last].wrapping_sub(first) <= millis * MILLI);
        }
    }

    #[test]
    fn who_is_refused_so_often_at_once_trips_it_once(
        start in any::<u64>(),
        after in 1..2_000_u32,
        more in 0..2_000_u32,
        millis in 1..86_400_000_u64,
    ) {
        let times = |number: u32| std::vec![start; number as usize];
        prop_assert_eq!(trips(&times(after + more), after, units(millis)), [after as usize - 1]);
        prop_assert!(trips(&times(after - 1), after, units(millis)).is_empty());
    }

    #[test]
    fn who_is_refused_twice_as_often_as_it_may_be_always_trips_it(
        start in any::<u64>(),
        refusals in prop::collection::vec(0..10_000 * MILLI, 0..50),
        after in 2..100_u32,
        seconds in 1..100_u64,
    ) {
        // Whatever was counted before, twice as many within the time fill one count or the next.
        let before: Vec<u64> = refusals.iter().scan(start, |now, gap| { *now = now.wrapping_add(*gap); Some(*now) }).collect();
        let last = before.last().copied().unwrap_or(start);
        let gap = seconds * 1_000 * MILLI / u64::from(2 * after);
        let times: Vec<u64> = before.iter().copied().chain((1..2 * u64::from(after)).map(|it| last.wrapping_add(it * gap))).collect();
        let tripped = trips(&times, after, units(seconds * 1_000));
        let within = |number: &&usize| last.wrapping_sub(times[**number]).cast_signed() <= (seconds * 1_000 * MILLI).cast_signed();
        prop_assert!(tripped.iter().any(|number| within(&number)), "{tripped:?}");
    }

    #[test]
    fn a_count_is_forgotten_when_its_time_is_over(start in any::<u64>(), millis in 1..86_400_000_u64) {
        let word = begin(start, units(millis));
        prop_assert_eq!(count(word, start), 1);
        prop_assert!(rest(word, start) <= millis * MILLI + (1 << UNIT));
        let end = start.wrapping_add(millis * MILLI + (1 << UNIT));
        prop_assert_eq!((count(word, end), rest(word, end)), (0, 0));
        prop_assert_eq!(count(step(word, end, units(millis)), end), 1, "and begins anew");
    }

    #[test]
    fn sources_and_penalties_are_told_apart(one in any::<u64>(), other in any::<u64>(), after in 1..MOST, secret in any::<Secret>()) {
        let name = |text: &str| crate::records::name_bytes(text);
        let salts = [salt(&name("a"), after, 9), salt(&name("b"), after, 9), salt(&name("a"), after + 1, 9), salt(&name("a"), after, 8)];
        for (index, salt) in salts.iter().enumerate() {
            prop_assert_eq!(key(one, *salt, secret) == key(other, *salt, secret), one == other);
            prop_assert!(!salts[..index].contains(salt));
        }
    }
}

struct Slots([(u64, u64); WAYS]);

impl Look for Slots {
    fn key(&self, way: usize) -> u64 {
        self.0[way].0
    }

    fn tat(&self, way: usize) -> u64 {
        self.0[way].1
    }
}

#[test]
fn a_source_keeps_its_slot_and_takes_none_that_counts() {
    let now = 1 << 40;
    let (counts, over) = (begin(now, 100), begin(now - (200 << UNIT), 100));
    let place = |slots, key| {
        let found = seek(&Slots(slots), key, now);
        (!found.is_none()).then_some((found.way, found.own))
    };
    assert_eq!(place([(1, counts), (2, over), (3, over), (4, counts)], 9), Some((1, false)));
    assert_eq!(place([(1, over), (2, over), (9, over), (4, counts)], 9), Some((2, true)), "its own before a free one");
    assert_eq!(place([(1, counts), (2, counts), (3, counts), (4, counts)], 9), None);
    assert_eq!(place([(0, 0); WAYS], 9), Some((0, false)));
}
