//! What the kernel reads is what the document says, and what it remembers stays where it is.

use super::*;
use crate::policy::{
    HeldLimit, Lengths, Limit, Protocol, Service, parse,
    tests::EXAMPLE,
    units::{Period, Quantity},
};
use proptest::prelude::*;
use throttle_common::{
    gcra,
    records::{self, NONE, Region, name_str, port_slot},
    words::{Fate, Overflow, Speaks, Unit},
};

fn empty(sets: u32) -> Layout {
    Layout { sets, ..Layout::default() }
}

fn after(compiled: &Compiled, sets: u32) -> Layout {
    let limits = compiled.limits.iter().map(|&(number, record)| HeldLimit { number, record }).collect();
    let clock = |service: &records::Service| (name_str(&service.name).to_owned(), service.clock);
    let clocks = compiled.services.iter().map(clock).collect();
    Layout { sets, limits, tenants: compiled.tenants.clone(), clocks, ..Layout::default() }
}

fn limit(name: &str, sources: u32) -> Limit {
    Limit { sources, ..Limit::new(name, Unit::Packets, Rate::per_second(10)) }
}

fn with(limits: Vec<Limit>) -> Document {
    Document { limits, ..Document::default() }
}

fn number(compiled: &Compiled, name: &str) -> u16 {
    compiled.limits.iter().find(|(_, record)| name_str(&record.name) == name).unwrap().0
}

fn record<'c>(compiled: &'c Compiled, name: &str) -> &'c records::Limit {
    &compiled.limits.iter().find(|(_, record)| name_str(&record.name) == name).unwrap().1
}

#[test]
fn fast_limits_that_sources_share_are_taken_ahead_of() {
    let batch = |limits: &str, cpus| {
        let text = format!("[[tenant]]\nname = \"acme\"\nsources = [\"10.0.0.0/8\"]\n{limits}");
        let compiled = compile(&parse(&text).unwrap(), 1, &Layout { cpus, ..empty(1 << 20) }).unwrap();
        let limit = record(&compiled, "l");
        limit.batch / limit.price.cost(1)
    };
    let limit = |unit: &str, rest: &str| format!("[[limit]]\nname = \"l\"\nunit = \"{unit}\"\n{rest}\n");
    let packets = |rest: &str| batch(&limit("packets", rest), 2);
    assert_eq!(packets("rate = \"1000000/s\"\nper = \"host\""), 50, "50 us of it");
    assert_eq!(packets("rate = \"6000000/min\"\nper = \"tenant\""), 5, "100 000 a second");
    assert_eq!(packets("rate = \"1000000/s\"\nburst = 2048\nper = \"host\""), 8, "a 128th for two CPUs");
    assert_eq!(batch(&limit("packets", "rate = \"1000000/s\"\nper = \"host\""), 0), 0, "nobody knows of how many CPUs");
    for slow in [
        "rate = \"99999/s\"\nper = \"host\"",
        "rate = \"1000000/s\"",
        "rate = \"1000000/s\"\nburst = 1023\nper = \"host\"",
        "rate = \"1000000/s\"\nalgorithm = \"leaky-bucket\"\nper = \"host\"",
        "rate = \"1000000/s\"\nalgorithm = \"fixed-window\"\nper = \"host\"",
        "rate = \"1000000/s\"\nper = \"tenant\"\nguarantee = \"10/s\"",
        "rate = \"1000000/s\"\nper = \"tenant\"\n[[limit.override]]\ntenant = \"acme\"\nrate = \"5/s\"",
    ] {
        assert_eq!(packets(slow), 0, "{slow}");
    }
    // 100 000 frames of 512 bytes are 409.6 Mbit.
    let bytes = |rate: &str| batch(&limit("bytes", &format!("rate = \"{rate}\"\nper = \"host\"")), 2);
    assert_eq!((bytes("400Mbit/s"), bytes("800Mbit/s")), (0, 5_000));
    let beside = "[[limit]]\nname = \"m\"\nunit = \"packets\"\nrate = \"9/s\"\nper = \"tenant\"\nguarantee = \"5/s\"\n";
    let host = |unit: &str| limit(unit, "rate = \"1000000/s\"\nper = \"host\"") + beside;
    assert_eq!((batch(&host("packets"), 2), batch(&host("connections"), 2)), (0, 50), "guarantees are of a unit");
}

#[test]
fn the_clock_is_read_first_where_every_packet_needs_it() {
    let clock_first = |unit, of: Option<&str>| {
        let limit = Limit { service: of.map(str::to_owned), unit, ..limit("l", 100) }.with_units();
        let service = |&name: &&str| Service::new(name, Protocol::Icmp, vec![]);
        let services = of.iter().map(service).collect();
        compile(&Document { services, ..with(vec![limit]) }, 1, &empty(1 << 20)).unwrap().policy.clock_first
    };
    assert_eq!((clock_first(Unit::Packets, None), clock_first(Unit::Bytes, None)), (1, 1));
    assert_eq!((clock_first(Unit::Connections, None), clock_first(Unit::Packets, Some("s"))), (0, 0));
}

#[test]
fn the_example_compiles_to_what_it_says() {
    let compiled = compile(&parse(EXAMPLE).unwrap(), 7, &empty(1 << 20)).unwrap();
    let policy = &compiled.policy;
    assert_eq!((policy.revision, policy.observe, policy.has_services), (7, 0, 1));
    assert_eq!(policy.answers, Budget { cost: 256 * 500_000, depth: 256 * 1_000_000_000 });
    assert_eq!(policy.fates[Reason::Arp as usize], Fate::Drop as u8);
    assert_eq!(policy.fates[Reason::TooManyVlans as usize], Fate::Pass as u8);
    assert_eq!(policy.fates[Reason::OtherEthertype as usize], Fate::Pass as u8);
    // Nothing is due to events: no reading of the clock admits one.
    assert_eq!(gcra::admit(0, gcra::ticks(1 << 50), policy.events.cost, policy.events.depth), None);

    let connections = record(&compiled, "new-connections");
    assert_eq!(connections.price.cost(1), 256 * 1_200_000_000);
    assert_eq!((connections.observe, connections.overflow), (1, Overflow::Refuse as u8));
    assert_eq!((connections.v4.prefix, connections.v4.aggregate, connections.v4.sets), (24, 16, 1_000));
    // Its service has an IPv4 destination: no IPv6 packet is asked about it.
    assert_eq!(connections.v6, Region::default());

    // The host's limit comes first, and is all that packets of no service are asked about.
    let (host, web) = (number(&compiled, "traffic"), number(&compiled, "new-connections"));
    assert_eq!((policy.scope.count, policy.scope.limits[0]), (1, host));
    let [service] = &compiled.services[..] else { panic!() };
    assert_eq!((service.scope.count, &service.scope.limits[..2]), (2, &[host, web][..]));
    assert_eq!((service.family, service.mask.low, service.destination.low), (4, 0xff00_0000, 0x0a00_0000));
    assert_eq!(compiled.ports.len(), 82);
    assert_eq!(compiled.ports[0], (port_slot(0, 80), 1));
}

#[test]
fn the_most_specific_destination_is_asked_first() {
    let service = |name: &str, destination: Option<&str>| Service {
        destination: destination.map(|prefix| prefix.parse().unwrap()),
        ..Service::new(name, crate::policy::Protocol::Icmp, Vec::new())
    };
    let services =
        vec![service("any", None), service("wide", Some("10.0.0.0/8")), service("narrow", Some("10.1.0.0/16"))];
    let compiled = compile(&Document { services: services.into(), ..Document::default() }, 1, &empty(0)).unwrap();
    assert_eq!(compiled.candidates, [[3, 2, 1, NONE, NONE, NONE, NONE, NONE]]);
    assert_eq!(compiled.ports, [(port_slot(2, 0), 1)]);
}

#[test]
fn a_limit_keeps_its_number_and_its_regions_whatever_comes_and_goes_around_it() {
    let before = compile(&with(vec![limit("a", 30), limit("b", 30), limit("c", 30)]), 1, &empty(1_000)).unwrap();
    let held = after(&before, 1_000);
    let faster = Limit { rate: Some(Rate::per_second(99)), ..limit("c", 30) };
    let after = compile(&with(vec![limit("new", 3), faster, limit("b", 30)]), 2, &held).unwrap();
    for name in ["b", "c"] {
        assert_eq!(number(&after, name), number(&before, name));
        assert_eq!(
            (record(&after, name).v4, record(&after, name).v6),
            (record(&before, name).v4, record(&before, name).v6)
        );
    }
    // What `a` held is not given away while packets still use it.
    assert_eq!(number(&after, "new"), 3);
    assert_eq!(record(&after, "new").v4.base, 60);
}

#[test]
fn a_service_keeps_its_clock_whatever_comes_and_goes_around_it() {
    let service = |name: &str| Service::new(name, Protocol::Tcp, vec![]);
    let of = |names: &[&str], held: &Layout| {
        let services: Vec<_> = names.iter().map(|name| service(name)).collect();
        let ports = (1_u16..)
            .zip(services)
            .map(|(port, service)| Service { ports: vec![port.to_string().parse().unwrap()], ..service });
        let limits = names.iter().map(|name| Limit { service: Some((*name).to_owned()), ..limit(name, 30) });
        let document = Document { services: ports.collect(), ..with(limits.chain([limit("all", 30)]).collect()) };
        compile(&document, 1, held).unwrap()
    };
    let clocks = |compiled: &Compiled| -> Vec<(String, u16)> {
        for service in &compiled.services {
            assert_eq!(record(compiled, name_str(&service.name)).clock, service.clock, "its limit goes by it");
        }
        assert_eq!(record(compiled, "all").clock, records::HOST_CLOCK);
        compiled.services.iter().map(|it| (name_str(&it.name).to_owned(), it.clock)).collect()
    };
    let before = of(&["a", "b", "c"], &empty(1_000));
    assert_eq!(clocks(&before), [("a".to_owned(), 1), ("b".to_owned(), 2), ("c".to_owned(), 3)]);
    let between = of(&["new", "c", "b"], &after(&before, 1_000));
    // That of `a` is not given away while packets still read it.
    assert_eq!(clocks(&between), [("new".to_owned(), 4), ("c".to_owned(), 3), ("b".to_owned(), 2)]);
    let last = of(&["newer", "new", "c"], &after(&between, 1_000));
    assert_eq!(clocks(&last), [("newer".to_owned(), 1), ("new".to_owned(), 4), ("c".to_owned(), 3)]);
}

#[test]
fn what_follows_its_health_is_measured_and_has_a_breaker_by_the_number_of_its_clock() {
    let of = |health: &str, limit: &str| {
        let service = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n";
        let open = "[[limit]]\nname = \"open\"\nservice = \"web\"\nunit = \"connections\"\nper = \"service\"\n";
        let text = format!("{service}{health}{open}concurrent = 900\n{limit}");
        let compiled = compile(&parse(&text).unwrap(), 1, &empty(1 << 20)).unwrap();
        let [web] = &compiled.services[..] else { panic!() };
        let flags = (compiled.policy.measures, compiled.policy.has_breakers);
        (flags, web.measures, web.breaker == web.clock, web.connections)
    };
    assert_eq!(of("", ""), ((0, 0), Speaks::Opaque as u8, false, 900));
    assert_eq!(of("[service.health]\n", ""), ((1, 1), Speaks::Http as u8, true, 900));
    let tls = "[service.health]\nspeaks = \"tls\"\nbreaker = false\n";
    assert_eq!(of(tls, ""), ((1, 0), Speaks::Tls as u8, false, 900));
    assert_eq!(of("[service.health]\nspeaks = \"opaque\"\n", "").0, (0, 1));
    let tighter =
        "[[limit]]\nname = \"few\"\nservice = \"web\"\nunit = \"connections\"\nper = \"service\"\nconcurrent = 70\n";
    assert_eq!(of("", tighter).3, 70, "the tightest says it");
}

#[test]
fn a_limit_that_goes_by_another_clock_is_a_new_region() {
    let services: Vec<_> = (1_u16..)
        .zip(["a", "b"])
        .map(|(port, name)| Service::new(name, Protocol::Tcp, vec![port.to_string().parse().unwrap()]))
        .collect();
    let of = |name: Option<&str>, held: &Layout| {
        let limit = Limit { service: name.map(str::to_owned), ..limit("l", 30) };
        compile(&Document { services: services.clone().into(), ..with(vec![limit]) }, 1, held).unwrap()
    };
    let before = of(Some("a"), &empty(1_000));
    let held = after(&before, 1_000);
    let base = |compiled: &Compiled| record(compiled, "l").v4.base;
    assert_eq!([of(Some("a"), &held), of(Some("b"), &held), of(None, &held)].map(|it| base(&it)), [0, 20, 20]);
    // Limits of an earlier layout knew no clock, and keep their places.
    let mut earlier = held.clone();
    earlier.limits[0].record.clock = records::NO_CLOCK;
    assert_eq!(base(&of(Some("b"), &earlier)), 0);
}

#[test]
fn a_region_stays_where_it_is_however_tenants_divide_it() {
    let tenants =
        |count: usize| (0..count).map(|it| format!("[[tenant]]\nname = \"t{it}\"\nsources = [\"10.{it}.0.0/16\"]\n"));
    let of = |count: usize, held: &Layout| {
        let limit = "[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"9/s\"\nsources = 60000\n";
        compile(&parse(&(tenants(count).collect::<String>() + limit)).unwrap(), 1, held).unwrap()
    };
    let mut held = empty(100_000);
    for (count, compartments) in [(0, 0), (1, 1), (2, 2), (3, 3), (9, 5), (3, 5), (1, 1), (0, 0)] {
        let compiled = of(count, &held);
        let Region { base, sets, compartments: found, .. } = record(&compiled, "l").v4;
        assert_eq!((base, sets, found), (0, 20_000, compartments), "{count} tenants");
        held = after(&compiled, 100_000);
    }
}

#[test]
fn a_tenant_in_the_place_of_another_has_a_compartment_of_its_own() {
    let of = |names: &[&str], held: &Layout| {
        let tenants = (1..)
            .zip(names)
            .map(|(it, name)| format!("[[tenant]]\nname = \"{name}\"\nsources = [\"10.{it}.0.0/16\"]\n"));
        let limit = "[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"9/s\"\nsources = 2000\n";
        compile(&parse(&(tenants.collect::<String>() + limit)).unwrap(), 1, held).unwrap()
    };
    let mut held = empty(100_000);
    for names in [["a", "b", "c", "d"], ["a", "b", "c", "e"], ["f", "b", "g", "e"], ["f", "h", "i", "j"]] {
        let compiled = of(&names, &held);
        let region = record(&compiled, "l").v4;
        let parts: std::collections::BTreeSet<u32> =
            compiled.tenants.values().map(|&number| region.compartment(number).base).collect();
        assert_eq!(parts.len(), 4, "{:?}", compiled.tenants);
        held = after(&compiled, 100_000);
    }
}

#[test]
fn other_sources_are_a_new_region() {
    let held = after(&compile(&with(vec![limit("a", 30)]), 1, &empty(1_000)).unwrap(), 1_000);
    let prefix = Limit { prefix: Lengths { ipv4: 31, ipv6: 64 }, ..limit("a", 30) };
    let bytes = Limit { unit: Unit::Bytes, ..limit("a", 30) }.with_units();
    let base = |limit| {
        let compiled = compile(&with(vec![limit]), 2, &held).unwrap();
        (compiled.limits[0].1.v4.base, compiled.limits[0].1.v6.base)
    };
    assert_eq!(base(limit("a", 30)), (0, 10));
    assert_eq!(base(prefix), (20, 10));
    assert_eq!(base(limit("a", 27)), (20, 29));
    assert_eq!(base(bytes), (20, 30));
}

#[test]
fn the_gap_that_a_limit_left_is_used_by_the_next_change() {
    let all = compile(&with(vec![limit("a", 30), limit("b", 30)]), 1, &empty(40)).unwrap();
    let only_b = compile(&with(vec![limit("b", 30)]), 2, &after(&all, 40)).unwrap();
    let again = compile(&with(vec![limit("b", 30), limit("c", 30)]), 3, &after(&only_b, 40)).unwrap();
    assert_eq!((number(&again, "c"), record(&again, "c").v4.base), (0, 0));
}

#[test]
fn a_table_that_is_too_small_says_by_how_much_and_what_to_do() {
    let both = with(vec![limit("a", 30), limit("b", 30)]);
    let refused = |bearable| compile(&both, 1, &Layout { bearable, ..empty(30) }).unwrap_err().to_string();
    let fewer = "limit \"b\": sources: there is no room for 10 of its sets: all limits need 40 of the table, which has 30; \
                 ask room for fewer `sources` (3 to a set and family)";
    let larger = "; or, because a table keeps its size, run `throttle detach` and start the agent with --table-sets 64: \
                  buckets and counters begin anew";
    assert_eq!((refused(64), refused(63)), (format!("{fewer}{larger}"), fewer.to_owned()));
    // Of several the one that wants most is named.
    let all = with(vec![limit("a", 900_000_000), limit("b", 9)]);
    let error = compile(&all, 1, &Layout { bearable: 1 << 26, ..empty(3) }).unwrap_err().to_string();
    assert!(error.starts_with("limit \"a\": sources: there is no room for 600000000 of its sets"), "{error}");
    assert!(!error.contains("--table-sets"), "no machine has the memory: {error}");
    let held = after(&compile(&with(vec![limit("a", 60)]), 1, &empty(40)).unwrap(), 40);
    let error = compile(&with(vec![limit("b", 60)]), 2, &held).unwrap_err().to_string();
    assert!(error.contains("in a change of its own"), "{error}");
}

#[test]
fn a_wrong_document_is_not_compiled() {
    let error = compile(&with(vec![limit("a b", 30)]), 1, &empty(1_000)).unwrap_err();
    assert_eq!(error.0[0].path, "limit[0].name");
}

proptest! {
    #[test]
    fn regions_never_overlap_and_lie_within_the_table(
        rounds in prop::collection::vec(prop::collection::btree_map(0u8..8, 1u32..200, 0..8), 1..6),
    ) {
        let mut held = empty(2_000);
        for (revision, round) in rounds.iter().enumerate() {
            let limits = round.iter().map(|(name, sources)| limit(&format!("limit-{name}"), *sources)).collect();
            let Ok(compiled) = compile(&with(limits), revision as u64, &held) else { continue };
            // Together with what the kernel still holds: packets in flight use both.
            let mut regions: Vec<_> = compiled.limits.iter().flat_map(|(_, limit)| [limit.v4, limit.v6]).collect();
            let kept = held.limits.iter().flat_map(|limit| [limit.record.v4, limit.record.v6]);
            regions.extend(kept.filter(|region| !regions.contains(region)).collect::<Vec<_>>());
            regions.sort_by_key(|region| region.base);
            prop_assert!(regions.is_sorted_by(|one, next| one.base + one.sets <= next.base));
            prop_assert!(regions.last().is_none_or(|last| last.base + last.sets <= held.sets));
            held = after(&compiled, held.sets);
        }
    }

    #[test]
    fn a_burst_is_admitted_at_once_to_its_last_cell(
        amount in 1u64..1_000_000, per in 0usize..4, burst in 1u64..100_000,
    ) {
        let per = [Period::Second, Period::Minute, Period::Hour, Period::Day][per];
        let rate = Rate { quantity: Quantity::bare(amount), per };
        let burst = Some(Quantity::bare(burst)).filter(|burst| burst.amount() * per.seconds() <= amount * 86_400);
        let limit = Limit { burst, ..Limit { rate: Some(rate), ..limit("a", 3) } };
        let cells = limit.burst_units();
        let compiled = compile(&with(vec![limit]), 1, &empty(1_000)).unwrap();
        let record = compiled.limits[0].1;
        prop_assert!(u128::from(record.price.cost(1)) * u128::from(cells) <= u128::from(record.depth));
        prop_assert!(u128::from(record.price.cost(1)) * u128::from(cells + 1) > u128::from(record.depth));
    }
}
