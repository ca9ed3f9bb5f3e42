//! What the check warns of. What it refuses is in the corpus.

use super::*;
use crate::policy::{Limit, Mode, parse, tests::EXAMPLE, units::Quantity};
use throttle_common::{
    records::MAX_CONNECTIONS,
    words::{Fate, Per, Reason, Unit},
};

fn warnings(document: &Document) -> Vec<String> {
    check(document).unwrap().iter().map(Warning::to_string).collect()
}

fn enforcing(limits: Vec<Limit>) -> Document {
    Document { mode: Mode::Enforce, limits, ..Document::default() }
}

fn limit(name: &str, rate: &str) -> Limit {
    Limit::new(name, Unit::Packets, rate.parse().unwrap())
}

fn sources(lists: &str) -> Document {
    parse(&format!("mode = \"enforce\"\n[sources]\n{lists}")).unwrap()
}

#[test]
fn a_plain_document_is_not_warned_of() {
    assert_eq!(warnings(&Document::default()), [""; 0]);
    assert_eq!(warnings(&enforcing(vec![limit("one", "1000/s"), limit("two", "100000/hour")])), [""; 0]);
}

#[test]
fn a_limit_that_only_observes_is_said_to() {
    let found = warnings(&parse(EXAMPLE).unwrap());
    assert!(found[0].starts_with("limit \"new-connections\": mode: it only observes"), "{found:?}");
    // Where the whole host does, that is no slip: `status` and every change say so.
    let document = Document { mode: Mode::Observe, ..enforcing(vec![limit("one", "5/s")]) };
    assert_eq!(warnings(&document), [""; 0]);
}

#[test]
fn a_services_limit_that_fragments_slip_around_is_said_to() {
    let service = "mode = \"enforce\"\n[[service]]\nname = \"dns\"\nprotocol = \"udp\"\nports = [53]\n";
    let limit = |name: &str, unit: &str, rest: &str| {
        let rate = if unit == "bytes" { "1000000B/s" } else { "1000000/s" };
        format!("[[limit]]\nname = \"{name}\"\nunit = \"{unit}\"\nrate = \"{rate}\"\nburst = 100_000\n{rest}\n")
    };
    let of_dns = "service = \"dns\"";
    let found = |limits: &[String]| {
        let document = parse(&(service.to_owned() + &limits.concat())).unwrap();
        warnings(&document).into_iter().filter(|text| text.contains("fragments")).collect::<Vec<_>>()
    };
    let packets = limit("p", "packets", of_dns);
    let alone = found(&[packets.clone(), limit("q", "packets", of_dns)]);
    assert_eq!(alone.len(), 1, "once for a service and unit: {alone:?}");
    assert!(alone[0].starts_with("limit \"p\": service: later fragments carry no ports"), "{alone:?}");
    assert_eq!(found(&[packets.clone(), limit("host", "bytes", "")]).len(), 1, "bytes do not count packets");
    assert_eq!(found(&[packets, limit("host", "packets", "")]), [""; 0]);
    assert_eq!(found(&[limit("b", "bytes", of_dns)]).len(), 1);
    let tcp = service.replace("udp", "tcp") + &limit("c", "connections", of_dns);
    assert_eq!(warnings(&parse(&tcp).unwrap()), [""; 0], "a later fragment opens no connection");
}

#[test]
fn a_host_that_cannot_be_found_by_its_neighbours_is_said_to() {
    for &shape in Reason::ALL.iter().filter(|shape| shape.is_shape()) {
        let vital = [Reason::Arp, Reason::NeighbourDiscovery].contains(&shape);
        let found = |fate| warnings(&Document { shapes: [(shape, fate)].into(), ..Document::default() });
        assert_eq!(found(Fate::Pass), [""; 0]);
        assert_eq!(found(Fate::Drop).iter().any(|text| text.contains("unreachable")), vital, "{}", shape.name());
    }
}

#[test]
fn a_limit_behind_a_tighter_one_is_said_to_do_nothing() {
    let refused = |limits| warnings(&enforcing(limits)).iter().filter(|text| text.contains("never refuses")).count();
    assert_eq!(refused(vec![limit("wide", "1000/s"), limit("tight", "10/s")]), 1);
    assert_eq!(refused(vec![limit("one", "10/s"), limit("same", "10/s")]), 1);
    // The same rate with another burst or for finer sources is another limit.
    let burst = Limit { burst: Some(Quantity::bare(50)), ..limit("burst", "100/s") };
    assert_eq!(refused(vec![limit("steady", "10/s"), burst.clone()]), 1);
    assert_eq!(refused(vec![Limit { burst: Some(Quantity::bare(500)), ..limit("steady", "10/s") }, burst]), 0);
    let mut coarse = limit("coarse", "100/s");
    coarse.prefix.ipv4 = 25;
    assert_eq!(refused(vec![coarse, limit("fine", "10/s")]), 0);
    // What only observes refuses nothing first.
    assert_eq!(refused(vec![limit("wide", "1000/s"), Limit { mode: Mode::Observe, ..limit("tight", "10/s") }]), 0);
}

#[test]
fn a_limit_behind_one_that_more_share_is_said_to_do_nothing() {
    let per = |name: &str, rate: &str, per: Per, service: Option<&str>| Limit {
        per,
        service: service.map(str::to_owned),
        ..limit(name, rate)
    };
    let services = parse("[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n").unwrap().services;
    let tenants = parse("[[tenant]]\nname = \"red\"\nsources = [\"10.0.0.0/8\"]\n").unwrap().tenants;
    let shadowed = |limits: [Limit; 2]| {
        let document = Document { services: services.clone(), tenants: tenants.clone(), ..enforcing(limits.to_vec()) };
        warnings(&document).iter().any(|text| text.starts_with("limit \"it\"") && text.contains("never refuses"))
    };
    let web = Some("web");
    for narrow in [Per::Source, Per::Tenant] {
        let it = per("it", "100/s", narrow, web);
        assert!(shadowed([it.clone(), per("all", "100/s", Per::Service, web)]));
        assert!(shadowed([it.clone(), per("all", "50/s", Per::Host, None)]));
        assert!(!shadowed([it.clone(), per("all", "101/s", Per::Host, None)]), "it is the tighter one");
        assert!(!shadowed([per("it", "100/s", narrow, None), per("all", "50/s", Per::Service, web)]), "others meet it");
    }
    assert!(
        !shadowed([per("it", "100/s", Per::Source, web), per("all", "50/s", Per::Tenant, web)]),
        "some have no tenant"
    );
    assert!(!shadowed([per("it", "100/s", Per::Service, web), per("all", "50/s", Per::Source, None)]));
    assert!(shadowed([
        Limit { service: web.map(str::to_owned), ..Limit::concurrent("it", 50) },
        Limit { per: Per::Host, ..Limit::concurrent("all", 20) }
    ]));
}

/// A service, a tenant, and limits on packets of this name, rate, and rest.
fn with_limits(health: &str, mode: &str, limits: &[(&str, &str, &str)]) -> Vec<String> {
    let limit = |&(name, rate, rest): &(&str, &str, &str)| {
        let unit = if rest.starts_with("unit") { "" } else { "unit = \"packets\"\n" };
        format!("[[limit]]\nname = \"{name}\"\n{unit}rate = \"{rate}\"\n{rest}\n")
    };
    let limits: String = limits.iter().map(limit).collect();
    let rest = "[[tenant]]\nname = \"red\"\nsources = [\"10.0.0.0/8\"]\n";
    let service = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n";
    warnings(&parse(&format!("mode = \"{mode}\"\n{service}{health}\n{rest}{limits}")).unwrap())
}

const TENANT: &str = "per = \"tenant\"";
const AT_WEB: &str = "per = \"service\"\nservice = \"web\"";
const HOST: &str = "per = \"host\"";

#[test]
fn a_limit_that_is_there_for_more_than_to_refuse_is_not_said_to_do_nothing() {
    let shadowed = |health: &str, limits: &[(&str, &str, &str)]| {
        let found = with_limits(health, "enforce", limits);
        found.into_iter().filter(|text| text.contains("never refuses")).collect::<Vec<_>>()
    };
    let guaranteed = format!("{TENANT}\nguarantee = \"10/s\"");
    assert_eq!(shadowed("", &[("all", "100/s", HOST), ("it", "100/s", &guaranteed)]), [""; 0], "it guarantees");
    assert_eq!(shadowed("", &[("all", "100/s", HOST), ("it", "100/s", TENANT)]).len(), 1);
    // One whose ceiling is the tighter one goes, the ceiling stays.
    let found = shadowed("", &[("tight", "50/s", &guaranteed), ("it", "100/s", TENANT), ("all", "900/s", HOST)]);
    assert!(found.len() == 1 && found[0].ends_with("remove it"), "{found:?}");
    // Who is within a guarantee is refused by its source's limit alone.
    let each = ("it", "100/s", "");
    assert_eq!(shadowed("", &[each, ("all", "100/s", HOST), ("t", "100/s", &guaranteed)]), [""; 0]);
    let of_each = [("t", "100/s", "guarantee = \"10/s\"\nper = \"service\"\nservice = \"web\""), each];
    assert_eq!(shadowed("", &of_each), [""; 0]);
    // Where its service is unwell it refuses sooner.
    let both = [("all", "100/s", HOST), ("it", "100/s", AT_WEB)];
    assert_eq!(shadowed("", &both).len(), 1);
    assert_eq!(shadowed("[service.health]\ncontrol = \"rate\"", &both), [""; 0]);
    assert_eq!(shadowed("[service.health]\ncontrol = \"fixed\"", &both).len(), 1);
}

#[test]
fn an_override_keeps_a_limit_from_being_idle_only_where_it_is_tighter() {
    let shadowed = |own: &str| {
        let it = format!("{TENANT}\n[[limit.override]]\ntenant = \"red\"\nrate = \"{own}\"");
        with_limits("", "enforce", &[("all", "100/s", HOST), ("it", "200/s", &it)])
            .into_iter()
            .filter(|text| text.contains("never refuses"))
            .count()
    };
    assert_eq!(shadowed("300/s"), 1, "nobody may less than the host");
    assert_eq!(shadowed("50/s"), 0, "one tenant may less");
}

#[test]
fn a_limit_on_packets_refuses_what_one_on_connections_would() {
    let shadowed = |limits: &[(&str, &str, &str)]| {
        let found = with_limits("", "enforce", limits);
        found.into_iter().filter(|text| text.contains("never refuses")).collect::<Vec<_>>()
    };
    let (packets, connections) = (("packets", "100/s", ""), ("it", "100/s", "unit = \"connections\""));
    let found = shadowed(&[packets, connections]);
    assert!(found.len() == 1 && found[0].starts_with("limit \"it\"") && found[0].contains("`packets`"), "{found:?}");
    assert_eq!(shadowed(&[connections, packets]), found, "and not the other way round");
    assert_eq!(shadowed(&[("packets", "101/s", ""), connections]), [""; 0]);
}

#[test]
fn while_the_host_only_observes_it_is_said_what_would_do_nothing() {
    let limits = [("wide", "1000/s", ""), ("tight", "10/s", "")];
    for mode in ["enforce", "observe"] {
        let found = with_limits("", mode, &limits);
        assert!(found.len() == 1 && found[0].contains("`tight` would not refuse"), "{mode}: {found:?}");
    }
}

#[test]
fn a_guarantee_that_protects_from_nobody_is_said_to() {
    let found = |limits: &[(&str, &str, &str)]| {
        let found = with_limits("", "enforce", limits);
        found.into_iter().filter(|text| text.contains("nobody else could take it")).collect::<Vec<_>>()
    };
    let (tenant, web) = (format!("{TENANT}\nguarantee = \"10/s\""), format!("{AT_WEB}\nguarantee = \"10/s\""));
    let alone = found(&[("it", "100/s", &tenant)]);
    assert_eq!(
        alone,
        [
            "limit \"it\": guarantee: nobody else could take it: no wider limit is on packets; add one with per = \"host\", \
          or leave the guarantee out"
        ]
    );
    assert_eq!(found(&[("it", "100/s", &tenant), ("all", "900/s", HOST)]), [""; 0]);
    assert_eq!(found(&[("it", "100/s", &tenant), ("all", "900/s", AT_WEB)]), [""; 0], "others use the service too");
    assert_eq!(found(&[("it", "100/s", &web), ("all", "900/s", TENANT)]).len(), 1, "a tenant's part is narrower");
    let overridden = format!("{TENANT}\n[[limit.override]]\ntenant = \"red\"\nguarantee = \"10/s\"");
    assert!(found(&[("it", "100/s", &overridden)])[0].starts_with("limit \"it\": override"));
}

#[test]
fn a_guarantee_in_a_limit_that_only_observes_is_said_to_hold() {
    let it = format!("{TENANT}\nmode = \"observe\"\nguarantee = \"10/s\"");
    let limits = [("it", "100/s", it.as_str()), ("all", "900/s", HOST)];
    let said =
        |mode| with_limits("", mode, &limits).iter().any(|text| text.contains("kept for its owners all the same"));
    assert!(said("enforce") && said("observe"));
}

#[test]
fn a_guarantee_over_the_clock_of_a_service_that_may_be_unwell_is_said_to_end_there() {
    let found = |health: &str, limits: &[(&str, &str, &str)]| {
        let found = with_limits(health, "enforce", limits);
        found.into_iter().filter(|text| text.contains("slower clock")).collect::<Vec<_>>()
    };
    let (health, tenant) = ("[service.health]\ncontrol = \"rate\"", format!("{TENANT}\nguarantee = \"10/s\""));
    let limits = [("it", "100/s", tenant.as_str()), ("web", "900/s", AT_WEB)];
    let said = "limit \"it\": guarantee: where `web` is unwell, `web` goes by a slower clock and refuses even what is \
                guaranteed; for one that slows down with it write service = \"web\"";
    assert_eq!(found(health, &limits), [said]);
    assert_eq!(found("", &limits), [""; 0], "nothing slows it down");
    assert_eq!(found("[service.health]\ncontrol = \"fixed\"", &limits), [""; 0]);
    let there = format!("{tenant}\nservice = \"web\"");
    assert_eq!(found(health, &[("it", "100/s", there.as_str()), limits[1]]), [""; 0], "they go by one clock");
    assert_eq!(found(health, &[limits[0], ("all", "900/s", HOST), ("web", "900/s", "service = \"web\"")]), [""; 0]);
}

#[test]
fn a_limit_on_more_connections_than_are_counted_is_said_to_do_nothing() {
    let found = warnings(&enforcing(vec![Limit::concurrent("it", MAX_CONNECTIONS)]));
    let said = format!(
        "limit \"it\": concurrent: it never refuses anything: a host counts no more than {MAX_CONNECTIONS} connections; \
         write less, or leave the limit out"
    );
    assert_eq!(found, [said]);
    assert_eq!(warnings(&enforcing(vec![Limit::concurrent("it", MAX_CONNECTIONS - 1)])), [""; 0]);
}

#[test]
fn a_tenant_that_no_limit_touches_or_that_is_blocked_is_said_to() {
    let found = |lists: &str| {
        let tenant = "[[tenant]]\nname = \"red\"\nsources = [\"192.0.2.0/25\"]\n";
        warnings(&parse(&format!("mode = \"enforce\"\n[sources]\n{lists}\n{tenant}")).unwrap())
    };
    let allowed = found("allow = [\"192.0.2.0/24\"]");
    assert!(allowed[0].starts_with("tenant \"red\": sources, item 1: no limit touches 192.0.2.0/25"), "{allowed:?}");
    let blocked = found("block = [\"192.0.2.0/25\"]");
    assert!(blocked[0].starts_with("tenant \"red\": sources, item 1: 192.0.2.0/25 is blocked"), "{blocked:?}");
    assert_eq!(found("block = [\"192.0.2.7\"]"), [""; 0]);
}

#[test]
fn everyone_and_nobody_are_said_so() {
    assert!(warnings(&sources("allow = [\"0.0.0.0/0\"]"))[0].contains("this allows everyone"));
    assert!(warnings(&sources("block = [\"::/0\"]"))[0].contains("you included"));
    assert!(warnings(&sources("known = [\"0.0.0.0/0\"]"))[0].contains("a flood can take every place"));
    assert!(warnings(&sources("known = [\"192.0.2.1\", \"192.0.2.1\"]"))[0].contains("already in the list"));
}

#[test]
fn a_block_within_an_allow_is_said_to_do_nothing_and_a_hole_in_a_block_is_not() {
    let found = warnings(&sources("allow = [\"192.0.2.0/24\"]\nblock = [\"192.0.2.7\"]"));
    assert!(found[0].contains("192.0.2.7 is never blocked: it lies within 192.0.2.0/24"));
    assert_eq!(warnings(&sources("allow = [\"192.0.2.7\"]\nblock = [\"192.0.2.0/24\"]")), [""; 0]);
}

#[test]
fn a_burst_below_joined_frames_is_said_to_hold_them_back() {
    let limit =
        Limit { burst: Some("2KB".parse().unwrap()), ..Limit::new("slow", Unit::Bytes, "1MB/s".parse().unwrap()) };
    assert!(warnings(&enforcing(vec![limit]))[0].contains("large receive offload"));
}

/// The warnings of a service with this health, and with these other entries.
fn followed(protocol: &str, health: &str, rest: &str) -> Vec<String> {
    let service = format!("[[service]]\nname = \"web\"\nprotocol = \"{protocol}\"\nports = [80]\n");
    warnings(&parse(&format!("{service}[service.health]\n{health}\n{rest}")).unwrap())
}

const OPEN: &str = "[[limit]]\nname = \"open\"\nservice = \"web\"\nunit = \"connections\"\nconcurrent = 100\n";
const BACKEND: &str = "[[backend]]\nname = \"one\"\nservice = \"web\"\naddress = \"10.0.0.5:80\"\n";

#[test]
fn a_window_that_one_source_may_take_is_said_so() {
    let all = format!("{OPEN}per = \"service\"\n");
    let found = followed("tcp", "", &all);
    assert!(found[0].starts_with("service \"web\": health.control: one source alone may take the whole window"));
    assert_eq!(found.len(), 1, "{found:?}");
    let each = OPEN.replace("\"open\"", "\"each\"").replace("100", "10");
    assert_eq!(followed("tcp", "", &format!("{all}{each}")), [""; 0]);
    let others = each.replace("service = \"web\"\n", "");
    assert_eq!(followed("tcp", "", &format!("{all}{others}")).len(), 1, "the host's do not shrink with it");
}

#[test]
fn a_window_that_never_grows_as_far_as_it_may_is_said_so() {
    let limits = format!("{OPEN}per = \"service\"\n{}", OPEN.replace("\"open\"", "\"each\"").replace("100", "10"));
    let found = followed("tcp", "most = 200", &limits);
    assert_eq!(
        found,
        [
            "service \"web\": health.most: the window never grows to 200: `open` allows 100; leave it out, or raise `concurrent`"
        ]
    );
    assert_eq!(followed("tcp", "most = 100", &limits), [""; 0]);
}

#[test]
fn health_that_nothing_tells_of_is_said_so() {
    let rate = "[[limit]]\nname = \"r\"\nservice = \"web\"\nunit = \"packets\"\nrate = \"10/s\"\n\
                [[limit]]\nname = \"all\"\nunit = \"packets\"\nrate = \"10000/s\"\n";
    let push = format!("{BACKEND}probe = \"push\"\n");
    let silent = followed("udp", "control = \"rate\"", rate);
    assert!(silent[0].contains("nothing tells how `web` is"), "{silent:?}");
    assert_eq!(followed("udp", "control = \"rate\"", &format!("{rate}{push}")), [""; 0]);
    assert_eq!(followed("tcp", "control = \"rate\"", rate), [""; 0], "the kernel measures it");
    assert_eq!(followed("tcp", "control = \"rate\"\nspeaks = \"opaque\"", rate).len(), 1);
    let open = format!("{OPEN}per = \"service\"\n{}", OPEN.replace("\"open\"", "\"each\"").replace("100", "10"));
    assert_eq!(followed("tcp", "", &open), [""; 0], "the kernel measures it");
    for rest in [open.clone(), format!("{open}{BACKEND}")] {
        let blind = followed("tcp", "speaks = \"opaque\"", &rest);
        assert!(blind.len() == 1 && blind[0].contains("no latency is measured of what `web` speaks"), "{blind:?}");
    }
    let found = followed("tcp", "control = \"aimd\"", &open);
    assert!(found[0].contains("no backend of `web` beats"), "{found:?}");
    assert_eq!(followed("tcp", "control = \"aimd\"", &format!("{open}{BACKEND}")), [""; 0]);
}

#[test]
fn backends_whose_health_nothing_follows_are_said_so_once() {
    let service = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n";
    let other = BACKEND.replace("one", "two").replace("10.0.0.5", "10.0.0.6");
    let found = warnings(&parse(&format!("{service}{BACKEND}{other}")).unwrap());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("backend \"one\": service: `web` follows the health of none"), "{found:?}");
}

#[test]
fn a_table_too_small_for_a_compartment_of_each_tenant_is_told_with_the_room_that_it_takes() {
    let found = |tenants: usize, sources: &[u32]| {
        let tenant = |it| format!("[[tenant]]\nname = \"t{it}\"\nsources = [\"10.{it}.0.0/16\"]\n");
        let limit = |(it, sources): (usize, &u32)| {
            format!("[[limit]]\nname = \"l{it}\"\nunit = \"packets\"\nrate = \"9/s\"\nsources = {sources}\n")
        };
        let policy: String = (0..tenants).map(tenant).chain(sources.iter().enumerate().map(limit)).collect();
        let mut found = warnings(&parse(&policy).unwrap());
        found.retain(|text| text.contains("another's sources"));
        found
    };
    assert_eq!(found(0, &[1]), [""; 0]);
    assert_eq!(found(5, &[3_072, 196_608]), [""; 0]);
    let [one] = &found(5, &[3_069, 90, 700])[..] else { panic!("it is said once") };
    assert!(one.contains("too small to be divided") && one.contains("(so it is for 2 more limits)"), "{one}");
    assert!(one.contains("write sources = 3072 or more"), "{one}");
    let [one] = &found(5, &[3_069])[..] else { panic!("it is said once") };
    assert!(one.contains("room for compartments of 4 tenants, and there are 5"), "{one}");
}

#[test]
fn sources_wider_than_a_tenants_and_two_tenants_of_all_the_rest_are_told() {
    let found = |tenants: [&str; 2], prefix: &str| {
        let tenant = |(it, sources)| format!("[[tenant]]\nname = \"t{it}\"\nsources = [{sources}]\n");
        let limit = format!(
            "[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"9/s\"\noverflow = \"refuse\"\nprefix = {{ {prefix} }}\n"
        );
        let policy: String = (0..).zip(tenants).map(tenant).chain([limit]).collect();
        warnings(&parse(&policy).unwrap())
    };
    let plain = ["\"10.0.0.0/24\", \"2001:db8::/60\"", "\"0.0.0.0/0\", \"::/0\""];
    assert_eq!(found(plain, "ipv4 = 24"), [""; 0]);
    for (prefix, net) in [("ipv4 = 23", "10.0.0.0/24"), ("ipv6 = 56", "2001:db8::/60")] {
        let [one] = &found(plain, prefix)[..] else { panic!("one warning of {prefix}") };
        assert!(one.contains(net) && one.starts_with("limit \"l\": prefix"), "{one}");
    }
    let [one] = &found(["\"0.0.0.0/0\"", "\"::/0\""], "ipv4 = 32")[..] else { panic!("one warning") };
    assert!(one.contains("`t1` has a compartment like any other"), "{one}");
}

#[test]
fn the_highest_rates_are_those_that_the_fault_names() {
    let faults = |unit: &str, rate: &str| {
        let text = format!("[[limit]]\nname = \"l\"\nunit = \"{unit}\"\nrate = \"{rate}\"\n");
        parse(&text).err().map(|faults| faults.to_string())
    };
    for (unit, highest, beyond) in [("packets", "1000000000/s", "1020000000/s"), ("bytes", "1000Gbit/s", "1020Gbit/s")]
    {
        assert_eq!(faults(unit, highest), None);
        assert!(faults(unit, beyond).unwrap().contains("at most 1000000000/s, for bytes 1000Gbit/s"), "{beyond}");
    }
}

#[test]
fn fragments_slip_around_a_service_unless_all_meet_a_limit_of_the_host_that_refuses() {
    let document = |host: &str| {
        let service = "mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n\
                       [[tenant]]\nname = \"acme\"\nsources = [\"10.0.0.0/8\"]\n\
                       [[limit]]\nname = \"at-web\"\nservice = \"web\"\nunit = \"packets\"\nrate = \"9/s\"\n\
                       [[limit]]\nname = \"all\"\nunit = \"packets\"\nrate = \"99/s\"\n";
        parse(&format!("{service}{host}")).unwrap()
    };
    let everybody = "per = \"tenant\"\n[[tenant]]\nname = \"rest\"\nsources = [\"0.0.0.0/0\", \"::/0\"]";
    for (host, slips) in [("", false), (everybody, false), ("per = \"tenant\"", true), ("mode = \"observe\"", true)] {
        let told = warnings(&document(host)).iter().any(|warning| warning.contains("slip around the limits of `web`"));
        assert_eq!(told, slips, "{host}");
    }
}
