//! What is warned of, and above all what is not.

use std::net::Ipv4Addr;

use ipnet::IpNet;
use throttle_common::{
    connections,
    gcra::{Price, Ticks, ticks},
    records::{self, name_bytes},
    table::WAYS,
    words::{Algorithm, Per},
};

use super::*;
use crate::datapath::{Source, Talker};

const SECOND: u64 = 1_000_000_000;

/// 50 packets a second, so many at once, on so many sources.
fn limit(burst: u64, sources: u32) -> Limit {
    let price = Price::of_rate(50, SECOND, 1).unwrap();
    let region = records::Region { base: 0, sets: sources / 4, prefix: 32, aggregate: 24, doubled: 0, compartments: 0 };
    let empty = records::Region { sets: 0, ..region };
    Limit {
        price,
        depth: price.depth(burst).unwrap(),
        v4: region,
        v6: empty,
        unit: Unit::Packets as u8,
        name: name_bytes("web"),
        ..Limit::NONE
    }
}

/// A limit that is looked at over and over.
struct Watched {
    trends: Trends,
    limit: Limit,
    at: u64,
    tally: LimitTally,
    open: u64,
    /// How many times as much as the limit says its sources may have.
    allows: u64,
}

impl Watched {
    fn new(limit: Limit) -> Self {
        Self {
            trends: Trends::default(),
            limit,
            at: 1_000_000 * SECOND,
            tally: LimitTally::default(),
            open: 0,
            allows: 1,
        }
    }

    /// Ten seconds later: so many packets more, and these sources owe that share of their burst.
    fn look(&mut self, admitted: u64, refused: u64, owe: &[(u32, f64)], busy: u64) -> Vec<String> {
        self.look_into(admitted, refused, owe, busy, None)
    }

    /// The same, with the fullest compartment.
    fn look_into(
        &mut self,
        admitted: u64,
        refused: u64,
        owe: &[(u32, f64)],
        busy: u64,
        fullest: Option<Part>,
    ) -> Vec<String> {
        self.at += 10 * SECOND;
        self.tally.admitted.packets += admitted;
        self.tally.refused.packets += refused;
        let talker = |&(address, share): &(u32, f64)| {
            #[expect(clippy::cast_sign_loss, reason = "a share of the depth")]
            let debt = (self.limit.depth as f64 * share) as Ticks;
            let source = Source::Prefix(IpNet::from(std::net::IpAddr::from(Ipv4Addr::from_bits(address))));
            let depth = self.limit.depth * self.allows;
            Talker { source, debt, depth, full_at: ticks(self.at) + debt }
        };
        let most: Vec<_> = owe.iter().take(NAMED).map(talker).collect();
        let busy = busy.max(most.len() as u64);
        let whole = Part { whose: None, busy, slots: u64::from(self.limit.v4.sets) * WAYS as u64 };
        let regions = [Region { busy, most, fullest: fullest.unwrap_or(whole) }, Region::default()];
        self.trends.add(vec![(3, self.limit, Look { at: self.at, tally: self.tally, regions, open: self.open })]);
        self.trends.warnings()
    }

    fn looks(&mut self, times: usize, admitted: u64, refused: u64, owe: &[(u32, f64)]) -> Vec<String> {
        (0..times).map(|_| self.look(admitted, refused, owe, 0)).last().unwrap()
    }
}

/// What two sources at their limit are admitted in ten seconds.
const OF_TWO: u64 = 2 * 500;

#[test]
fn few_sources_that_carry_most_and_are_refused_are_named() {
    let mut watched = Watched::new(limit(100, 1000));
    let owe = [(0x0a00_0001, 1.0), (0x0a00_0002, 0.99)];
    assert_eq!(watched.looks(3, OF_TWO, 4000, &owe), Vec::<String>::new(), "two intervals are too few");
    let warnings = watched.looks(1, OF_TWO, 4000, &owe);
    let begin =
        "limit `web`: 100 % of what it admits comes from few sources, 10.0.0.1 and 10.0.0.2, and 80 % is refused.";
    assert!(warnings.len() == 1 && warnings[0].starts_with(begin), "{warnings:?}");
    assert!(warnings[0].contains("`throttle allow add`"));
    assert!(watched.look(OF_TWO, 0, &owe, 0).is_empty(), "it is over");
}

#[test]
fn fewer_attempts_at_connections_than_packets_tell_who_carries_most() {
    let asked = |unit: Unit| {
        let mut watched = Watched::new(Limit { unit: unit as u8, ..limit(100, 1000) });
        watched.looks(4, 500, 300, &[(0x0a00_0001, 1.0)])
    };
    assert!(asked(Unit::Packets).is_empty());
    assert!(asked(Unit::Connections)[0].contains("comes from one source, 10.0.0.1"), "{:?}", asked(Unit::Connections));
}

#[test]
fn a_host_is_quiet_where_few_are_refused_or_many_carry() {
    let two = [(1, 1.0), (2, 1.0)];
    // Nothing is refused; little is; there is little traffic; many others carry as much; a source came anew each time.
    assert!(Watched::new(limit(100, 1000)).looks(9, OF_TWO, 0, &two).is_empty());
    assert!(Watched::new(limit(100, 1000)).looks(9, OF_TWO, 100, &two).is_empty());
    assert!(Watched::new(limit(100, 1000)).looks(9, 90, 900, &two).is_empty());
    assert!(Watched::new(limit(100, 1000)).looks(9, 2 * OF_TWO, 4000, &two).is_empty());
    let mut changing = Watched::new(limit(100, 1000));
    assert!((0..9).all(|turn| changing.look(OF_TWO, 4000, &[(turn, 1.0), (turn + 100, 1.0)], 0).is_empty()));
    // Sources that pause are charged less than their buckets' ends move on: nobody is accused by that.
    let pausing: Vec<_> = (0..8).map(|source| (source, 1.0)).collect();
    assert!(Watched::new(limit(100, 1000)).looks(9, OF_TWO, 4000, &pausing).is_empty());
}

#[test]
fn a_limit_that_never_binds_is_told_with_the_rate_that_would() {
    let mut watched = Watched::new(limit(100, 1000));
    // In debt at one look of ten: a tenth of its rate.
    for look in 0..24 * 360 {
        let owe: &[_] = if look % 10 == 0 { &[(1, 0.1)] } else { &[] };
        assert!(watched.look(20, 0, owe, 0).is_empty(), "less than a day is too short");
    }
    let warnings = watched.looks(2, 20, 0, &[]);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("limit `web` has refused nothing in 24 h, and no source owed more than 10.00 %"));
    assert!(warnings[0].contains("used 10.2"), "{warnings:?}");
    assert!(warnings[0].contains("twice that is 10.2"), "{warnings:?}");
    assert!(watched.looks(1, 20, 1, &[]).is_empty(), "it bound");
}

#[test]
fn a_limit_that_has_bound_once_is_watched_anew_from_then_on() {
    let mut watched = Watched::new(limit(100, 1000));
    // Counters outlive agents: what they say at the first look is of the past.
    watched.tally.refused.packets = 7;
    watched.looks(2000, 20, 0, &[(1, 1.0)]);
    assert!(watched.look(20, 1, &[(1, 1.0)], 0).is_empty());
    assert!(watched.looks(24 * 360 - 1, 20, 0, &[]).is_empty(), "less than a day since then");
    let warnings = watched.looks(2, 20, 0, &[]);
    let begin = "limit `web` has refused nothing in 24 h, and no source owed more than 0.00 %";
    assert!(warnings.len() == 1 && warnings[0].starts_with(begin), "{warnings:?}");
}

#[test]
fn a_limit_may_be_idle_unused_or_near_its_burst_and_is_not_said_to_be_useless() {
    assert!(Watched::new(limit(100, 1000)).looks(9000, 1, 0, &[]).is_empty(), "hardly any traffic");
    assert!(Watched::new(limit(100, 1000)).looks(9000, 20, 0, &[(1, 0.3)]).is_empty(), "near its burst");
    let mut many = Watched::new(limit(100, 1000));
    let warnings = (0..9000).map(|_| many.look(20, 0, &[(1, 0.01)], 40)).last().unwrap();
    assert!(
        warnings[0].ends_with("lower its rate, or keep it for what has not come yet"),
        "who is busiest is not known"
    );
    let mut changed = Watched::new(limit(100, 1000));
    changed.looks(8000, 20, 0, &[]);
    changed.limit = limit(101, 1000);
    assert!(changed.looks(8000, 20, 0, &[]).is_empty(), "another burst is another limit");
}

#[test]
fn a_region_that_grows_so_that_it_is_full_within_the_time_of_its_debts_is_told() {
    // Four hours' burst: what is charged lasts.
    let mut watched = Watched::new(limit(720_000, 1000));
    for busy in [310, 330, 350] {
        assert!(watched.look(10, 0, &[], busy).is_empty(), "three looks are too few");
    }
    let warnings = watched.look(10, 0, &[], 370);
    assert!(warnings.len() == 1 && warnings[0].contains("37 % of its ipv4 buckets"), "{warnings:?}");
    assert!(warnings[0].contains("no place in 115 s"), "{warnings:?}");
    assert!(watched.look(10, 0, &[], 370).is_empty(), "it grows no more");
}

#[test]
fn a_region_that_grows_slowly_or_forgets_quickly_is_not_told() {
    let grow = |limit, begin: u64, step: u64| {
        let mut watched = Watched::new(limit);
        (0..8).flat_map(|look| watched.look(10, 0, &[], begin + look * step)).collect::<Vec<_>>()
    };
    assert_eq!(grow(limit(720_000, 1000), 310, 1), Vec::<String>::new(), "an hour ahead is too far");
    assert_eq!(grow(limit(720_000, 1000), 10, 20), Vec::<String>::new(), "too empty to tell");
    assert_eq!(grow(limit(100, 1000), 310, 20), Vec::<String>::new(), "what is charged lasts two seconds");
    assert_eq!(grow(limit(720_000, 1000), 610, 20), Vec::<String>::new(), "that is a problem already");
}

#[test]
fn the_compartment_of_a_tenant_that_fills_is_told_though_the_region_is_nearly_empty() {
    let mut watched = Watched::new(limit(720_000, 1000));
    let of = |whose: &str, busy| Some(Part { whose: Some(whose.to_owned()), busy, slots: 100 });
    for busy in [31, 33, 35] {
        assert!(watched.look_into(10, 0, &[], busy, of("acme", busy)).is_empty(), "three looks are too few");
    }
    let warnings = watched.look_into(10, 0, &[], 37, of("acme", 37));
    let begin = "limit `web`: 37 % of its ipv4 buckets are in debt in the part of acme, and more with every look";
    assert!(warnings.len() == 1 && warnings[0].starts_with(begin), "{warnings:?}");
    assert!(warnings[0].contains("no place in 115 s"), "{warnings:?}");
    // Another that is fuller says nothing of how fast this one grew.
    for busy in [39, 41, 43] {
        assert!(watched.look_into(10, 0, &[], busy, of("globex", busy)).is_empty());
    }
    assert!(watched.look_into(10, 0, &[], 45, of("globex", 45))[0].contains("in the part of globex"));
}

/// So many open connections for each source, or for all.
fn concurrent(connections: u32, per: Per) -> Limit {
    Limit {
        price: connections::PRICE,
        depth: connections::depth(connections),
        unit: Unit::Connections as u8,
        algorithm: Algorithm::Concurrency as u8,
        per: per as u8,
        ..limit(1, 1000)
    }
}

#[test]
fn a_region_of_open_connections_that_grows_is_told_however_few_a_source_may_have() {
    let mut watched = Watched::new(concurrent(2, Per::Source));
    let warnings = [310, 330, 350, 370].map(|busy| watched.look(10, 0, &[], busy));
    assert!(warnings[..3].iter().all(Vec::is_empty), "three looks are too few");
    let begin = "limit `web`: 37 % of its ipv4 slots count open connections, and more with every look";
    assert!(warnings[3].len() == 1 && warnings[3][0].starts_with(begin), "{warnings:?}");
}

#[test]
fn few_sources_that_hold_most_connections_and_are_refused_are_named() {
    let mut watched = Watched { open: 101, ..Watched::new(concurrent(50, Per::Source)) };
    let owe = [(0x0a00_0001, 1.0), (0x0a00_0002, 1.0)];
    let warnings = watched.looks(4, 20, 400, &owe);
    let begin = "limit `web`: 99 % of the connections that it counts are of few sources, 10.0.0.1 and 10.0.0.2";
    assert!(warnings.len() == 1 && warnings[0].starts_with(begin), "{warnings:?}");
    let mut among_many = Watched { open: 1000, ..Watched::new(concurrent(50, Per::Source)) };
    assert!(among_many.looks(4, 20, 400, &owe).is_empty());
    let mut of_all = Watched { open: 100, ..Watched::new(concurrent(100, Per::Host)) };
    assert!(of_all.looks(4, 20, 400, &[(0, 1.0)]).is_empty(), "everybody is nobody in particular");
}

#[test]
fn a_limit_on_connections_that_never_binds_is_told_with_the_most_that_were_open() {
    for (per, whose) in [(Per::Source, "of a source were open"), (Per::Service, "were open")] {
        let mut watched = Watched::new(concurrent(200, per));
        watched.looks(24 * 360, 20, 0, &[(1, 0.12)]);
        let warnings = watched.looks(2, 20, 0, &[(1, 0.12)]);
        let begin =
            format!("limit `web` has refused nothing in 24 h, and never more than 24 of 200 connections {whose}");
        assert!(warnings.len() == 1 && warnings[0].starts_with(&begin), "{warnings:?}");
        assert!(watched.looks(1, 20, 1, &[]).is_empty(), "it bound");
    }
}

#[test]
fn connections_that_come_past_their_limit_are_told() {
    let mut watched = Watched::new(concurrent(50, Per::Source));
    assert!(
        watched.look(20, 0, &[(1, 1.2)], 0).is_empty() && watched.look(0, 0, &[(1, 1.2)], 0).is_empty(),
        "older ones"
    );
    watched.look(20, 0, &[(1, 1.4)], 0);
    let warnings = watched.look(20, 0, &[(1, 1.6)], 0);
    let begin = "limit `web`: 80 connections are open where it allows 50, and more with every look";
    assert!(warnings.len() == 1 && warnings[0].starts_with(begin), "{warnings:?}");
    assert!(watched.look(0, 0, &[(1, 1.6)], 0).is_empty());
    let mut partner = Watched { allows: 10, ..Watched::new(concurrent(50, Per::Source)) };
    assert!(
        [1.2, 1.4, 1.6, 1.8].into_iter().all(|open| partner.look(20, 0, &[(1, open)], 0).is_empty()),
        "an override"
    );
}
