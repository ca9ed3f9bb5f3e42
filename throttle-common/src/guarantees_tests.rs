//! The laws of guarantees, on a tenant's bucket, its ceiling and what all share.

use super::{Guaranteed, overdraft_shift};
use crate::{
    gcra::{self, MAX_DEPTH, Price, TICKS_PER_NANO, Ticks},
    records::{HOST_CLOCK, Limit},
    windows::{self, shift},
    words::{Algorithm, Unit},
};
use proptest::prelude::*;
use std::vec::Vec;

const SECOND: Ticks = 1_000_000_000 * TICKS_PER_NANO;

/// A limit of so many packets a second, and a bucket that holds so many.
fn limit(per_second: u64, burst: u64) -> Limit {
    let price = Price::of_rate(per_second, 1_000_000_000, 1).unwrap();
    Limit {
        price,
        depth: price.depth(burst).unwrap(),
        unit: Unit::Packets as u8,
        algorithm: Algorithm::TokenBucket as u8,
        ..Limit::NONE
    }
}

/// A limit and its bucket.
struct Bucket {
    limit: Limit,
    word: Ticks,
}

impl Bucket {
    fn of(limit: Limit) -> Self {
        Self { limit, word: 0 }
    }

    /// What would be written.
    fn look(&self, guaranteed: Guaranteed, now: Ticks) -> Option<Ticks> {
        let depth = guaranteed.room(&self.limit, self.limit.depth);
        gcra::admit(self.word, self.limit.reading(now), self.limit.price.cost(1), depth)
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Refused,
    Borrowed,
    /// Within the guarantee; whether all limits had room for it, beyond their depth or not.
    Guaranteed {
        charged: bool,
    },
}

/// As the kernel program does: all are looked at, then charged. Each goes by its own clock.
fn admit(own: &mut Bucket, others: [&mut Bucket; 2], [now, of_others @ ..]: [Ticks; 3]) -> Told {
    let mut guaranteed = Guaranteed::NOT;
    let next = own.look(guaranteed, now);
    if next.is_some() {
        guaranteed.note(&own.limit);
    }
    let mut charged = true;
    let looks = [0, 1].map(|at| others[at].look(guaranteed, of_others[at]));
    for (bucket, look) in others.iter().zip(looks) {
        charged &= look.is_some();
        if look.is_none() && !guaranteed.passes(&bucket.limit) {
            return Told::Refused;
        }
    }
    own.word = next.unwrap_or(own.word);
    for (bucket, look) in others.into_iter().zip(looks) {
        bucket.word = look.unwrap_or(bucket.word);
    }
    if next.is_some() { Told::Guaranteed { charged } } else { Told::Borrowed }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Flowing,
    Fixed,
}

/// What all share: so many a second, and beyond that what guarantees come to that may be used at once.
fn shared(kind: Kind, per_second: u64, at_once: u64) -> Limit {
    let flowing = limit(per_second, per_second);
    let limit = match kind {
        Kind::Flowing => flowing,
        Kind::Fixed => {
            let (price, depth) = windows::price(per_second, SECOND).unwrap();
            let (window, window_shift, algorithm) = (SECOND, shift(SECOND), Algorithm::FixedWindow as u8);
            Limit { price, depth, window, algorithm, window_shift, ..flowing }
        }
    };
    Limit { overdraft_shift: overdraft_shift(limit.window + limit.price.cost(1) * at_once), ..limit }
}

proptest! {
    /// Two tenants under a parent, each with a guarantee and a ceiling: what one is guaranteed it gets, whatever the other
    /// does and the parent's windows are; and both together get what the parent has, and one burst of each guarantee: a
    /// window also what they come to in one, once and not in each.
    #[test]
    fn who_keeps_to_a_guarantee_loses_nothing_and_borrowers_get_what_is_left(
        kind in prop_oneof![Just(Kind::Flowing), Just(Kind::Fixed)],
        guarantees in [1u64..40, 1u64..40],
        bursts in [1u64..40, 1u64..40],
        spare in 0u64..80,
        flood in 1u64..20,
        phase in 0..SECOND,
    ) {
        let ([a, b], at_once) = (guarantees, bursts.iter().sum::<u64>());
        let parent_rate = a + b + spare;
        // One more, for what prices are rounded by.
        let mut parent = Bucket::of(shared(kind, parent_rate, at_once + 1));
        let mut owns = [0, 1].map(|at| Bucket::of(limit(guarantees[at], bursts[at])));
        let mut ceilings = bursts.map(|burst| Bucket::of(shared(Kind::Flowing, parent_rate, burst + 1)));
        // The second keeps to its guarantee, at the least distance that it allows; the first floods.
        let steady = owns[1].limit.price.cost(1);
        let gap = (SECOND / (parent_rate * flood)) & !1;
        let (start, seconds) = (10 * SECOND + (phase & !1), 12);
        let mut arrivals: Vec<(Ticks, usize)> = (0..seconds * SECOND / gap.max(2)).map(|n| (start + n * gap.max(2), 0)).collect();
        arrivals.extend((0..seconds * SECOND / steady).map(|n| (start + n * steady, 1)));
        arrivals.sort_unstable();
        let mut admitted = [0u64; 2];
        for &(now, tenant) in &arrivals {
            let told = admit(&mut owns[tenant], [&mut ceilings[tenant], &mut parent], [now; 3]);
            prop_assert_ne!(told, Told::Guaranteed { charged: false }, "more is owed than guarantees may come to");
            if tenant == 1 {
                prop_assert_eq!(told, Told::Guaranteed { charged: true }, "it kept to its guarantee, at {}", now);
            }
            admitted[tenant] += u64::from(told != Told::Refused);
        }
        // What a parent admits in that time at most, and beyond it what is owed at its end.
        let windows = match kind {
            Kind::Flowing => seconds + 1,
            Kind::Fixed => (start + seconds * SECOND).div_ceil(SECOND) - start / SECOND,
        };
        let in_one = if matches!(kind, Kind::Fixed) { a + b } else { 0 };
        let bound = parent_rate * windows + at_once + in_one + 2;
        prop_assert!(admitted.iter().sum::<u64>() <= bound, "{admitted:?} of {bound}");
        // The flood has what is left, wherever it is long enough to show.
        prop_assert!(admitted[0] + 1 >= a * seconds, "{admitted:?}");
    }

    /// Nobody owes so much that it is taken for nothing, however long others go beyond a depth; and no more than is bounded.
    #[test]
    fn what_is_forced_is_never_forgotten(
        kind in prop_oneof![Just(Kind::Flowing), Just(Kind::Fixed)],
        count in 1usize..5_000,
        rate in 1u64..5,
        at_once in 0u64..10_000,
    ) {
        let (mut parent, mut guaranteed) = (Bucket::of(shared(kind, rate, at_once)), Guaranteed::NOT);
        guaranteed.note(&parent.limit);
        let now = 100 * SECOND + 2;
        let mut looks = 0;
        for _ in 0..count {
            if let Some(next) = parent.look(guaranteed, now) {
                parent.word = next;
                looks += 1;
            }
        }
        prop_assert!(looks >= (rate + at_once).min(count as u64), "{looks} of {count}");
        let owed = gcra::debt(parent.word, parent.limit.reading(now));
        prop_assert_eq!(owed, looks * parent.limit.price.cost(1));
        let beyond = parent.limit.window + parent.limit.price.cost(1) * at_once;
        prop_assert!(owed <= parent.limit.depth + 2 * beyond);
        if count as u64 >= rate {
            prop_assert_eq!(parent.look(Guaranteed::NOT, now), None, "a borrower found room");
        }
    }

    /// A service that is unwell goes by a slower clock than what is guaranteed to a tenant of all services. It admits what
    /// its clock says, all of it within guarantees; and when all is well again, others find room as soon as what guarantees
    /// may come to is paid back, however long it took.
    #[test]
    fn a_limit_whose_clock_is_slower_admits_what_it_says_and_recovers_within_the_bursts(
        guarantee in 10u64..50,
        burst in 1u64..50,
        slower in 3u64..17,
        minutes in 1u64..4,
    ) {
        const RATE: u64 = 100;
        let mut own = Bucket::of(limit(guarantee, burst));
        let mut ceiling = Bucket::of(shared(Kind::Flowing, RATE, burst + 1));
        let service = Limit { clock: HOST_CLOCK + 1, ..shared(Kind::Flowing, RATE, burst + 1) };
        let (bound, step) = (service.overdraft(), SECOND / RATE);
        let mut service = Bucket::of(service);
        let (start, unwell) = (10 * SECOND, minutes * 60 * SECOND);
        let reads = |now: Ticks| start + (now - start).min(unwell) / slower + (now - start).saturating_sub(unwell);
        // Another has no guarantee.
        let mut nothing = Bucket::of(Limit { depth: 0, ..limit(1, 1) });
        let mut free = Bucket::of(limit(1_000_000, 1_000_000));
        let (mut admitted, mut first) = (0, None);
        for now in (start..start + unwell + 60 * SECOND).step_by(step as usize) {
            let times = [now, now, reads(now)];
            let told = admit(&mut own, [&mut ceiling, &mut service], times);
            let other = admit(&mut nothing, [&mut free, &mut service], times);
            prop_assert_ne!(told, Told::Guaranteed { charged: false }, "it passed a limit that goes by another clock");
            admitted += u64::from(told != Told::Refused) + u64::from(other != Told::Refused);
            let borrows = told == Told::Borrowed || other == Told::Borrowed;
            if now >= start + unwell && borrows {
                first = first.or(Some(now - start - unwell));
            }
            // Where the guarantee alone is more than the service has, nothing is left to borrow once its burst is used.
            let short = guarantee * slower > RATE * 11 / 10 && now > start + unwell / 2 && now < start + unwell;
            prop_assert!(!(short && borrows), "who borrows was served before who is guaranteed, at {now}");
            let entitled = RATE + (reads(now) - start) * RATE / SECOND + bound / service.limit.price.cost(1) + 1;
            prop_assert!(admitted <= entitled, "{admitted} admitted, of {entitled}, at {now}");
        }
        // What is owed, and what was saved up of the guarantee, is paid back with what the guarantee leaves.
        let within = (bound + (burst + 2) * step) * RATE / (RATE - guarantee) + 2 * step;
        prop_assert!(first.is_some_and(|first| first <= within), "{first:?}, not within {within}");
    }

    /// A bound holds what it is for, no more than twice as much, and is told apart from a clock that has wrapped.
    #[test]
    fn a_bound_is_rounded_up_to_a_power_of_two(debt in 2..u64::MAX) {
        let bound = Limit { overdraft_shift: overdraft_shift(debt), ..limit(1, 1) }.overdraft();
        prop_assert!(bound + MAX_DEPTH <= 2 * MAX_DEPTH && bound.is_multiple_of(2));
        prop_assert!(debt > MAX_DEPTH / 2 || (debt <= bound && bound < 2 * debt), "{debt} within {bound}");
    }
}

#[test]
fn an_unused_guarantee_is_lent_at_once_and_back_at_once() {
    let mut parent = Bucket::of(Limit { overdraft_shift: overdraft_shift(SECOND / 25), ..limit(100, 1) });
    let mut own = [Bucket::of(limit(50, 1)), Bucket::of(limit(50, 1))];
    let mut ceilings = [Bucket::of(limit(100, 1)), Bucket::of(limit(100, 1))];
    let mut admitted = [[0; 2]; 3];
    // The first floods all the time, the second in the middle second only.
    for step in 0..3_000 {
        let (now, second) = (10 * SECOND + step * (SECOND / 1_000), step as usize / 1_000);
        for tenant in 0..if second == 1 { 2 } else { 1 } {
            let [a, b] = &mut ceilings;
            let ceiling = if tenant == 0 { a } else { b };
            let told = admit(&mut own[tenant], [ceiling, &mut parent], [now; 3]);
            admitted[second][tenant] += u64::from(told != Told::Refused);
        }
    }
    assert!((99..=101).contains(&admitted[0][0]), "{admitted:?}");
    assert!((49..=52).contains(&admitted[1][0]) && (49..=52).contains(&admitted[1][1]), "{admitted:?}");
    assert!((99..=101).contains(&admitted[2][0]), "{admitted:?}");
}

#[test]
fn what_a_window_admits_beyond_its_depth_counts_in_the_next() {
    let mut parent = Bucket::of(shared(Kind::Fixed, 10, 0));
    let mut guaranteed = Guaranteed::NOT;
    guaranteed.note(&parent.limit);
    let mut take = |guaranteed: Guaranteed, now: Ticks| {
        let next = parent.look(guaranteed, now);
        parent.word = next.unwrap_or(parent.word);
        next.is_some()
    };
    let now = 10 * SECOND;
    assert_eq!((0..20).filter(|_| take(Guaranteed::NOT, now)).count(), 10);
    assert_eq!((0..7).filter(|_| take(guaranteed, now + 2)).count(), 7);
    assert_eq!((0..20).filter(|_| take(Guaranteed::NOT, now + SECOND)).count(), 3);
    assert_eq!((0..20).filter(|_| take(Guaranteed::NOT, now + 2 * SECOND)).count(), 10);
}

#[test]
fn a_unit_has_its_own_guarantees_and_a_clock_too() {
    let (packets, bytes) = (limit(1, 1), Limit { unit: Unit::Bytes as u8, overdraft_shift: 9, ..limit(1, 1) });
    let of_service = Limit { clock: HOST_CLOCK + 3, overdraft_shift: 9, ..packets };
    let mut guaranteed = Guaranteed::NOT;
    guaranteed.note(&packets);
    assert!(guaranteed.within(&packets) && !guaranteed.within(&bytes));
    assert_eq!(guaranteed.room(&bytes, bytes.depth), bytes.depth);
    // By the other clock it goes beyond the depth as far as is bounded, and no further.
    assert!(guaranteed.passes(&packets) && !guaranteed.passes(&of_service));
    assert_eq!(guaranteed.room(&of_service, of_service.depth), of_service.depth + 512);
    let mut there = Guaranteed::NOT;
    there.note(&of_service);
    assert!(there.within(&packets) && there.passes(&of_service) && !there.passes(&packets));
}
