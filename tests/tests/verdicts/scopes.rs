//! Services: which limits a packet meets by its protocol, port and destination.

use super::{Case, passes, refused, show};
use anyhow::Result;
use throttle_common::packet::tcp;
use throttle_tests::{frames::Frame, needs_root};

const SERVICES: &str = r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [80, "8000-8080"]
[[service]]
name = "inner-web"
protocol = "tcp"
ports = [80]
destination = "10.0.0.0/8"
[[service]]
name = "inner-web-v6"
protocol = "tcp"
ports = [80]
destination = "fd00::/8"
[[service]]
name = "dns"
protocol = "udp"
ports = [53]
[[service]]
name = "ping"
protocol = "icmp"
[[limit]]
name = "web"
service = "web"
unit = "packets"
rate = "1/min"
[[limit]]
name = "inner-web"
service = "inner-web"
unit = "packets"
rate = "2/min"
[[limit]]
name = "inner-web-v6"
service = "inner-web-v6"
unit = "packets"
rate = "2/min"
[[limit]]
name = "dns"
service = "dns"
unit = "packets"
rate = "3/min"
[[limit]]
name = "ping"
service = "ping"
unit = "packets"
rate = "1/min"
"#;

const V4: &str = "198.51.100.7";
const V6: &str = "2001:db8:7::7";

/// The frame passes so often, then no more.
fn limited(sentence: &'static str, policy: &'static str, frame: &Frame, times: usize) -> Case {
    let mut steps = super::pass_times(frame, times);
    steps.push(refused(frame));
    Case { sentence, policy, steps }
}

/// The frame meets no limit.
fn free(sentence: &'static str, policy: &'static str, frame: &Frame) -> Case {
    Case { sentence, policy, steps: super::pass_times(frame, 5) }
}

fn segment(source: &str, port: u16) -> Frame {
    Frame::from(source).tcp(40_000, port, tcp::ACK)
}

#[test]
fn a_service_is_a_protocol_and_ports() -> Result<()> {
    needs_root!();
    show(vec![
        limited("a port is in its service", SERVICES, &segment(V4, 80), 1),
        limited("the first port of a range is", SERVICES, &segment(V4, 8000), 1),
        limited("the last port of a range is", SERVICES, &segment(V6, 8080), 1),
        free("the port after a range is not", SERVICES, &segment(V4, 8081)),
        free("the port before it is not", SERVICES, &segment(V4, 7999)),
        free("another protocol is not", SERVICES, &Frame::from(V4).udp(40_000, 80)),
        free("the source port does not count", SERVICES, &Frame::from(V4).tcp(80, 40_000, tcp::ACK)),
        limited("UDP has services", SERVICES, &Frame::from(V6).udp(40_000, 53), 3),
        limited("ICMP is a service", SERVICES, &Frame::from(V4).icmp(8, 0), 1),
        limited("ICMPv6 is the same service", SERVICES, &Frame::from(V6).icmp(128, 0), 1),
        free("a later fragment is of no service", SERVICES, &segment(V4, 80).payload(8).fragment(64, false)),
        limited("a first fragment is", SERVICES, &segment(V4, 80).payload(36).fragment(0, true), 1),
        limited("VLAN tags do not hide the port", SERVICES, &segment(V4, 80).vlan(7).vlan(8), 1),
    ])
}

#[test]
fn the_longest_destination_decides_between_services_that_share_a_port() -> Result<()> {
    needs_root!();
    show(vec![
        limited("a destination in the prefix is of the inner service", SERVICES, &segment(V4, 80).to("10.1.2.3"), 2),
        limited("one outside is of the general service", SERVICES, &segment(V4, 80).to("11.1.2.3"), 1),
        limited("so it is with IPv6", SERVICES, &segment(V6, 80).to("fd12::1"), 2),
        limited("outside, too", SERVICES, &segment(V6, 80).to("2001:db8::1"), 1),
        limited("a port of only one of them is of that one", SERVICES, &segment(V4, 8000).to("10.1.2.3"), 1),
    ])
}

#[test]
fn a_packet_meets_the_limits_of_its_service_and_of_the_host() -> Result<()> {
    const BOTH: &str = concat!(
        "mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n",
        "[[limit]]\nname = \"web\"\nservice = \"web\"\nunit = \"packets\"\nrate = \"2/min\"\n",
        "[[limit]]\nname = \"host\"\nunit = \"packets\"\nrate = \"3/min\"\n",
    );
    needs_root!();
    let (web, other) = (segment(V4, 80), segment(V4, 81));
    show(vec![
        limited("the service's limit holds", BOTH, &web, 2),
        limited("the host's limit holds", BOTH, &other, 3),
        Case {
            sentence: "what a service admits is charged to the host's limit too",
            policy: BOTH,
            steps: vec![passes(&web), passes(&web), refused(&web), passes(&other), refused(&other)],
        },
    ])
}
