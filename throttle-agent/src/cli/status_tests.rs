use super::{super::fixtures, *};
use throttle_agent::{
    api::wire::{
        Attachment, Build, Connections, LimitView, LossCounts, PageCounts, PenaltyCounts, Pending, ReasonCount,
        RegionLoad, SessionAllow, SpeedView, Table as Room, Tallies, Tally,
    },
    policy::Limit,
};
use throttle_common::words::Unit;

fn now() -> Timestamp {
    "2026-11-23T19:00:00Z".parse().unwrap()
}

fn status() -> Status {
    let region =
        |family, prefix, aggregate| RegionLoad { prefix, aggregate, aggregates_busy: 12, ..fixtures::region(family) };
    let reason = |reason: &str, outcome: &str, packets| ReasonCount {
        reason: reason.to_owned(),
        outcome: outcome.to_owned(),
        packets,
        bytes: 74 * packets,
    };
    Status {
        problems: Vec::new(),
        warnings: Vec::new(),
        mode: Mode::Enforce,
        revision: 7,
        pending: None,
        session_allows: Vec::new(),
        attachments: vec![Attachment {
            interface: "eth0".to_owned(),
            attached: true,
            mode: Some("native".to_owned()),
            egress: Some("tcx".to_owned()),
            driver: Some("ixgbe".to_owned()),
            problem: None,
        }],
        ends_with_agent: false,
        sockets_unwatched: None,
        connections: None,
        table: Room { sets: 1 << 20, sets_used: 131_072, bytes: 72 << 20 },
        health: Vec::new(),
        health_transitions: 0,
        health_notices_lost: 0,
        speeds: Vec::new(),
        limits: vec![LimitView {
            speed: 1.0,
            limit: Limit::new("new-connections", Unit::Connections, "50/min".parse().unwrap()),
            host_observes: false,
            open: None,
            reserved: None,
            guarantee: None,
            sentences: None,
            burst: 50,
            number: 0,
            tallies: Tallies {
                admitted: Tally { packets: 1234, bytes: 91_316 },
                refused: Tally { packets: 1_020_000, bytes: 75_480_000 },
                ..Tallies::default()
            },
            regions: vec![region("ipv4", 32, 24), region("ipv6", 64, 48)],
        }],
        reasons: vec![reason("admitted", "pass", 5_120_000), reason("source-limit", "drop", 1_020_000)],
        losses: LossCounts::default(),
        pages: PageCounts::default(),
        penalties: PenaltyCounts::default(),
        blocks: 3,
        started: "2026-11-23T15:48:00Z".parse().unwrap(),
        build: Build { version: "0.1.0".to_owned(), layout: 1, object_digest: "c0ffee".to_owned() },
        capabilities: vec!["CAP_BPF".to_owned(), "CAP_NET_ADMIN".to_owned()],
    }
}

#[test]
fn a_healthy_host_fits_on_one_screen() {
    let expected = "\
throttle 0.1.0: healthy, enforcing, revision 7, up 3 h 12 min

INTERFACE  STATE     XDP MODE
eth0       attached  native

LIMIT            UNIT           RATE  BURST  ACTION  MODE     ADMITTED  REFUSED  BUSY V4  BUSY V6
new-connections  connections  50/min     50  drop    enforce      1234    1.02M    3.4 %    3.4 %

REASON        OUTCOME  PACKETS    BYTES
admitted      pass       5.12M  361 MiB
source-limit  drop       1.02M   72 MiB

table: 131k of 1.05M sets belong to limits, 72 MiB of memory; timed blocks: 3
";
    assert_eq!(render(&status(), false, now(), Paint::PLAIN), expected);
}

#[test]
fn what_is_wrong_comes_first() {
    let status = Status {
        problems: vec!["eth1 is not there; it is attached when it returns".to_owned()],
        warnings: vec!["limit `web`: one source carries it".to_owned()],
        mode: Mode::Observe,
        pending: Some(Pending { revision: 7, back_to: 6, deadline: "2026-11-23T19:00:42Z".parse().unwrap() }),
        session_allows: vec![SessionAllow {
            prefix: "192.0.2.7/32".parse().unwrap(),
            until: "2026-11-23T20:00:00Z".parse().unwrap(),
            author: "root".to_owned(),
        }],
        attachments: vec![
            Attachment {
                interface: "eth0".to_owned(),
                attached: true,
                mode: Some("generic".to_owned()),
                egress: Some("tcx".to_owned()),
                driver: None,
                problem: Some("generic mode is slow; the driver has no native XDP".to_owned()),
            },
            Attachment {
                interface: "eth1".to_owned(),
                attached: false,
                mode: None,
                egress: None,
                driver: None,
                problem: None,
            },
        ],
        limits: Vec::new(),
        reasons: Vec::new(),
        ..status()
    };
    let expected = "\
throttle 0.1.0: 1 problem, observing, revision 7, up 3 h 12 min
  ! eth1 is not there; it is attached when it returns
  * limit `web`: one source carries it
  * revision 7 goes back to 6 in 42 s (at 2026-11-23 19:00:42Z) unless `throttle policy confirm` follows
  * this host only observes: nothing is refused until `throttle mode enforce`
  * the SSH session of root from 192.0.2.7 stays allowed for 1 h

INTERFACE  STATE         XDP MODE  NOTE
eth0       attached      generic   generic mode is slow; the driver has no native XDP
eth1       not attached

no frame has been seen yet

table: 131k of 1.05M sets belong to limits, 72 MiB of memory; timed blocks: 3
";
    assert_eq!(render(&status, false, now(), Paint::PLAIN), expected);
}

#[test]
fn a_clock_that_runs_slower_is_not_forgotten() {
    let speed = SpeedView { service: Some("web".to_owned()), speed: 0.5, ..SpeedView::default() };
    let text = render(&Status { speeds: vec![speed], ..status() }, false, now(), Paint::PLAIN);
    let note = "  * the clock of web runs at 0.5: its limits admit 50 % of their rates, and what was used of them takes 2 times as long to come back\n";
    assert!(text.contains(note), "{text}");
}

#[test]
fn the_verbose_screen_adds_regions_and_privileges() {
    let text = render(&status(), true, now(), Paint::PLAIN);
    let region = "\
LIMIT            FAMILY  PREFIX  AGGREGATE  SLOTS  BUSY  AGGREGATES BUSY  BUSY FOR  FULL AT
new-connections  ipv4       /32        /24   262k  8913               12     1.2 s  24.9k/s
";
    assert!(text.contains(region), "{text}");
    assert!(text.contains("capabilities: CAP_BPF CAP_NET_ADMIN\n"), "{text}");
}

#[test]
fn on_a_veth_reject_needs_something_of_the_other_end() {
    let mut status = status();
    let said = |status: &Status| render(status, false, now(), Paint::PLAIN).contains("eth0 is a veth");
    status.attachments[0].driver = Some("veth".to_owned());
    assert!(!said(&status), "nothing answers here");
    status.limits[0].limit.action = Action::Reject;
    assert!(said(&status));
    status.attachments[0].driver = Some("ixgbe".to_owned());
    assert!(!said(&status), "hardware sends what it is told to");
}

#[test]
fn it_is_said_by_what_open_connections_are_counted() {
    let said = |connections| {
        let status = Status { connections, ..status() };
        render(&status, false, now(), Paint::PLAIN)
    };
    assert!(!said(None).contains("open connections"), "no limit counts them");
    let own = Connections { mended_open: 2, ..Connections::default() };
    assert!(said(Some(own)).ends_with("\nopen connections are counted by this host's sockets; mended: 2\n"));
    let forwarded = vec!["web".to_owned(), "mail".to_owned()];
    let text = said(Some(Connections { forwarded, forgotten_idle: 7, ..Connections::default() }));
    let expected = "open connections are counted by their packets (tcx) for web, mail, by this host's sockets for all others; \
                    mended: 0; 7 forgotten for their silence\n";
    assert!(text.ends_with(expected), "{text}");
}
