use throttle_agent::api::wire::{RefusedDatagrams, StampChange, StampDatagrams, StampExchanges, StampPolicy};

use super::{
    super::output::{Color, Output},
    *,
};

fn host(name: &str, state: &str, policy: &str) -> StampHostView {
    StampHostView {
        host: name.to_owned(),
        address: "10.0.0.1:7946".to_owned(),
        own: name == "a",
        state: state.to_owned(),
        since_seconds: 75.4,
        suspicion: 0.84,
        build: Some("0.1.0".to_owned()),
        program: Some("0011223344556677".to_owned()),
        revision: Some(7),
        policy: Some(policy.to_owned()),
        mode: Some("enforce".to_owned()),
        load: Some(0.25),
        packets_per_second: Some(1200.0),
        refused_per_second: Some(0.0),
        keys: vec!["aabbccdd".to_owned(), "00112233".to_owned()],
        ..StampHostView::default()
    }
}

fn view() -> StampView {
    let refused = |reason: &str, datagrams| RefusedDatagrams { reason: reason.to_owned(), datagrams };
    StampView {
        stamp: "blue".to_owned(),
        host: "a".to_owned(),
        warnings: vec!["b has another policy in force, 89abcdef: most have 01234567 for 12 s".to_owned()],
        hosts: vec![host("a", "alive", "0123456789abcdef"), host("b", "dead", "89abcdef01234567")],
        skew: Vec::new(),
        keys: vec!["aabbccdd".to_owned()],
        datagrams: StampDatagrams {
            sent: 30,
            unsent: 0,
            received: 20,
            refused: vec![refused("forged", 3), refused("x", 0)],
        },
        changes: vec![StampChange {
            time: "2026-11-24T20:00:30Z".parse().unwrap(),
            host: "b".to_owned(),
            message: "is dead".to_owned(),
        }],
        exchanges: StampExchanges::default(),
        policy: StampPolicy::default(),
    }
}

#[test]
fn hosts_are_listed_one_a_line_with_what_is_wrong_above() {
    let expected = "\
stamp blue, as a sees it: 1 alive, 1 dead
  * b has another policy in force, 89abcdef: most have 01234567 for 12 s

HOST      ADDRESS        STATE         FOR  BUILD  PROGRAM   POLICY    REVISION  MODE     KEY       LOAD  PACKETS  REFUSED
a (this)  10.0.0.1:7946  alive  1 min 15 s  0.1.0  00112233  01234567         7  enforce  aabbccdd  25 %   1.2k/s      0/s
b         10.0.0.1:7946  dead   1 min 15 s  0.1.0  00112233  89abcdef         7  enforce  aabbccdd

last changes, the newest first
  20:00:30.0Z b is dead

datagrams: 30 sent, 20 received and counted, 3 forged
";
    assert_eq!(render(&view(), true, Paint::PLAIN), expected);
}

#[test]
fn one_that_differs_is_marked_and_one_that_lives_is_weighed() {
    let mut view = view();
    view.hosts[1].state = "suspect".to_owned();
    view.skew = vec![SkewView {
        subject: "policy".to_owned(),
        host: "b".to_owned(),
        has: "89abcdef01234567".to_owned(),
        most: None,
        since_seconds: 12.0,
    }];
    let text = hosts(&view, Paint::PLAIN);
    assert!(text.contains("SUSPICION") && text.contains("0.8"), "{text}");
    let painted_by = Output::new(false, Color::Always).paint;
    let painted = hosts(&view, painted_by);
    assert!(painted.contains(&painted_by.warning("89abcdef")), "{painted}");
}

#[test]
fn keys_are_listed_with_their_use() {
    let names = ["aabbccdd", "00112233"].map(str::to_owned);
    let expected = "\
KEY       USE
aabbccdd  seals and opens
00112233  opens
";
    assert_eq!(listed(&names, Paint::PLAIN), expected);
}
