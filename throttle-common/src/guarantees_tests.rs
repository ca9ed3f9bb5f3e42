//! The laws of guarantees, on a tenant's bucket, its ceiling and what all share.

use super::Guaranteed;
use crate::{
    gcra::{self, Price, TICKS_PER_NANO, Ticks},
    records::{Limit, NAME, Region},
    windows::{self, Sliding, shift},
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
        window: 0,
        batch: 0,
        v4: Region::default(),
        v6: Region::default(),
        unit: Unit::Packets as u8,
        action: 0,
        overflow: 0,
        observe: 0,
        algorithm: Algorithm::TokenBucket as u8,
        per: 0,
        window_shift: 0,
        guarantee: 0,
        number: 0,
        overridden: 0,
        clock: 0,
        padding: [0; 3],
        name: [0; NAME],
    }
}

/// A limit and its bucket.
struct Bucket {
    limit: Limit,
    words: [Ticks; 2],
}

impl Bucket {
    fn of(limit: Limit) -> Self {
        Self { limit, words: [0; 2] }
    }

    /// What would be written, and into which word.
    fn look(&self, guaranteed: Guaranteed, now: Ticks) -> Option<(usize, Ticks)> {
        let window = if self.limit.is_sliding() { self.limit.sliding(now) } else { Sliding::NONE };
        let (running, before) = window.turn(0, 1);
        let weight = if self.limit.is_sliding() { window.weight(self.words[before]) } else { 0 };
        let depth = guaranteed.room(&self.limit, self.limit.depth).saturating_sub(weight);
        let next = gcra::admit(self.words[running], self.limit.reading(now), self.limit.price.cost(1), depth)?;
        Some((running, next))
    }
}

/// As the kernel program does: all are looked at, then charged.
fn admit(guarantee: Option<&mut Bucket>, others: [&mut Bucket; 2], now: Ticks) -> (bool, bool) {
    let mut guaranteed = Guaranteed::NOT;
    let own = guarantee.and_then(|bucket| {
        let (word, next) = bucket.look(guaranteed, now)?;
        Some((bucket, word, next))
    });
    if let Some((bucket, word, next)) = own {
        guaranteed.note(&bucket.limit);
        bucket.words[word] = next;
    }
    let within = guaranteed != Guaranteed::NOT;
    let looks = [others[0].look(guaranteed, now), others[1].look(guaranteed, now)];
    if !within && looks.contains(&None) {
        return (false, false);
    }
    for (bucket, look) in others.into_iter().zip(looks) {
        if let Some((word, next)) = look {
            bucket.words[word] = next;
        }
    }
    (true, within)
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Flowing,
    Fixed,
    Sliding,
}

/// What all share: so many a second.
fn shared(kind: Kind, per_second: u64) -> Limit {
    let flowing = limit(per_second, per_second);
    let algorithm = match kind {
        Kind::Flowing => return flowing,
        Kind::Fixed => Algorithm::FixedWindow,
        Kind::Sliding => Algorithm::SlidingWindow,
    };
    let (price, depth) = windows::price(per_second, SECOND).unwrap();
    Limit { price, depth, window: SECOND, window_shift: shift(SECOND), algorithm: algorithm as u8, ..flowing }
}

proptest! {
    /// Two tenants under a parent, each with a guarantee and a ceiling: what one is guaranteed it gets, whatever the other
    /// does and the parent's windows are; and both together get what the parent has, and one burst of each guarantee.
    #[test]
    fn who_keeps_to_a_guarantee_loses_nothing_and_borrowers_get_what_is_left(
        kind in prop_oneof![Just(Kind::Flowing), Just(Kind::Fixed), Just(Kind::Sliding)],
        guarantees in [1u64..40, 1u64..40],
        spare in 0u64..80,
        flood in 1u64..20,
        phase in 0..SECOND,
    ) {
        let [a, b] = guarantees;
        let parent_rate = a + b + spare;
        let mut parent = Bucket::of(shared(kind, parent_rate));
        let mut owns = [a, b].map(|rate| Bucket::of(limit(rate, 1)));
        let mut ceilings = [a, b].map(|_| Bucket::of(limit(parent_rate, parent_rate)));
        // The second keeps to its guarantee, at the least distance that it allows; the first floods.
        let steady = owns[1].limit.price.cost(1);
        let gap = (SECOND / (parent_rate * flood)) & !1;
        let (start, seconds) = (10 * SECOND + (phase & !1), 12);
        let mut arrivals: Vec<(Ticks, usize)> = (0..seconds * SECOND / gap.max(2)).map(|n| (start + n * gap.max(2), 0)).collect();
        arrivals.extend((0..seconds * SECOND / steady).map(|n| (start + n * steady, 1)));
        arrivals.sort_unstable();
        let mut admitted = [0u64; 2];
        for &(now, tenant) in &arrivals {
            let (passes, within) = admit(Some(&mut owns[tenant]), [&mut ceilings[tenant], &mut parent], now);
            if tenant == 1 {
                prop_assert!(passes && within, "it kept to its guarantee and was refused at {now}");
            }
            admitted[tenant] += u64::from(passes);
        }
        // What a parent admits in that time at most, and beyond it the bursts of guarantees: of windows, those that begin
        // and end in it, and in each what is guaranteed.
        let bound = match kind {
            Kind::Flowing => parent_rate * (seconds + 1) + 2 + 2,
            _ => (parent_rate + a + b + 2) * (seconds + 2),
        };
        prop_assert!(admitted.iter().sum::<u64>() <= bound, "{admitted:?} of {bound}");
        // The flood has what is left, wherever it is long enough to show.
        prop_assert!(admitted[0] + 1 >= a * seconds, "{admitted:?}");
    }

    /// Nobody owes so much that it is taken for nothing, however long others go beyond a depth.
    #[test]
    fn what_is_forced_is_never_forgotten(
        kind in prop_oneof![Just(Kind::Flowing), Just(Kind::Fixed), Just(Kind::Sliding)],
        count in 1usize..5_000,
        rate in 1u64..5,
    ) {
        let (mut parent, mut guaranteed) = (Bucket::of(shared(kind, rate)), Guaranteed::NOT);
        guaranteed.note(&parent.limit);
        let now = 100 * SECOND + 2;
        let mut looks = 0;
        for _ in 0..count {
            if let Some((word, next)) = parent.look(guaranteed, now) {
                parent.words[word] = next;
                looks += 1;
            }
        }
        prop_assert!(looks >= rate.min(count as u64));
        if count as u64 >= rate {
            prop_assert_eq!(parent.look(Guaranteed::NOT, now), None, "a borrower found room");
        }
    }
}

#[test]
fn an_unused_guarantee_is_lent_at_once_and_back_at_once() {
    let mut parent = Bucket::of(limit(100, 1));
    let mut own = [Bucket::of(limit(50, 1)), Bucket::of(limit(50, 1))];
    let mut ceilings = [Bucket::of(limit(100, 1)), Bucket::of(limit(100, 1))];
    let mut admitted = [[0; 2]; 3];
    // The first floods all the time, the second in the middle second only.
    for step in 0..3_000 {
        let (now, second) = (10 * SECOND + step * (SECOND / 1_000), step as usize / 1_000);
        for tenant in 0..if second == 1 { 2 } else { 1 } {
            let [a, b] = &mut ceilings;
            let ceiling = if tenant == 0 { a } else { b };
            let (passes, _) = admit(Some(&mut own[tenant]), [ceiling, &mut parent], now);
            admitted[second][tenant] += u64::from(passes);
        }
    }
    assert!((99..=101).contains(&admitted[0][0]), "{admitted:?}");
    assert!((49..=52).contains(&admitted[1][0]) && (49..=52).contains(&admitted[1][1]), "{admitted:?}");
    assert!((99..=101).contains(&admitted[2][0]), "{admitted:?}");
}

#[test]
fn a_unit_has_its_own_guarantees() {
    let (packets, mut bytes) = (limit(1, 1), limit(1, 1));
    bytes.unit = Unit::Bytes as u8;
    let mut guaranteed = Guaranteed::NOT;
    guaranteed.note(&packets);
    assert!(guaranteed.within(&packets) && !guaranteed.within(&bytes));
    assert_eq!(guaranteed.room(&bytes, bytes.depth), bytes.depth);
}
