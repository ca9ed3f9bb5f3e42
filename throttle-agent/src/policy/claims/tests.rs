//! What guarantees come to, and in which class a source is: by hand.

use super::*;
use crate::policy::{compile, layout::Layout, parse, sources};
use proptest::prelude::*;
use std::fmt::Write as _;
use throttle_common::{connections::PLACE, gcra::MAX_DEPTH, records::name_str};

/// Two tenants with guarantees at a service and beside it, and the service with one of its own.
const NESTED: &str = r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[[tenant]]
name = "acme"
sources = ["192.0.2.0/24"]
[[tenant]]
name = "globex"
sources = ["198.51.100.0/24", "192.0.2.128/25"]
[[limit]]
name = "at-web"
service = "web"
unit = "connections"
concurrent = 50
per = "tenant"
guarantee = 10
[[limit]]
name = "tenants"
unit = "connections"
concurrent = 60
per = "tenant"
guarantee = 30
[[limit.override]]
tenant = "globex"
guarantee = 40
[[limit]]
name = "web"
service = "web"
unit = "connections"
concurrent = 100
per = "service"
guarantee = 15
[[limit]]
name = "host"
unit = "connections"
concurrent = 200
per = "host"
"#;

fn places(text: &str) -> BTreeMap<String, u64> {
    let layout = Layout { sets: 1 << 20, ..Layout::default() };
    let compiled = compile(&parse(text).unwrap(), 1, &layout).unwrap();
    let named = compiled.limits.iter().map(|(_, record)| (name_str(&record.name).to_owned(), record.depth / PLACE));
    let overridden = compiled.overridden.iter().map(|(&(limit, class), terms)| {
        let record = compiled.limits.iter().find(|(number, _)| *number == limit).unwrap().1;
        (format!("{} of {class}", name_str(&record.name)), terms.depth / PLACE)
    });
    named.chain(overridden).collect()
}

#[test]
fn every_place_is_somebodys_and_of_nested_guarantees_the_larger_counts() {
    let expected = [
        ("at-web", 40),
        ("at-web:guarantee", 10),
        // Twenty beside the ten that are at the service; for the other tenant thirty.
        ("tenants", 30),
        ("tenants:guarantee", 20),
        ("tenants of 1", 20),
        ("tenants:guarantee of 1", 30),
        // Two times ten are more than its own fifteen; and fifty that tenants have beside.
        ("web", 30),
        ("web:guarantee", 0),
        ("host", 130),
    ];
    let expected: BTreeMap<String, u64> = expected.map(|(name, places)| (name.to_owned(), places)).into();
    assert_eq!(places(NESTED), expected);
}

#[test]
fn what_one_is_guaranteed_at_a_service_is_less_for_it_alone_of_the_wider_limit() {
    let text =
        NESTED.replace("guarantee = 10", "guarantee = 10\n[[limit.override]]\ntenant = \"globex\"\nguarantee = 50");
    let text = text.replace("[[limit.override]]\ntenant = \"globex\"\nguarantee = 40\n", "");
    let of = places(&text);
    let both = ["at-web", "at-web:guarantee", "tenants", "tenants:guarantee"].map(|limit| {
        let all = of[limit];
        (all, of.get(&format!("{limit} of 1")).copied().unwrap_or(all))
    });
    // Sixty for each tenant, of which one has thirty for sure, ten of them there; the other has fifty there, and no more.
    assert_eq!(both, [(40, 0), (10, 50), (30, 10), (20, 0)]);
}

#[test]
fn a_tenants_own_value_counts_in_the_sum() {
    let tight = NESTED.replace("concurrent = 200", "concurrent = 70");
    assert!(parse(&tight).is_ok(), "twenty at the service, twenty and thirty beside it");
    let faults = parse(&tight.replace("concurrent = 70", "concurrent = 69")).unwrap_err().to_string();
    assert!(faults.contains("limit \"host\"") && faults.contains("come to 70, more than 69 at once"), "{faults}");
    let over = parse(&NESTED.replace("guarantee = 40", "guarantee = 61")).unwrap_err().to_string();
    assert!(over.contains("61 are guaranteed of a limit of 60 at once"), "{over}");
}

/// A packet a second, in what amounts are counted.
const ONE: u128 = 8 * 86_400;

/// Two tenants, of whom one has an override everywhere, at two services and elsewhere.
#[derive(Clone, Debug)]
struct Given {
    tenants: [u64; 2],
    /// By service.
    tenants_at: [u64; 2],
    services: [u64; 2],
    /// What each tenant may have at the first service at most, however it got it.
    most: u64,
}

impl Given {
    /// Ceilings are so wide that nothing is refused.
    fn document(&self) -> Document {
        let mut text = "[[tenant]]\nname = \"a\"\nsources = [\"10.1.0.0/16\"]\n\
                        [[tenant]]\nname = \"b\"\nsources = [\"10.2.0.0/16\"]\n"
            .to_owned();
        let mut limit = |name: &str, rate: u64, guarantee: u64, rest: &str| {
            _ = write!(text, "[[limit]]\nname = \"{name}\"\nunit = \"packets\"\nrate = \"{rate}/s\"\n{rest}\n");
            if guarantee > 0 {
                _ = writeln!(text, "guarantee = \"{guarantee}/s\"");
            }
        };
        for (at, port) in [(0, 80), (1, 81)] {
            limit(&format!("at-{at}"), 9_999, self.tenants_at[at], &format!("per = \"tenant\"\nservice = \"s{at}\""));
            limit(&format!("s{at}"), 9_999, self.services[at], &format!("per = \"service\"\nservice = \"s{at}\""));
            limit(&format!("other-{port}"), 9_999, 0, "per = \"host\"");
        }
        limit("most", self.most, 0, "per = \"tenant\"\nservice = \"s0\"");
        limit("tenants", 9_999, self.tenants[0].max(1), "per = \"tenant\"");
        _ = write!(text, "[[limit.override]]\ntenant = \"b\"\nguarantee = \"{}/s\"\n", self.tenants[1]);
        for (at, port) in [(0, 80), (1, 81)] {
            _ = write!(text, "[[service]]\nname = \"s{at}\"\nprotocol = \"tcp\"\nports = [{port}]\n");
        }
        parse(&text).unwrap()
    }

    /// What a tenant may use of its guarantees: at each service, and elsewhere. All that it may do lies between these.
    fn uses(&self, tenant: usize) -> Vec<[u64; 3]> {
        let ([first, second], wide) = (self.tenants_at, self.tenants[tenant].max(u64::from(tenant == 0)));
        vec![[first, second, 0], [first.max(wide.min(self.most)), 0, 0], [0, second.max(wide), 0], [0, 0, wide]]
    }
}

proptest! {
    /// Whatever tenants do with what they are guaranteed, and others with what services are, it is no more than what the sum
    /// says: so that it fits where that does. And at a service the sum says no more than may come.
    #[test]
    fn no_use_of_guarantees_of_a_rate_comes_to_more_than_their_sum(
        tenants in [0u64..50, 0u64..50],
        tenants_at in [0u64..50, 0u64..50],
        services in [0u64..100, 0u64..100],
        more in 0u64..50,
    ) {
        let given = Given { tenants, tenants_at, services, most: (tenants_at[0] + more).max(1) };
        let document = given.document();
        let claims = Claims::of(&document);
        let sum = |name: &str| {
            let limit = document.limits.iter().find(|limit| limit.name == name).unwrap();
            claims.reserved(limit, None) / ONE
        };
        let mut most = [0; 3];
        for a in given.uses(0) {
            for b in given.uses(1) {
                let at = |place: usize| u128::from(services.get(place).copied().unwrap_or(0).max(a[place] + b[place]));
                let of = [at(0), at(1), at(0) + at(1) + at(2)];
                most = [0, 1, 2].map(|place| most[place].max(of[place]));
            }
        }
        prop_assert_eq!([sum("s0"), sum("s1")], [most[0], most[1]]);
        prop_assert!(sum("other-80") >= most[2], "{} of the host, but {} may come", sum("other-80"), most[2]);
        if services == [0; 2] {
            prop_assert_eq!(sum("other-80"), most[2]);
        }
    }
}

#[test]
fn a_record_says_how_far_guarantees_may_put_a_bucket_into_debt() {
    let given = Given { tenants: [30, 20], tenants_at: [10, 0], services: [25, 0], most: 50 };
    let layout = Layout { sets: 1 << 20, ..Layout::default() };
    let second = 256_000_000_000_u64;
    let compiled = compile(&given.document(), 1, &layout).unwrap();
    let beyond = |name: &str| {
        let (_, record) = compiled.limits.iter().find(|(_, it)| name_str(&it.name) == name).unwrap();
        (record.overdraft(), record.price.cost(1))
    };
    // Bursts of a second each, and one more, at a 9999th of a second a packet: of both tenants, and of the service.
    for (name, packets) in
        [("at-0", 11), ("tenants", 31 + 11), ("s0", 31 + 21 + 2 * 11 + 26), ("other-80", 31 + 21 + 48)]
    {
        let ((bound, cost), debt) = (beyond(name), packets * (second / 9_999));
        assert!((debt..2 * debt + cost).contains(&bound), "{name}: {bound} for {debt}");
    }
    assert_eq!(beyond("at-1").0, 0, "nothing is guaranteed at the other service");
    // In a window what comes within it too.
    let text = "[[tenant]]\nname = \"a\"\nsources = [\"10.1.0.0/16\"]\n[[limit]]\nname = \"t\"\nunit = \"packets\"\n\
                per = \"tenant\"\nrate = \"9/day\"\nguarantee = \"9/day\"\n[[limit]]\nname = \"h\"\nper = \"host\"\n\
                unit = \"packets\"\nrate = \"9/day\"\nalgorithm = \"fixed-window\"\n";
    let compiled = compile(&parse(text).unwrap(), 1, &layout).unwrap();
    let host = compiled.limits.iter().find(|(_, it)| name_str(&it.name) == "h").unwrap().1;
    assert!((MAX_DEPTH / 2..=MAX_DEPTH).contains(&host.overdraft()), "no more than can be told: {}", host.overdraft());
}

#[test]
fn the_longest_prefix_decides_the_class_and_any_over_a_tenant() {
    let text = r#"
[[tenant]]
name = "acme"
sources = ["10.0.0.0/8", "192.0.2.0/24"]
[[tenant]]
name = "globex"
sources = ["10.2.0.0/16"]
[[limit]]
name = "l"
unit = "packets"
rate = "10/s"
[[limit.override]]
tenant = "acme"
rate = "20/s"
[[limit.override]]
sources = ["10.1.0.0/16", "10.2.3.0/24"]
rate = "30/s"
"#;
    let (document, layout) = (parse(text).unwrap(), Layout { sets: 1 << 20, ..Layout::default() });
    let compiled = compile(&document, 1, &layout).unwrap();
    let entries = sources::resolve(sources::stated(&document, &compiled.tenants));
    let (number, record) = compiled.limits[0];
    let price = |prefix: &str| {
        let class = entries[&prefix.parse().unwrap()].class(0);
        compiled.overridden.get(&(number, class)).map_or(record.price, |terms| terms.price).cost(1)
    };
    let per_second = |rate: u64| (256_000_000_000 / rate) & !1;
    assert_eq!(["10.0.0.0/8", "192.0.2.0/24"].map(price), [per_second(20); 2], "its tenant's");
    assert_eq!(["10.1.0.0/16", "10.2.3.0/24"].map(price), [per_second(30); 2], "a prefix's, whosever it is");
    assert_eq!(price("10.2.0.0/16"), per_second(10), "another tenant within it has what all have");
}
