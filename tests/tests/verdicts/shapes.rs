//! Every shape that is read is limited; every other has a reason of its own, whose fate policy chooses.

use super::{Case, ONE_A_MINUTE, Step, passes, refused, show, step};
use anyhow::Result;
use throttle_common::{
    packet::{protocol, tcp},
    words::{Outcome, Reason},
};
use throttle_tests::{frames::Frame, needs_root};

const V4: &str = "198.51.100.7";
const V6: &str = "2001:db8:7::7";

#[test]
fn every_shape_that_is_read_is_limited() -> Result<()> {
    needs_root!();
    let extended = || {
        let walked = Frame::from(V6).extension(protocol::HOP_BY_HOP, 8).extension(protocol::ROUTING, 24);
        walked.extension(protocol::DESTINATION_OPTIONS, 16)
    };
    let shapes = [
        ("an IPv4 datagram is limited", Frame::from(V4)),
        ("an IPv6 datagram is limited", Frame::from(V6)),
        ("IPv4 behind one VLAN tag is limited", Frame::from(V4).vlan(7)),
        ("IPv6 behind one VLAN tag is limited", Frame::from(V6).vlan(7)),
        ("IPv4 behind two VLAN tags is limited", Frame::from(V4).vlan(7).vlan(8)),
        ("IPv6 behind two VLAN tags is limited", Frame::from(V6).vlan(7).vlan(8)),
        ("IPv4 with one option word is limited", Frame::from(V4).options(1)),
        ("IPv4 with all option words is limited", Frame::from(V4).options(10)),
        ("IPv6 with hop-by-hop, routing and destination headers is limited", extended()),
        ("the same behind two VLAN tags is limited", extended().vlan(7).vlan(8)),
        ("IPv6 with an authentication header is limited", Frame::from(V6).extension(protocol::AUTHENTICATION, 24)),
        ("the first fragment over IPv4 is limited", Frame::from(V4).payload(56).fragment(0, true)),
        ("a middle fragment over IPv4 is limited", Frame::from(V4).payload(64).fragment(64, true)),
        ("the last fragment over IPv4 is limited", Frame::from(V4).payload(5).fragment(128, false)),
        ("the first fragment over IPv6 is limited", Frame::from(V6).payload(56).fragment(0, true)),
        ("a middle fragment over IPv6 is limited", Frame::from(V6).payload(64).fragment(64, true)),
        ("the last fragment over IPv6 is limited", Frame::from(V6).payload(5).fragment(128, false)),
        ("a later fragment behind other extension headers is limited", extended().payload(8).fragment(64, false)),
        ("TCP is limited", Frame::from(V4).tcp(40_000, 80, tcp::ACK).payload(100)),
        ("ICMP is limited", Frame::from(V4).icmp(8, 0)),
        ("ICMPv6 is limited", Frame::from(V6).icmp(128, 0)),
        ("any other protocol is limited", Frame::from(V4).protocol(47).payload(20)),
        ("an empty payload of any other protocol is limited", Frame::from(V6).protocol(89)),
    ];
    let limited = |(sentence, frame): (_, Frame)| Case {
        sentence,
        policy: ONE_A_MINUTE,
        steps: vec![passes(&frame), refused(&frame)],
    };
    show(shapes.into_iter().map(limited).collect())
}

#[test]
fn all_shapes_of_one_source_share_its_bucket() -> Result<()> {
    needs_root!();
    let others = [
        Frame::from(V4).vlan(7),
        Frame::from(V4).options(3),
        Frame::from(V4).payload(8).fragment(64, false),
        Frame::from(V4).tcp(1, 80, tcp::SYN),
    ];
    let steps = [passes(&Frame::from(V4))].into_iter().chain(others.iter().map(refused)).collect();
    show(vec![Case { sentence: "no shape is a way around the bucket", policy: ONE_A_MINUTE, steps }])
}

#[test]
fn a_64_shares_one_bucket_whatever_the_low_bits() -> Result<()> {
    needs_root!();
    let longer = concat!(
        "mode = \"enforce\"\n[[limit]]\nname = \"longer\"\nunit = \"packets\"\nrate = \"1/min\"\n",
        "prefix = { ipv4 = 24, ipv6 = 96 }\naggregate = { ipv4 = 16, ipv6 = 48 }\n",
    );
    show(vec![
        Case {
            sentence: "a /64 is one source, its neighbour another",
            policy: ONE_A_MINUTE,
            steps: vec![
                passes(&Frame::from("2001:db8:7:1::1")),
                refused(&Frame::from("2001:db8:7:1::2")),
                refused(&Frame::from("2001:db8:7:1:ffff:ffff:ffff:ffff")),
                passes(&Frame::from("2001:db8:7:2::1")),
            ],
        },
        Case {
            sentence: "every IPv4 address is a source",
            policy: ONE_A_MINUTE,
            steps: vec![passes(&Frame::from("198.51.100.8")), passes(&Frame::from("198.51.100.9"))],
        },
        Case {
            sentence: "policy may choose other lengths, beyond /64 too",
            policy: longer,
            steps: vec![
                passes(&Frame::from("2001:db8:7:1::1")),
                refused(&Frame::from("2001:db8:7:1::ffff:ffff")),
                passes(&Frame::from("2001:db8:7:1::1:0:0")),
                passes(&Frame::from("198.51.100.8")),
                refused(&Frame::from("198.51.100.9")),
                passes(&Frame::from("198.51.101.8")),
            ],
        },
    ])
}

/// Where the hop limit of an untagged IPv6 frame stands.
const HOP_LIMIT: usize = 14 + 7;

/// Frames that cannot be judged by address and port, by the reason that they are counted under.
fn unread() -> Vec<(Reason, Vec<u8>)> {
    let cut = |frame: &Frame, length| frame.bytes()[..length].to_vec();
    let with = |frame: &Frame, at: usize, value: u8| {
        let mut bytes = frame.bytes();
        bytes[at] = value;
        bytes
    };
    let (v4, v6) = (Frame::from(V4), Frame::from(V6));
    let syn = v4.clone().tcp(1, 80, tcp::SYN);
    let deep = (0..9).fold(v6.clone(), |frame, _| frame.extension(protocol::DESTINATION_OPTIONS, 8));
    vec![
        (Reason::Arp, with(&v4, 13, 0x06)),
        (Reason::OtherEthertype, with(&v4, 12, 0x88)),
        (Reason::TruncatedVlan, cut(&v4.clone().vlan(7), 16)),
        (Reason::TooManyVlans, v4.clone().vlan(7).vlan(8).vlan(9).bytes()),
        (Reason::TruncatedIpv4, cut(&v4, 30)),
        (Reason::TruncatedIpv4, cut(&v4.clone().options(10), 40)),
        (Reason::MalformedIpv4, with(&v4, 14, 0x44)),
        (Reason::MalformedIpv4, with(&v4, 16, 0xff)),
        (Reason::TruncatedIpv6, cut(&v6, 50)),
        (Reason::MalformedIpv6, with(&v6, 18, 0xff)),
        (Reason::MalformedIpv6, with(&v6, 14, 0x40)),
        (Reason::TruncatedExtension, with(&v6.clone().extension(protocol::HOP_BY_HOP, 8), 55, 9)),
        (Reason::TooManyExtensions, deep.bytes()),
        (Reason::TruncatedTcp, with(&syn, 17, 39)),
        (Reason::MalformedTcp, with(&syn, 46, 0xf0)),
        (Reason::MalformedTcp, with(&syn, 46, 0x40)),
        (Reason::TruncatedUdp, with(&v4, 17, 27)),
        (Reason::MalformedUdp, with(&v4, 38, 0xff)),
        (Reason::MalformedUdp, with(&v4, 39, 7)),
        (Reason::NeighbourDiscovery, with(&v6.clone().icmp(135, 0), HOP_LIMIT, 255)),
        (Reason::TruncatedIcmp, with(&v4.clone().icmp(8, 0), 17, 23)),
    ]
}

#[test]
fn every_other_shape_has_a_reason_of_its_own_and_a_default_fate() -> Result<()> {
    needs_root!();
    let met = |(reason, frame): (Reason, Vec<u8>)| {
        let passes = matches!(reason, Reason::Arp | Reason::OtherEthertype | Reason::NeighbourDiscovery);
        Step { after: 0, frame, reason, outcome: if passes { Outcome::Pass } else { Outcome::Drop } }
    };
    let reasons: std::collections::BTreeSet<_> = unread().into_iter().map(|(reason, _)| reason).collect();
    // The kernel runs no program on a frame that is shorter than an Ethernet header.
    let shapes = Reason::ALL.iter().filter(|reason| reason.is_shape() && **reason != Reason::TruncatedEthernet);
    assert!(shapes.eq(&reasons), "a shape is not shown: {reasons:?}");
    let steps = unread().into_iter().map(met).collect();
    show(vec![Case { sentence: "what cannot be judged meets its default fate", policy: "mode = \"enforce\"", steps }])
}

#[test]
fn policy_chooses_the_fate_of_a_shape() -> Result<()> {
    needs_root!();
    let find = |wanted| unread().into_iter().find(|(reason, _)| *reason == wanted).expect("every shape is listed").1;
    let met = |reason, outcome| Step { after: 0, frame: find(reason), reason, outcome };
    show(vec![
        Case {
            sentence: "what drops by default may pass, and what passes may drop",
            policy: "mode = \"enforce\"\n[shapes]\ntoo-many-vlans = \"pass\"\nother-ethertype = \"drop\"\n",
            steps: vec![
                met(Reason::TooManyVlans, Outcome::Pass),
                met(Reason::OtherEthertype, Outcome::Drop),
                met(Reason::TruncatedIpv4, Outcome::Drop),
            ],
        },
        Case {
            sentence: "a host that observes drops no shape",
            policy: "mode = \"observe\"",
            steps: vec![met(Reason::TooManyVlans, Outcome::Observe), met(Reason::Arp, Outcome::Pass)],
        },
    ])
}

#[test]
fn only_neighbour_discovery_from_this_link_passes_beside_blocks_and_limits() -> Result<()> {
    const BLOCKED: &str = concat!(
        "mode = \"enforce\"\n[[limit]]\nname = \"packets\"\nunit = \"packets\"\nrate = \"1/min\"\n",
        "[sources]\nblock = [\"2001:db8:7::/48\"]\n",
    );
    needs_root!();
    let near = |frame: &Frame| {
        let mut bytes = frame.bytes();
        bytes[HOP_LIMIT] = 255;
        bytes
    };
    let discovery = |kind| Frame::from(V6).icmp(kind, 0);
    let met = |frame, reason, outcome| Step { after: 0, frame, reason, outcome };
    let found = |kind| met(near(&discovery(kind)), Reason::NeighbourDiscovery, Outcome::Pass);
    let blocked = |frame| met(frame, Reason::Blocked, Outcome::Drop);
    show(vec![
        Case {
            sentence: "a blocked neighbour can still be found",
            policy: BLOCKED,
            steps: [133, 134, 135, 136, 137].map(found).into(),
        },
        Case {
            sentence: "what is not discovery, or came through a router, or in fragments, is blocked",
            policy: BLOCKED,
            steps: vec![
                blocked(near(&discovery(128))),
                blocked(near(&discovery(132))),
                blocked(near(&discovery(138))),
                blocked(discovery(135).bytes()),
                blocked(near(&discovery(135).payload(28).fragment(0, true))),
            ],
        },
    ])
}

#[test]
fn a_host_without_limits_admits_what_it_can_read() -> Result<()> {
    needs_root!();
    let steps = vec![passes(&Frame::from(V4)), step(&Frame::from(V6), Reason::Admitted, Outcome::Pass)];
    show(vec![Case { sentence: "nothing is limited without a limit", policy: "mode = \"enforce\"", steps }])
}
