//! How an explanation reads.

use throttle_agent::api::wire::{
    AskedPacket, ConnectionsWalk, Event, GuaranteeWalk, HealthLine, OpenConnection, PenaltyWalk, Standing, WindowWalk,
};

use super::{
    super::{
        fixtures::health_line,
        walk::{besides, bucket},
    },
    *,
};

fn limit(name: &str, room: u64, refusal: bool) -> LimitWalk {
    let rest = if refusal { 0.7999 } else { 0.0 };
    LimitWalk {
        limit: name.to_owned(),
        asked: true,
        unenforced: None,
        unit: "connections".to_owned(),
        algorithm: "token-bucket".to_owned(),
        window: None,
        speed: None,
        rate_per_second: Some(50.0),
        open: None,
        connections: None,
        burst: 100,
        mode: Mode::Enforce,
        source: "203.0.113.7/32".parse().unwrap(),
        narrowed_from: None,
        guarantee: None,
        penalty: None,
        overridden_for: None,
        leased: None,
        shared_by: None,
        aggregate: "203.0.113.0/24".parse().unwrap(),
        bucket: "own".to_owned(),
        room,
        debt_seconds: 2.0,
        refusal: refusal.then(|| "source-limit".to_owned()),
        passes_at: Some("2026-11-24T14:03:22.1Z".parse().unwrap()),
        passes_in_seconds: Some(rest),
    }
}

fn explanation() -> Explanation {
    let refusing = limit("new-connections", 0, true);
    let walk = Walk {
        packet: AskedPacket { protocol: Protocol::Tcp, to: None, port: Some(443), length: 74, opens_connection: true },
        service: Some("web".to_owned()),
        health: None,
        outcome: "reject".to_owned(),
        page: false,
        reason: "source-limit".to_owned(),
        limit: Some("new-connections".to_owned()),
        passes_at: refusing.passes_at,
        passes_in_seconds: refusing.passes_in_seconds,
        breakers: Vec::new(),
        limits: vec![limit("packets", 60, false), refusing, limit("last", 7, false)],
    };
    Explanation {
        source: "203.0.113.7".parse().unwrap(),
        at: "2026-11-24T14:03:21.3Z".parse().unwrap(),
        revision: 3,
        mode: Mode::Enforce,
        standing: Standing::default(),
        walks: vec![walk],
        walks_left_out: 0,
        refusals: Vec::new(),
    }
}

#[test]
fn what_the_health_of_the_service_decides_stands_above_its_limits() {
    let mut explanation = explanation();
    explanation.walks[0].health = Some(health_line());
    let text = render(&explanation, Paint::PLAIN);
    let expected = "\
service web, 74 B
  health              follows latency, window 38 of 200, speed 0.5, breaker half open; requests wait too long: it shrinks
                      backends: 1 of 2 well, the worst web-2 suspect, suspicion 2.1
";
    assert!(text.contains(expected), "{text}");
    let all_well = HealthLine { backends_well: 2, ..health_line() };
    explanation.walks[0].health = Some(all_well);
    let text = render(&explanation, Paint::PLAIN);
    assert!(text.contains("backends: 2 of 2 well\n") && !text.contains("worst"), "{text}");
}

#[test]
fn the_answer_comes_first_then_what_to_do_then_the_walk() {
    let expected = "\
203.0.113.7: the next TCP connection to web (port 443) is refused by limit new-connections, and its sender told so, until 14:03:22.100Z, in 800 ms
to let it pass now: `throttle allow add 203.0.113.7`; to see the limit: `throttle limit show new-connections`

asked at  14:03:21.300Z, revision 3
source    not allowed, not blocked, not known, no handshake within the hour

service web, 74 B
  packets             50/s, burst 100; the bucket of 203.0.113.7: room for 60 of 100, it is full again in 2 s
                      admits it
  new-connections     50/s, burst 100; the bucket of 203.0.113.7: room for 0 of 100, it is full again in 2 s
                      refuses it until 14:03:22.100Z, in 800 ms
  last                50/s, burst 100; the bucket of 203.0.113.7: room for 7 of 100, it is full again in 2 s
                      admits it (not asked: it is decided before)

no refusal of it is remembered; what is, is sampled
";
    assert_eq!(render(&explanation(), Paint::PLAIN), expected);
}

#[test]
fn what_passes_says_which_limit_is_nearest() {
    let mut passes = explanation();
    let walk = passes.walks.remove(0);
    passes.walks = vec![Walk { outcome: "pass".to_owned(), reason: "admitted".to_owned(), limit: None, ..walk }];
    passes.walks[0].limits = vec![limit("packets", 60, false), limit("last", 7, false)];
    let first = render(&passes, Paint::PLAIN).lines().next().unwrap().to_owned();
    assert_eq!(
        first,
        "203.0.113.7: the next TCP connection to web (port 443) passes; limit last has room for 7 of 100"
    );
}

#[test]
fn what_cpus_have_taken_ahead_is_told_beside_the_room() {
    let mut explanation = explanation();
    explanation.walks[0].limits = vec![LimitWalk { leased: Some(12), ..limit("packets", 60, false) }];
    let page = render(&explanation, Paint::PLAIN);
    let expected = "room for 60 of 100 and for 12 that CPUs have taken ahead, it is full again in 2 s";
    assert!(page.contains(expected), "{page}");
}

#[test]
fn a_block_says_who_set_it_why_and_how_to_end_it() {
    let mut blocked = explanation();
    blocked.standing.blocked = Some(BlockedBy {
        prefix: "203.0.113.0/24".parse().unwrap(),
        until: None,
        reason: Some("scans ports".to_owned()),
        author: Some("alice".to_owned()),
    });
    let walk = &mut blocked.walks[0];
    (walk.outcome, walk.reason) = ("drop".to_owned(), "blocked".to_owned());
    (walk.limit, walk.passes_at, walk.passes_in_seconds) = (None, None, None);
    let page = render(&blocked, Paint::PLAIN);
    assert!(page.starts_with(
        "203.0.113.7: the next TCP connection to web (port 443) is refused by the block of 203.0.113.0/24, for ever\n"
    ));
    assert!(page.contains(
        "source    blocked by 203.0.113.0/24 for ever, added by alice: scans ports (`throttle block delete 203.0.113.0/24` ends it)\n"
    ));
    assert_eq!(page.matches("(not asked: it is decided before)").count(), 3, "{page}");
}

#[test]
fn a_source_hears_how_near_it_is_to_a_penalty_and_what_it_was_sentenced_to() {
    let mut explanation = explanation();
    let penalty =
        PenaltyWalk { after: 100, within_seconds: 10.0, refused: 37, forgotten_in_seconds: 4.0, unproven: false };
    explanation.walks[0].limits = vec![LimitWalk { penalty: Some(penalty), ..limit("opens", 0, true) }];
    let at = explanation.at;
    let sentence = SentenceView {
        limit: "opens".to_owned(),
        prefix: "203.0.113.7/32".parse().unwrap(),
        times: 3,
        since: at,
        until: at + jiff::SignedDuration::from_secs(240),
        forgotten: at + jiff::SignedDuration::from_secs(3_840),
        observed: false,
    };
    let over = SentenceView { times: 1, until: at, observed: true, ..sentence.clone() };
    explanation.standing.sentences = vec![sentence, over];
    let page = render(&explanation, Paint::PLAIN);
    for line in [
        "source    sentenced as 203.0.113.7 by limit opens, for the 3rd time, until 2026-11-24 14:07:21Z; forgotten at",
        "          would be sentenced as 203.0.113.7 by limit opens, for the 1st time, which ended at",
        "penalty: 37 of 100 refusals in 10 s, forgotten in 4 s; only those of a proven or known source count\n",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
}

#[test]
fn what_never_passes_says_why() {
    let mut never = explanation();
    let walk = &mut never.walks[0];
    (walk.passes_at, walk.passes_in_seconds) = (None, None);
    (walk.limits[1].passes_at, walk.limits[1].passes_in_seconds) = (None, None);
    let page = render(&never, Paint::PLAIN);
    assert!(page.contains("told so, for ever\n") && page.contains("costs more than the burst"), "{page}");
}

/// An explanation of a connection that this breaker keeps away.
fn kept_away(breaker: BreakerWalk) -> Explanation {
    let mut explanation = explanation();
    let walk = &mut explanation.walks[0];
    (walk.reason, walk.limit) = ("breaker-open".to_owned(), None);
    (walk.passes_at, walk.passes_in_seconds) = (breaker.tries_at, breaker.tries_in_seconds);
    walk.breakers = vec![breaker];
    explanation
}

fn breaker(state: &str) -> BreakerWalk {
    BreakerWalk {
        service: Some("web".to_owned()),
        backend: None,
        address: None,
        state: state.to_owned(),
        held_by: None,
        shared_with: Vec::new(),
        trials_left: None,
        refuses: true,
        tries_at: Some("2026-11-24T14:03:26.3Z".parse().unwrap()),
        tries_in_seconds: Some(5.0),
    }
}

#[test]
fn a_breaker_is_named_with_its_state_and_when_it_tries_again() {
    let page = kept_away(breaker("open"));
    let told = render(&page, Paint::PLAIN);
    let expected = "\
203.0.113.7: the next TCP connection to web (port 443) is refused by the breaker of web, which is open (`throttle health web` \
says why), and its sender told so, until 14:03:26.300Z, in 5 s
to let all connections pass whatever fails: `throttle breaker close web`
";
    assert!(told.starts_with(expected), "{told}");
    let step = "\
service web, 74 B
  breaker             web: open
                      refuses it until 14:03:26.300Z, in 5 s; then it tries again
";
    assert!(told.contains(step), "{told}");
    assert_eq!(told.matches("(not asked: it is decided before)").count(), 3, "{told}");
    let observes = render(&Explanation { mode: Mode::Observe, ..page }, Paint::PLAIN);
    assert!(observes.contains("would refuse it until 14:03:26.300Z, in 5 s; then it tries again\n"), "{observes}");
}

#[test]
fn the_breaker_of_a_backend_is_named_by_its_service_and_its_address() {
    let (backend, address) = (Some("web-1".to_owned()), Some("192.0.2.9:443".parse().unwrap()));
    let told = render(&kept_away(BreakerWalk { backend, address, ..breaker("open") }), Paint::PLAIN);
    assert!(told.contains("is refused by the breaker of web/web-1 (192.0.2.9:443), which is open "), "{told}");
    assert!(told.contains("  breaker             web/web-1: open\n"), "{told}");
    let shared_with = vec!["api/api-1".to_owned()];
    let shared = BreakerWalk { backend: Some("web-1".to_owned()), address, shared_with, ..breaker("open") };
    let told = render(&kept_away(shared), Paint::PLAIN);
    assert!(told.contains("  breaker             web/web-1 (shared with api/api-1): open\n"), "{told}");
    // One that the agent does not know yet, because it has just been started.
    let told = render(&kept_away(BreakerWalk { service: None, address, ..breaker("open") }), Paint::PLAIN);
    assert!(told.contains("is refused by the breaker of the backend at 192.0.2.9:443, which is open "), "{told}");
}

#[test]
fn a_breaker_that_is_held_open_says_who_holds_it_and_how_that_ends() {
    let held_by = Some("alice".to_owned());
    let held = BreakerWalk { held_by, tries_at: None, tries_in_seconds: None, ..breaker("held-open") };
    let told = render(&kept_away(held), Paint::PLAIN);
    assert!(told.contains(
        "the breaker of web, which alice holds open, and its sender told so, until `throttle breaker auto web`\n"
    ));
    assert!(
        told.contains("web: held open by alice\n                      refuses it until `throttle breaker auto web`\n")
    );
}

#[test]
fn a_half_open_breaker_says_how_many_trials_are_left() {
    let half = |left, refuses| BreakerWalk { trials_left: Some(left), refuses, ..breaker("half-open") };
    let told = render(&kept_away(half(0, true)), Paint::PLAIN);
    assert!(told.contains("web: half open, with all trials of this round under way\n"), "{told}");
    let mut passes = explanation();
    passes.walks[0].breakers = vec![half(3, false), BreakerWalk { refuses: false, ..breaker("closed") }];
    let told = render(&passes, Paint::PLAIN);
    let step = "\
  breaker             web: half open, with 3 trials left in this round
                      admits it, as a trial
  packets ";
    assert!(told.contains(step), "one that is closed is not worth a line: {told}");
}

#[test]
fn a_limit_that_the_kernel_does_not_ask_says_why() {
    let why = Some("what leaves by eth0 is not seen".to_owned());
    let mut page = explanation();
    let walk = &mut page.walks[0];
    (walk.outcome, walk.reason, walk.limit) = ("pass".to_owned(), "admitted".to_owned(), None);
    walk.limits = vec![LimitWalk { asked: false, unenforced: why, open: Some(0), ..limit("open", 3, false) }];
    let told = render(&page, Paint::PLAIN);
    let first = "203.0.113.7: the next TCP connection to web (port 443) passes; no limit has a say in it; limit open is not enforced\n";
    assert!(told.starts_with(first), "{told}");
    assert!(told.contains("                      is not enforced: what leaves by eth0 is not seen\n"), "{told}");
}

#[test]
fn what_a_limit_refused_that_is_gone_is_marked() {
    let past = |limit: &str, limit_is_gone| PastRefusal {
        event: Event {
            time: "2026-11-24T14:00:00Z".parse().unwrap(),
            reason: "source-limit".to_owned(),
            outcome: "drop".to_owned(),
            source: Some("203.0.113.7".parse().unwrap()),
            destination: None,
            source_port: None,
            destination_port: None,
            protocol: None,
            limit: Some(limit.to_owned()),
            service: None,
            interface: "eth0".to_owned(),
            length: 60,
        },
        limit_is_gone,
    };
    let page = Explanation { refusals: vec![past("new", false), past("old", true)], ..explanation() };
    let told = render(&page, Paint::PLAIN);
    let last = "\
  14:00:00.000Z  drop  source-limit of new  203.0.113.7  60 B on eth0
  14:00:00.000Z  drop  source-limit of old  203.0.113.7  60 B on eth0  (this limit is gone)
";
    assert!(told.ends_with(last), "{told}");
}

#[test]
fn no_limit_seems_to_refuse_where_the_whole_host_observes() {
    let mut page = Explanation { mode: Mode::Observe, ..explanation() };
    page.walks[0].outcome = "observe".to_owned();
    let told = render(&page, Paint::PLAIN);
    assert!(told.contains("passes, and is observed, though limit new-connections would refuse it\n"), "{told}");
    assert!(told.contains("                      would refuse it until 14:03:22.100Z, in 800 ms\n"), "{told}");
}

#[test]
fn open_connections_are_counted_and_wait_for_one_to_close() {
    let mut full = explanation();
    let walk = &mut full.walks[0];
    let held = LimitWalk { open: Some(50), burst: 50, rate_per_second: None, ..limit("open", 0, true) };
    walk.limits = vec![LimitWalk { passes_at: None, passes_in_seconds: None, ..held }];
    (walk.reason, walk.limit) = ("connection-limit".to_owned(), Some("open".to_owned()));
    (walk.passes_at, walk.passes_in_seconds) = (None, None);
    let page = render(&full, Paint::PLAIN);
    assert!(page.contains("is refused by limit open, and its sender told so, until one of its connections closes\n"));
    assert!(page.contains("  open                connections of 203.0.113.7: 50 of 50 open\n"), "{page}");
}

#[test]
fn handshakes_under_way_and_the_connections_themselves_are_told() {
    let peer = |port| ([203, 0, 113, 7], port).into();
    let listed = |port, shared| OpenConnection { peer: peer(port), port: 443, counted_seconds: 12.0, shared };
    let held = |under_way, doubted| ConnectionsWalk {
        under_way,
        doubted,
        listed: vec![listed(40_001, false), listed(40_002, true)],
        left_out: 7,
    };
    let full = LimitWalk { open: Some(0), burst: 20, connections: Some(held(20, false)), ..limit("open", 0, true) };
    assert_eq!(bucket(&full), "connections of 203.0.113.7: 0 of 20 open, 20 handshakes under way");
    let mut page = explanation();
    page.walks[0].limits = vec![full.clone()];
    let page = render(&page, Paint::PLAIN);
    let lines = [
        "from 203.0.113.7:40001 to port 443, counted for 12 s\n",
        "from 203.0.113.7:40002 to port 443, counted for 12 s, in its aggregate\n",
        "and 7 more\n",
        "refuses it until ",
    ];
    assert!(page.contains(&lines.map(|line| format!("                      {line}")).concat()), "{page}");
    let doubted = LimitWalk { connections: Some(held(1, true)), ..full };
    assert!(bucket(&doubted).ends_with("1 handshake under way, not counted because some are never completed"));
}

#[test]
fn a_source_without_a_place_is_told_so() {
    let mut page = explanation();
    let walk = &mut page.walks[0];
    let shared = LimitWalk { open: Some(4), burst: 4, bucket: "shared".to_owned(), ..limit("open", 0, true) };
    let refusal = Some("source-overflow".to_owned());
    walk.limits = vec![LimitWalk { refusal, passes_at: None, passes_in_seconds: None, ..shared }];
    (walk.reason, walk.limit) = ("source-overflow".to_owned(), Some("open".to_owned()));
    (walk.passes_at, walk.passes_in_seconds) = (None, None);
    let told = render(&page, Paint::PLAIN);
    assert!(told.contains("no place for 203.0.113.7, it shares those of 203.0.113.0/24: 4 of 4 open\n"), "{told}");
    assert_eq!(told.matches("until connections of others close and leave it a place\n").count(), 2, "{told}");
    let walk = &mut page.walks[0];
    (walk.outcome, walk.reason) = ("pass".to_owned(), "admitted".to_owned());
    (walk.limits[0].bucket, walk.limits[0].refusal) = ("absent".to_owned(), None);
    let told = render(&page, Paint::PLAIN);
    assert!(told.contains("; limit open has no place for it, and lets it pass uncounted\n"), "{told}");
}

#[test]
fn a_window_is_told_by_what_is_used_of_it_and_when_it_ends() {
    let window = |used_before| {
        let ends_at = "2026-11-24T14:03:33.3Z".parse().unwrap();
        Some(WindowWalk { seconds: 60.0, ends_at, ends_in_seconds: 12.0, used: 37, used_before })
    };
    let fixed = LimitWalk { window: window(None), ..limit("fixed", 63, false) };
    assert_eq!(
        bucket(&fixed),
        "100 in each window of 1 min; the bucket of 203.0.113.7: 37 of 100 used, the window ends in 12 s"
    );
    let sliding = LimitWalk { window: window(Some(80)), ..limit("sliding", 47, false) };
    assert_eq!(
        bucket(&sliding),
        "100 in a sliding window of 1 min; the bucket of 203.0.113.7: 37 used in the window that ends in 12 s, 80 in the one \
         before; room for 47 of 100"
    );
    let leaky = LimitWalk { algorithm: "leaky-bucket".to_owned(), ..limit("leaky", 0, true) };
    assert!(bucket(&leaky).starts_with("50/s, no burst; "), "{}", bucket(&leaky));
}

#[test]
fn a_guarantee_and_an_override_are_told_beside_their_limit() {
    let within = GuaranteeWalk { rate_per_second: Some(20.0), burst: 20, room: 7, within: true };
    let told = LimitWalk {
        guarantee: Some(within.clone()),
        overridden_for: Some("tenant gold".to_owned()),
        ..limit("tenants", 3, false)
    };
    let expected = "20/s guaranteed: room for 7 of 20, and so for this one, whatever others take; \
                    by the override for tenant gold";
    assert_eq!(besides(&told).as_deref(), Some(expected));
    let reserved = GuaranteeWalk { rate_per_second: None, room: 0, within: false, ..within };
    let told = LimitWalk { guarantee: Some(reserved), ..limit("open", 3, false) };
    assert_eq!(besides(&told).as_deref(), Some("20 connections are reserved, 0 of them free"));
    assert_eq!(besides(&limit("plain", 3, false)), None);
}
