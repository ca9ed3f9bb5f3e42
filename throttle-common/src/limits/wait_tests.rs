//! Who comes when it is told is admitted, and hardly ever could have come much earlier.

use super::*;
use crate::{
    gcra::{MAX_DEPTH, Price, TICKS_PER_NANO},
    hash::Secret,
    limits::{Charge, Clock, weigh},
    packet::{Packet, protocol, tcp},
    proven::Claim,
    records::{Address, Region, Slot, Terms},
    windows,
    words::{Algorithm, Unit},
};
use proptest::prelude::*;

const SECRET: Secret = [7, 9];
const SECOND: Ticks = 1_000_000_000 * TICKS_PER_NANO;

/// Two sets and their aggregates: the second ones have the second words.
struct Words {
    sets: [[Slot; WAYS]; 2],
    aggregates: [Ticks; 2],
}

#[derive(Clone, Copy)]
struct One([Slot; WAYS]);

impl Look for One {
    fn key(&self, way: usize) -> u64 {
        self.0[way].key
    }
    fn tat(&self, way: usize) -> Ticks {
        self.0[way].tat
    }
}

impl Table for Words {
    type Set = One;

    fn set(&self, place: u32) -> Option<One> {
        self.sets.get(place as usize).copied().map(One)
    }
    fn aggregate(&self, place: u32) -> Option<Ticks> {
        self.aggregates.get(place as usize).copied()
    }
    fn terms(&self, _: u64) -> Option<Terms> {
        None
    }
    fn remembers<C: Clock>(&self, _: Claim, _: &mut C) -> bool {
        false
    }
}

struct At(Ticks);

impl Clock for At {
    fn nanos(&mut self) -> u64 {
        self.0 / TICKS_PER_NANO
    }
    fn reads(&mut self, _: u16) -> Ticks {
        self.0
    }
}

/// A limit of that kind which admits so many in so long, in one set.
fn limit(algorithm: Algorithm, amount: u64, length: Ticks) -> Limit {
    let windowed = algorithm.is_windowed();
    let (price, depth) = if windowed {
        windows::price(amount, length).unwrap()
    } else {
        let price = Price::of_rate(amount, length / TICKS_PER_NANO, 1).unwrap();
        (price, price.depth(amount).unwrap())
    };
    let doubled = u8::from(algorithm == Algorithm::SlidingWindow);
    Limit {
        price,
        depth,
        window: if windowed { length } else { 0 },
        window_shift: windows::shift(length),
        v4: Region { base: 0, sets: 1, prefix: 32, aggregate: 24, doubled, compartments: 0 },
        unit: Unit::Connections as u8,
        algorithm: algorithm as u8,
        ..Limit::NONE
    }
}

fn kinds() -> impl Strategy<Value = Algorithm> {
    use Algorithm::{FixedWindow, LeakyBucket, SlidingWindow, TokenBucket};
    prop_oneof![Just(TokenBucket), Just(LeakyBucket), Just(FixedWindow), Just(SlidingWindow)]
}

proptest! {
    #[test]
    fn who_comes_when_it_is_told_is_admitted_and_a_second_earlier_it_is_not(
        kind in kinds(),
        amount in 1_u64..50,
        seconds in prop_oneof![Just(1_u64), Just(60), Just(3_600), 1_u64..86_400],
        now in 200_000 * SECOND..400_000 * SECOND,
        used in prop::collection::vec(0..=1_000_u64, 2),
        owned in any::<bool>(),
    ) {
        let length = seconds * SECOND;
        let limit = limit(kind, amount, length);
        let source = Packet {
            source: Address::v4(0x0a00_0001), protocol: protocol::TCP, flags: tcp::ACK, ..Packet::default()
        };
        let question = Question::about(&source, 66, None, 0, SECRET).opening(74);
        let key = question.home(&limit).unwrap().key;
        // What the two words owe, whole units of it.
        let owed = |thousandths: u64| (thousandths * amount + 500) / 1_000 * limit.price.cost(1);
        let mut words = [now, now].map(|now| now.wrapping_add(owed(used[0]).min(MAX_DEPTH)));
        if limit.window != 0 {
            let start = windows::start(now, length);
            words = [start + owed(used[0]), start + owed(used[0])];
            if limit.is_sliding() {
                let window = limit.sliding(now);
                let (first, second) = window.turn(start + owed(used[0]), start - length + owed(used[1]));
                words = [first, second];
            }
        }
        // A stranger's slots are all taken, so that who has none shares the aggregate's.
        let slots = |word| core::array::from_fn(|way| {
            let key = if owned && way == 1 { key } else { way as u64 + 1 };
            Slot { key, tat: if way == 1 || !owned { word } else { now + MAX_DEPTH } }
        });
        let taken = |word| [Slot { key: 1, tat: word }; WAYS];
        let sets = if owned { [slots(words[0]), slots(words[1])] } else { [taken(now + MAX_DEPTH), taken(now + MAX_DEPTH)] };
        let table = Words { sets, aggregates: words };
        let refuses = |at: Ticks| weigh(&limit, &question, &table, &mut At(at), &mut { Charge::NOTHING }).is_some();

        let wait = Owed::to(&limit, &question, &table).unwrap().wait(&limit, now);
        prop_assert!(wait <= 2 * MAX_DEPTH);
        prop_assert_eq!(wait > 0, refuses(now), "{} ticks", wait);
        prop_assert!(!refuses(now + wait), "refused after {wait} ticks");
        // Of a window that slides within a hundredth and a second.
        let slack = if limit.is_sliding() { SECOND + length / 100 } else { 1 };
        if wait > slack {
            prop_assert!(refuses(now + wait - slack), "admitted before {wait} ticks");
        }
    }
}

#[test]
fn time_makes_no_room_under_a_limit_on_open_connections() {
    let limit = Limit { algorithm: Algorithm::Concurrency as u8, ..limit(Algorithm::TokenBucket, 1, SECOND) };
    let table = Words { sets: [[Slot { key: 0, tat: u64::MAX / 2 }; WAYS]; 2], aggregates: [0; 2] };
    let question = Question::about(&Packet::default(), 66, None, 0, SECRET).opening(74);
    assert!(Owed::to(&limit, &question, &table).is_none());
}
