//! What a refusal by `reject` sends back, byte for byte, and to whom it sends nothing.

use super::{Case, passes, show, step};
use anyhow::{Context, Result, ensure};
use throttle_common::{
    packet::{protocol, tcp},
    words::{Outcome, Reason},
};
use throttle_tests::{
    frames::{Checked, Frame},
    needs_root,
    program::{Program, SECOND},
};

/// Refuses everything from a source but its first packet, and says so.
const REJECT: &str = r#"
mode = "enforce"
[[limit]]
name = "packets"
unit = "packets"
rate = "1/min"
action = "reject"
"#;

const V4: &str = "198.51.100.7";
const V6: &str = "2001:db8:7::7";
/// A VLAN tag within another, as the answer must carry them.
const NO_TAGS: fn(&Frame) -> Frame = Frame::clone;

/// The second packet of a source, and what comes back.
fn rejected(program: &mut Program, frame: &Frame) -> Result<Vec<u8>> {
    program.rest()?;
    let bytes = frame.bytes();
    let first = program.judge(&bytes)?;
    ensure!(first.outcome == Outcome::Pass, "the first packet met {first:?}");
    let second = program.judge(&bytes)?;
    ensure!((second.reason, second.outcome) == (Reason::SourceLimit, Outcome::Reject), "{second:?}");
    let (asked, answer) = (Checked::of(&bytes), Checked::of(&second.frame));
    let (asked, answer) = (asked.expect("the test's frame is sound"), answer.map_err(anyhow::Error::msg)?);
    ensure!(answer.to_mac == asked.from_mac && answer.from_mac == asked.to_mac, "it goes back where it came from");
    ensure!(answer.tags == asked.tags, "it goes back under the tags that it came under");
    ensure!((answer.source, answer.destination) == (asked.destination, asked.source), "{answer:?}");
    ensure!(answer.hops >= 32, "it may go {} hops", answer.hops);
    Ok(second.frame)
}

fn tagged() -> [fn(&Frame) -> Frame; 3] {
    [NO_TAGS, |frame| frame.clone().vlan(7), |frame| frame.clone().vlan(7).vlan(8)]
}

#[test]
fn a_syn_is_answered_with_a_reset() -> Result<()> {
    needs_root!();
    let mut program = Program::timed(REJECT)?;
    for source in [V4, V6] {
        for tag in tagged() {
            let syn = tag(&Frame::from(source).tcp(40_000, 80, tcp::SYN));
            let frame = rejected(&mut program, &syn).with_context(|| format!("{syn:?}"))?;
            let answer = Checked::of(&frame).map_err(anyhow::Error::msg)?;
            assert_eq!(answer.protocol, protocol::TCP);
            assert_eq!(answer.segment.len(), 20, "a reset carries nothing");
            assert_eq!(answer.segment[..4], [0, 80, 0x9c, 0x40], "ports");
            assert_eq!(answer.segment[4..8], [0; 4], "sequence number");
            // The SYN's number, 0x01020304, and one for the SYN (RFC 9293, section 3.5.2).
            assert_eq!(answer.segment[8..12], 0x0102_0305_u32.to_be_bytes(), "acknowledgement");
            assert_eq!(answer.segment[13], tcp::RST | tcp::ACK, "flags");
        }
    }
    let opening = Frame::from(V4).tcp(40_000, 80, tcp::SYN).payload(100);
    let frame = rejected(&mut program, &opening)?;
    let answer = Checked::of(&frame).map_err(anyhow::Error::msg)?;
    assert_eq!(answer.segment[8..12], (0x0102_0305_u32 + 100).to_be_bytes(), "what came with the SYN is acknowledged");
    Ok(())
}

#[test]
fn the_rest_is_answered_with_administratively_prohibited() -> Result<()> {
    needs_root!();
    let mut program = Program::timed(REJECT)?;
    let kinds: [fn(Frame) -> Frame; 6] = [
        |frame| frame.udp(40_000, 53).payload(40),
        |frame| frame.udp(40_000, 53).payload(1400),
        |frame| frame.udp(40_000, 53),
        |frame| frame.tcp(40_000, 80, tcp::ACK).payload(300),
        |frame| frame.echo().payload(56),
        |frame| frame.protocol(47).payload(64),
    ];
    for source in [V4, V6] {
        for tag in tagged() {
            for kind in kinds {
                let asked = tag(&kind(Frame::from(source)));
                let frame = rejected(&mut program, &asked).with_context(|| format!("{asked:?}"))?;
                let answer = Checked::of(&frame).map_err(anyhow::Error::msg)?;
                let (number, kind) = if source == V4 { (protocol::ICMP, [3, 13]) } else { (protocol::ICMPV6, [1, 1]) };
                assert_eq!(answer.protocol, number);
                assert_eq!(answer.segment[..2], kind, "type and code");
                assert_eq!(answer.segment[4..8], [0; 4], "unused");
                let packet = asked.bytes()[14 + answer.tags.len()..].to_vec();
                let quoted = &answer.segment[8..];
                // RFC 792: the header and eight bytes at least, as they came.
                let least = packet.len().min(if source == V4 { 28 } else { 48 });
                assert!(quoted.len() >= least, "{} bytes of {} are quoted", quoted.len(), packet.len());
                assert!(packet.starts_with(quoted), "what is quoted is what came");
            }
        }
    }
    Ok(())
}

#[test]
fn what_must_not_be_answered_is_dropped_without_a_word() -> Result<()> {
    needs_root!();
    let dropped = |sentence, frame: &Frame| Case {
        sentence,
        policy: REJECT,
        steps: vec![passes(frame), step(frame, Reason::SourceLimit, Outcome::Drop)],
    };
    let cases = vec![
        dropped("a reset is not answered", &Frame::from(V4).tcp(1, 80, tcp::RST)),
        dropped("a reset with an acknowledgement is not answered", &Frame::from(V6).tcp(1, 80, tcp::RST | tcp::ACK)),
        dropped("a later fragment is not answered", &Frame::from(V4).payload(8).fragment(64, false)),
        dropped("a later IPv6 fragment is not answered", &Frame::from(V6).payload(8).fragment(64, false)),
        dropped("an unreachable is not answered", &Frame::from(V4).icmp(3, 1).payload(28)),
        dropped("a time exceeded is not answered", &Frame::from(V4).icmp(11, 0).payload(28)),
        dropped("a redirect is not answered", &Frame::from(V4).icmp(5, 0).payload(28)),
        dropped("an ICMPv6 error is not answered", &Frame::from(V6).icmp(1, 4).payload(48)),
        dropped("a packet to a multicast group is not answered", &Frame::from(V4).to("224.0.0.251")),
        dropped("a packet to an IPv6 multicast group is not answered", &Frame::from(V6).to("ff02::fb")),
        dropped("a packet to everybody is not answered", &Frame::from(V4).to("255.255.255.255")),
        dropped("a packet from a multicast group is not answered", &Frame::from("224.0.0.5")),
        dropped("a packet from IPv6 multicast is not answered", &Frame::from("ff02::1")),
        dropped("a packet from nobody is not answered", &Frame::from("0.0.0.0")),
        dropped("a packet from nobody over IPv6 is not answered", &Frame::from("::")),
        dropped("a packet from everybody is not answered", &Frame::from("255.255.255.255")),
        dropped("a packet from a loopback address is not answered", &Frame::from("127.0.0.1")),
    ];
    show(cases)
}

#[test]
fn a_frame_to_a_group_of_stations_is_not_answered() -> Result<()> {
    needs_root!();
    let program = Program::timed(REJECT)?;
    let mut frame = Frame::from(V4).bytes();
    frame[..6].fill(0xff);
    program.judge(&frame)?;
    let second = program.judge(&frame)?;
    assert_eq!((second.reason, second.outcome), (Reason::SourceLimit, Outcome::Drop));
    assert_eq!(program.datapath.losses()?.answers_undue, 1);
    Ok(())
}

#[test]
fn answers_have_a_budget_of_their_own() -> Result<()> {
    needs_root!();
    let policy = format!("{REJECT}[answers]\nrate = \"2/s\"\n");
    let mut program = Program::timed(&policy)?;
    let frame = Frame::from(V4).udp(1, 53).bytes();
    assert_eq!(program.judge(&frame)?.outcome, Outcome::Pass);
    let outcomes = || -> Result<Vec<Outcome>> { (0..4).map(|_| Ok(program.judge(&frame)?.outcome)).collect() };
    assert_eq!(outcomes()?, [Outcome::Reject, Outcome::Reject, Outcome::Drop, Outcome::Drop]);
    assert_eq!(program.datapath.losses()?.answers_withheld, 2);
    program.wait(SECOND / 2)?;
    assert_eq!(program.judge(&frame)?.outcome, Outcome::Reject);
    assert_eq!(program.judge(&frame)?.outcome, Outcome::Drop);
    Ok(())
}

#[test]
fn a_block_is_never_answered_and_observing_answers_nobody() -> Result<()> {
    needs_root!();
    let frame = Frame::from(V4).udp(1, 53);
    show(vec![
        Case {
            sentence: "a blocked source hears nothing",
            policy: "mode = \"enforce\"\n[sources]\nblock = [\"198.51.100.7\"]\n",
            steps: vec![step(&frame, Reason::Blocked, Outcome::Drop)],
        },
        Case {
            sentence: "a host that observes answers nobody",
            policy: "[[limit]]\nname = \"p\"\nunit = \"packets\"\nrate = \"1/min\"\naction = \"reject\"\n",
            steps: vec![passes(&frame), step(&frame, Reason::SourceLimit, Outcome::Observe)],
        },
    ])
}
