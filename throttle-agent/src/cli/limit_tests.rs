use super::{
    super::{fixtures, output::Paint},
    *,
};
use throttle_agent::{
    api::wire::{GuaranteeView, LimitView, RegionLoad, SentenceCounts, Tallies, Tally},
    policy::{Limit, Override, Penalty, units::Span},
};

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

#[test]
fn flags_say_what_is_changed_and_nothing_else() {
    let set = Set { name: "web".to_owned(), rate: Some(rate("60/min")), enforce: true, ..Set::default() };
    let expected = LimitChange { rate: Some(rate("60/min")), mode: Some(Mode::Enforce), ..LimitChange::default() };
    assert_eq!(set.change(), expected);
}

#[test]
fn a_list_shows_what_each_limit_did() {
    let region = |family, occupancy| RegionLoad { occupancy, ..fixtures::region(family) };
    let packets = |packets| Tally { packets, bytes: 74 * packets };
    let limits = [
        LimitView {
            speed: 1.0,
            limit: Limit::new("new-connections", Unit::Connections, rate("50/min")),
            host_observes: false,
            open: None,
            reserved: None,
            guarantee: None,
            sentences: None,
            burst: 50,
            number: 0,
            tallies: Tallies { admitted: packets(1234), refused: packets(1_000_000), ..Tallies::default() },
            regions: vec![region("ipv4", 0.034), region("ipv6", 0.0)],
        },
        LimitView {
            speed: 1.0,
            limit: Limit { mode: Mode::Observe, ..Limit::new("all", Unit::Bytes, rate("1000B/s")) },
            host_observes: false,
            open: None,
            reserved: None,
            guarantee: None,
            sentences: None,
            burst: 65_536,
            number: 1,
            tallies: Tallies { observed: packets(5), ..Tallies::default() },
            regions: vec![region("ipv4", 0.8), region("ipv6", 0.0)],
        },
    ];
    let expected = "\
LIMIT            UNIT            RATE   BURST  ACTION  MODE     ADMITTED  REFUSED  OBSERVED  BUSY V4  BUSY V6
new-connections  connections   50/min      50  drop    enforce      1234       1M              3.4 %      0 %
all              bytes        1000B/s  64 KiB  drop    observe         0        0         5     80 %      0 %
";
    assert_eq!(render(&limits, Paint::PLAIN), expected);
}

#[test]
fn a_limit_does_not_seem_to_refuse_where_the_whole_host_observes() {
    let view = |mode| LimitView {
        speed: 1.0,
        limit: Limit { mode, ..Limit::new("all", Unit::Packets, rate("50/s")) },
        host_observes: true,
        open: None,
        reserved: None,
        guarantee: None,
        sentences: None,
        burst: 50,
        number: 0,
        tallies: Tallies::default(),
        regions: Vec::new(),
    };
    let expected = "\
LIMIT  UNIT     RATE  BURST  ACTION  MODE            ADMITTED  REFUSED
all    packets  50/s     50  drop    observe (host)         0        0
all    packets  50/s     50  drop    observe                0        0
";
    assert_eq!(render(&[view(Mode::Enforce), view(Mode::Observe)], Paint::PLAIN), expected);
    let told = describe(&view(Mode::Enforce));
    assert!(
        told.contains("refuses by  drop, mode enforce; but the whole host observes, and refuses nothing\n"),
        "{told}"
    );
    let told = describe(&view(Mode::Observe));
    assert!(told.contains("refuses by  drop, mode observe\n"), "{told}");
}

#[test]
fn a_limit_is_shown_with_what_the_policy_leaves_out() {
    let view = LimitView {
        speed: 1.0,
        limit: Limit { service: Some("web".to_owned()), ..Limit::new("new", Unit::Connections, rate("50/min")) },
        host_observes: false,
        open: None,
        reserved: None,
        guarantee: None,
        sentences: None,
        burst: 50,
        number: 0,
        tallies: Tallies { refused: Tally { packets: 3, bytes: 222 }, ..Tallies::default() },
        regions: vec![fixtures::region("ipv4")],
    };
    let expected = "\
limit       new
counts      connections of service web
admits      50/min and 50 (by default) at once, for each source
algorithm   token-bucket
refuses by  drop, mode enforce
ipv4        a source is a /32; 8913 of 262k places busy (3.4 %), 197k of them open to any source; a flood of 24.9k/s fills those
            a source without a place: shares the bucket of its /24
admitted    0 packets, 0 B
refused     3 packets, 222 B
";
    assert!(describe(&view).starts_with(expected), "{}", describe(&view));
}

#[test]
fn a_guarantee_is_told_beside_its_limit_and_not_as_another() {
    let limit = Limit {
        per: Per::Tenant,
        guarantee: Some("10/min".parse().unwrap()),
        overrides: vec![Override {
            tenant: Some("gold".to_owned()),
            guarantee: Some("20/min".parse().unwrap()),
            ..Override::default()
        }],
        ..Limit::new("tenants", Unit::Packets, rate("50/min"))
    };
    let tallies = Tallies { admitted: Tally { packets: 3, bytes: 222 }, ..Tallies::default() };
    let view = LimitView {
        speed: 1.0,
        limit,
        host_observes: false,
        open: None,
        reserved: None,
        guarantee: Some(GuaranteeView { burst: 10, open: None, tallies }),
        sentences: None,
        burst: 50,
        number: 0,
        tallies,
        regions: Vec::new(),
    };
    let told = describe(&view);
    let guarantee = "guarantees  10/min and 10 at once, for each tenant, whatever others take; what is not used is lent\n\
                     override    tenant gold: 50/min, 20/min guaranteed\n";
    assert!(told.contains(guarantee) && told.contains("guaranteed  3 packets, 222 B\n"), "{told}");
    let list = render(&[view], Paint::PLAIN);
    assert!(list.starts_with("LIMIT    PER     UNIT       RATE  BURST  GUARANTEE  OVERRIDES"), "{list}");
}

#[test]
fn a_penalty_is_told_with_what_came_of_it() {
    let penalty = Penalty { at_most: Span::of_seconds(7_200), ..Penalty::new(100, Span::of_seconds(10)) };
    let limit = Limit { penalty: Some(penalty), ..Limit::new("opens", Unit::Connections, rate("50/min")) };
    let view = LimitView {
        speed: 1.0,
        limit,
        host_observes: false,
        open: None,
        reserved: None,
        guarantee: None,
        sentences: Some(SentenceCounts { sentenced: 7, observed: 2 }),
        burst: 50,
        number: 0,
        tallies: Tallies::default(),
        regions: Vec::new(),
    };
    let told = describe(&view);
    let penalty = "penalty     a proven source that is refused 100 times in 10s is blocked for 1m, twice as long each time up to 2h\n\
                   \x20           7 blocked by it, 2 that would have been\n";
    assert!(told.contains(penalty), "{told}");
    let list = render(&[view], Paint::PLAIN);
    assert!(list.contains("SENTENCED") && list.contains('9'), "{list}");
}
