//! What the check warns of. What it refuses is in the corpus.

use super::*;
use crate::policy::{Limit, parse, tests::EXAMPLE, units::Quantity};
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

#[test]
fn a_limit_on_more_connections_than_are_counted_is_said_to_do_nothing() {
    let found = warnings(&enforcing(vec![Limit::concurrent("it", MAX_CONNECTIONS)]));
    assert!(found[0].starts_with("limit \"it\": concurrent: it never refuses anything: a host counts"), "{found:?}");
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
