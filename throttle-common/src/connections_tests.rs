//! The laws of counting open connections: against a model that knows each of them, and on many CPUs over thousands of
//! schedules.

use super::*;
use crate::{
    gcra::UNUSED,
    limits::Clock,
    packet::Family,
    proven::Claim,
    records::{Address, NONE, Region, Terms},
    table::{Add, Set, TRIES, attempt_once, attempt_shared},
    words::{Algorithm, Per, Unit},
};
use proptest::prelude::*;
use shuttle::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};
use std::vec::Vec;

const SECRET: Secret = [1, 2];

#[test]
fn a_syn_is_refused_where_its_completed_handshake_would_be() {
    let secret = [1, 2];
    let asking = Asking::of(7, 0, secret);
    let refusal = |room: Room, cell| room.refusal(asking, cell, 0, 2);
    assert_eq!([0, 1, 2].map(|taken| refusal(Room::Own(taken), 0)), [None, None, Some(Reason::ConnectionLimit)]);
    assert_eq!([0, 1, 2].map(|taken| refusal(Room::Shared(taken), 0)), [None, None, Some(Reason::SourceOverflow)]);
    assert_eq!(refusal(Room::Uncounted, 0), None);
    assert_eq!(refusal(Room::Nowhere, 0), Some(Reason::SourceOverflow));
    // One that is under way is about to take the last place.
    let asked = asking.begin(0, 0, 0, 2).unwrap();
    assert_eq!(refusal(Room::Shared(1), asked), Some(Reason::SourceOverflow));
}

/// A table of one set, and its aggregate.
#[derive(Default)]
struct Places {
    keys: [AtomicU64; WAYS],
    buckets: [AtomicU64; WAYS],
    aggregate: AtomicU64,
}

impl Look for &Places {
    fn key(&self, way: usize) -> u64 {
        self.keys[way].load(SeqCst)
    }
    fn tat(&self, way: usize) -> Ticks {
        self.buckets[way].load(SeqCst)
    }
}

impl Set for &Places {
    fn set_key(&self, way: usize, key: u64) {
        self.keys[way].store(key, SeqCst);
    }
    fn swap_tat(&self, way: usize, old: Ticks, new: Ticks) -> bool {
        self.buckets[way].compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }
    fn refund(&self, way: usize, cost: Ticks) {
        self.buckets[way].fetch_sub(cost, SeqCst);
    }
}

impl Add for &Places {
    fn add(&self, way: usize, cost: Ticks) -> Ticks {
        self.buckets[way].fetch_add(cost, SeqCst)
    }
}

impl<'p> Table for &'p Places {
    type Set = &'p Places;

    fn set(&self, _: u32) -> Option<&'p Places> {
        Some(*self)
    }
    fn aggregate(&self, _: u32) -> Option<Ticks> {
        Some(self.aggregate.load(SeqCst))
    }
    fn terms(&self, _: u64) -> Option<Terms> {
        None
    }
    fn remembers<C: Clock>(&self, _: Claim, _: &mut C) -> bool {
        false
    }
}

fn limit(per: Per, overflow: Overflow, connections: u32) -> Limit {
    let prefix = if per == Per::Source { 32 } else { 0 };
    let region = Region { base: 0, sets: 1, prefix, aggregate: 24, doubled: 0, compartments: 0 };
    Limit {
        price: PRICE,
        depth: depth(connections),
        v4: region,
        v6: region,
        unit: Unit::Connections as u8,
        overflow: overflow as u8,
        algorithm: Algorithm::Concurrency as u8,
        per: per as u8,
        ..Limit::NONE
    }
}

fn whose(source: u8) -> Whose {
    Whose { source: Address { high: 0, low: 0xc000_0200 + u64::from(source) }, family: Family::V4, tenant: NONE }
}

/// Where a connection has its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Own { way: usize, key: u64 },
    Aggregate,
    None,
}

/// Takes a place, as the kernel programs do.
fn open_one(places: &Places, limit: &Limit, source: u8) -> Result<Place, Reason> {
    let Home { key, .. } = limit.home(&whose(source), SECRET).expect("it has sets");
    let request = Request { key, now: STANDING, cost: PLACE, depth: limit.depth, ways: WAYS };
    let mut seen = check(&places, &request);
    for _ in 0..TRIES {
        let way = match seen {
            Check::Exceeded => return Err(Reason::ConnectionLimit),
            Check::Full => break,
            _ if limit.is_shared() => attempt_shared(&places, &request, seen),
            _ => attempt_once(&places, &request, seen),
        };
        if let Some(way) = way {
            return Ok(Place::Own { way, key });
        }
        seen = check(&places, &request);
    }
    if matches!(seen, Check::Held { .. } | Check::Exceeded) {
        return Err(Reason::ConnectionLimit);
    }
    if limit.overflow == Overflow::Refuse as u8 {
        return Err(Reason::SourceOverflow);
    }
    if limit.overflow == Overflow::Admit as u8 {
        return Ok(Place::None);
    }
    let next =
        gcra::admit(places.aggregate.load(SeqCst), STANDING, PLACE, limit.depth).ok_or(Reason::SourceOverflow)?;
    places.aggregate.store(next, SeqCst);
    Ok(Place::Aggregate)
}

/// Gives it back, likewise.
fn close(places: &Places, place: Place) {
    match place {
        Place::Own { way, key } if places.key(way) == key => places.refund(way, PLACE),
        Place::Own { .. } => unreachable!("a slot that holds places stays its owner's"),
        Place::Aggregate => _ = places.aggregate.fetch_sub(PLACE, SeqCst),
        Place::None => {}
    }
}

/// What a model says of the next connection of a source, which knows all that are open.
fn expected(open: &[(u8, Place)], limit: &Limit, source: u8) -> Room {
    let owns = |it: &&(u8, Place)| matches!(it.1, Place::Own { .. });
    let own = open.iter().filter(owns).filter(|(of, _)| *of == source).count();
    let mut owners: Vec<_> = open.iter().filter(owns).map(|(of, _)| *of).collect();
    owners.sort_unstable();
    owners.dedup();
    if own > 0 || owners.len() < WAYS {
        Room::Own(own as u64)
    } else if limit.overflow == Overflow::Refuse as u8 {
        Room::Nowhere
    } else if limit.overflow == Overflow::Admit as u8 {
        Room::Uncounted
    } else {
        Room::Shared(open.iter().filter(|(_, place)| *place == Place::Aggregate).count() as u64)
    }
}

fn nothing_is_owed(places: &Places) {
    let buckets = places.buckets.iter().chain([&places.aggregate]).map(|bucket| bucket.load(SeqCst));
    assert!(buckets.clone().all(|bucket| bucket == UNUSED), "{:?}", buckets.collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn agrees_with_a_model_that_knows_every_connection(
        connections in 1u32..5,
        overflow in prop_oneof![Just(Overflow::Aggregate), Just(Overflow::Refuse), Just(Overflow::Admit)],
        // Of which source one opens, and which of those that are open closes then.
        steps in prop::collection::vec((0u8..7, prop::option::of(any::<prop::sample::Index>())), 1..300),
    ) {
        shuttle::check_random(move || {
            let (places, mut open) = (Places::default(), Vec::new());
            let limit = limit(Per::Source, overflow, connections);
            for (source, closes) in steps.clone() {
                let seen = room(&limit, &whose(source), SECRET, limit.depth, &&places).expect("it has to do with it");
                assert_eq!(seen, expected(&open, &limit, source), "{open:?}");
                let opened = open_one(&places, &limit, source);
                let has_room = |taken: u64| taken < connections.into();
                match (seen, opened) {
                    (Room::Own(taken), Ok(Place::Own { .. })) | (Room::Shared(taken), Ok(Place::Aggregate)) => {
                        assert!(has_room(taken), "more than {connections}: {open:?}");
                    }
                    (Room::Own(taken), Err(Reason::ConnectionLimit)) | (Room::Shared(taken), Err(Reason::SourceOverflow)) => {
                        assert!(!has_room(taken), "refused, of {open:?}");
                    }
                    (Room::Uncounted, Ok(Place::None)) | (Room::Nowhere, Err(Reason::SourceOverflow)) => {}
                    other => panic!("{other:?}"),
                }
                open.extend(opened.ok().map(|place| (source, place)));
                if let Some(index) = closes.filter(|_| !open.is_empty()) {
                    let at = index.index(open.len());
                    close(&places, open.swap_remove(at).1);
                }
            }
            for (_, place) in open {
                close(&places, place);
            }
            nothing_is_owed(&places);
        }, 1);
    }
}

/// Three CPUs open and close connections of one source, two at a time; gives the most that were open at once.
fn race(limit: Limit) -> u64 {
    let (places, open, most) = (Arc::new(Places::default()), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let cpus = [(); 3].map(|()| {
        let (places, open, most) = (places.clone(), open.clone(), most.clone());
        shuttle::thread::spawn(move || {
            for _ in 0..3 {
                let held = [(); 2].map(|()| {
                    let place = open_one(&places, &limit, 7).ok();
                    most.fetch_max(place.map_or(0, |_| open.fetch_add(1, SeqCst) + 1), SeqCst);
                    place
                });
                for place in held.into_iter().flatten() {
                    open.fetch_sub(1, SeqCst);
                    close(&places, place);
                }
            }
        })
    });
    for cpu in cpus {
        cpu.join().expect("no CPU panics");
    }
    nothing_is_owed(&places);
    most.load(SeqCst)
}

#[test]
fn a_count_that_three_cpus_change_keeps_to_its_limit_and_returns_to_nothing() {
    let shared = || {
        let most = race(limit(Per::Service, Overflow::Refuse, 3));
        assert!((1..=3).contains(&most), "{most} were open of 3");
    };
    let own = || {
        let most = race(limit(Per::Source, Overflow::Refuse, 3));
        assert!((1..=3).contains(&most), "{most} were open of 3");
    };
    for law in [shared as fn(), own] {
        shuttle::check_random(law, 5_000);
        shuttle::check_pct(law, 5_000, 3);
    }
}

#[test]
fn a_lower_way_that_another_source_frees_admits_no_connection_too_many() {
    let law = || {
        let limit = limit(Per::Source, Overflow::Refuse, 2);
        let (places, open) = (Arc::new(Places::default()), Arc::new(AtomicU64::new(0)));
        let other = open_one(&places, &limit, 9).expect("there is room for one");
        let others = Arc::clone(&places);
        let closer = shuttle::thread::spawn(move || close(&others, other));
        let cpus = [1, 1, 2].map(|times| {
            let (places, open) = (Arc::clone(&places), Arc::clone(&open));
            shuttle::thread::spawn(move || {
                let taken = (0..times).filter(|_| open_one(&places, &limit, 7).is_ok()).count();
                open.fetch_add(taken as u64, SeqCst);
            })
        });
        closer.join().expect("closing does not panic");
        for cpu in cpus {
            cpu.join().expect("no CPU panics");
        }
        let open = open.load(SeqCst);
        assert!(open <= 2, "{open} are open of 2");
    };
    shuttle::check_pct(law, 30_000, 5);
    shuttle::check_random(law, 5_000);
}
