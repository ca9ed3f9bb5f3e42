//! What guarantees come to, and in which class a source is: by hand.

use super::*;
use crate::policy::{compile, layout::Layout, parse, sources};
use throttle_common::{connections::PLACE, records::name_str};

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
fn a_tenants_own_value_counts_in_the_sum() {
    let tight = NESTED.replace("concurrent = 200", "concurrent = 70");
    assert!(parse(&tight).is_ok(), "twenty at the service, twenty and thirty beside it");
    let faults = parse(&tight.replace("concurrent = 70", "concurrent = 69")).unwrap_err().to_string();
    assert!(faults.contains("limit \"host\"") && faults.contains("come to 70, more than 69 at once"), "{faults}");
    let over = parse(&NESTED.replace("guarantee = 40", "guarantee = 61")).unwrap_err().to_string();
    assert!(over.contains("61 are guaranteed of a limit of 60 at once"), "{over}");
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
