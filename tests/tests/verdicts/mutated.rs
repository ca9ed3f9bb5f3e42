//! Every responder under frames that somebody has tampered with: none crashes, none answers what it must not, and what they
//! send is right to the last checksum, by our own reader and by tshark.

use anyhow::{Context, Result, ensure};
use std::{io::Write as _, process::Command};
use throttle_common::{
    packet::{self, protocol, tcp},
    pages::{HEAD, HEAD_LENGTH, Step, cookie, read, slot},
};
use throttle_tests::{
    frames::{Checked, Dice, Frame},
    machine, needs_root,
    program::{Program, action},
    say,
};

/// A page on port 80; resets and ICMP elsewhere.
const POLICY: &str = r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[service.http]
body = "busy\n"
[[limit]]
name = "opens"
service = "web"
unit = "connections"
rate = "1/day"
per = "service"
action = "reject"
[[limit]]
name = "all"
unit = "packets"
rate = "1/day"
per = "host"
action = "reject"
[answers]
rate = "10000000/s"
"#;
const V4: &str = "198.51.100.7";
const V6: &str = "2001:db8:7::7";
/// What the page has behind its head, and what every page has there.
const RESTS: [&str; 2] = [
    "\r\nConnection: close\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nbusy\n",
    "\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
];
/// Of so many answers tshark looks at one.
const SAMPLE: usize = 8;

/// Frames of every step of a refused connection, and others.
fn frames(program: &Program) -> Result<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    for source in [V4, V6] {
        let syn = Frame::from(source).tcp(40_000, 80, tcp::SYN);
        let parsed = packet::parse_bytes(&syn.bytes()).map_err(|reason| anyhow::anyhow!("{reason:?}"))?;
        let since = cookie(&parsed, slot(program.now()), program.control()?.secret).wrapping_add(1);
        let segment = |flags, acknowledged| Frame::from(source).tcp(40_000, 80, flags).acknowledging(acknowledged);
        let kinds = [
            syn,
            segment(tcp::ACK, since),
            segment(tcp::PSH | tcp::ACK, since).payload(77),
            segment(tcp::PSH | tcp::ACK, since).payload(5),
            segment(tcp::FIN | tcp::ACK, since).payload(900),
            segment(tcp::FIN | tcp::ACK, since),
            segment(tcp::FIN | tcp::ACK, since.wrapping_add((HEAD_LENGTH + RESTS[0].len() + 1) as u32)),
            Frame::from(source).tcp(40_000, 81, tcp::SYN),
            Frame::from(source).tcp(40_000, 81, tcp::ACK).payload(50),
            Frame::from(source).udp(40_000, 53).payload(30),
            Frame::from(source).echo().payload(40),
        ];
        for kind in kinds {
            frames.extend([kind.bytes(), kind.clone().vlan(7).bytes(), kind.vlan(7).vlan(8).bytes()]);
        }
    }
    Ok(frames)
}

/// A few bits or bytes changed, a piece cut off or put on; or nothing, one time in eight.
fn mutate(frame: &mut Vec<u8>, dice: &mut Dice) {
    match dice.below(8) {
        0 => {}
        1 => frame.truncate(14 + dice.below(frame.len() - 14)),
        2 => frame.extend((0..dice.below(200)).map(|_| 0)),
        _ => {
            for _ in 0..=dice.below(4) {
                let at = dice.below(frame.len().min(100));
                frame[at] = if dice.below(2) == 0 { dice.roll() as u8 } else { frame[at] ^ 1 << dice.below(8) };
            }
        }
    }
}

/// Whether an answer is one that the frame may have.
fn is_due(program: &Program, asked: &[u8], answered: &[u8]) -> Result<()> {
    let packet = packet::parse_bytes(asked).map_err(|reason| anyhow::anyhow!("{reason:?} was answered"))?;
    ensure!(packet.may_be_answered(), "{packet:?} may not be answered");
    ensure!(asked[0] & 1 == 0 && asked[6] & 1 == 0, "a group of stations was answered");
    let answer = Checked::of(answered).map_err(anyhow::Error::msg)?;
    ensure!(answer.to_mac == &asked[6..12] && answer.from_mac == &asked[..6], "it went elsewhere");
    let back = packet::parse_bytes(answered).map_err(|reason| anyhow::anyhow!("{reason:?}"))?;
    ensure!((back.source, back.destination) == (packet.destination, packet.source), "it is between others");
    if answer.protocol != protocol::TCP || back.flags & tcp::RST != 0 {
        return Ok(());
    }
    ensure!(packet.protocol == protocol::TCP && packet.destination_port == 80, "a page of nobody's");
    if back.flags & tcp::SYN != 0 {
        ensure!(packet.opens_connection(), "a SYN-ACK to {packet:?}");
        return Ok(());
    }
    let at = usize::from(packet.transport);
    ensure!(asked[at + 12] >> 4 == 5, "a segment with options was answered");
    let acknowledged = u32::from_be_bytes(asked[at + 8..at + 12].try_into()?);
    let cookie = cookie(&packet, slot(program.now()), program.control()?.secret);
    let step = read(&packet, acknowledged, cookie, RESTS.map(|text| text.len() as u16));
    let told = answer.segment[20..].starts_with(&HEAD);
    ensure!(step == if told { Step::Tell } else { Step::Acknowledge }, "{step:?} was answered with {answer:?}");
    Ok(())
}

#[test]
fn nothing_but_what_is_due_is_answered_and_every_answer_is_right() -> Result<()> {
    needs_root!();
    let count = machine::amount(20_000, 1_000_000);
    let seed = machine::monotonic();
    let mut program = Program::timed(POLICY)?;
    program.wait(1)?;
    let frames = frames(&program)?;
    let mut dice = Dice::new(seed);
    // The first uses up what the limits allow.
    program.act(&frames[0])?;
    let (mut answers, mut sampled) = (0, Vec::new());
    for number in 0..count {
        let mut frame = frames[dice.below(frames.len())].clone();
        mutate(&mut frame, &mut dice);
        let run = program.datapath.test_run(&frame, 1).with_context(|| format!("frame {number} of seed {seed}"))?;
        ensure!([action::PASS, action::DROP, action::TX].contains(&run.action), "frame {number}: {}", run.action);
        if run.action == action::TX {
            is_due(&program, &frame, &run.frame)
                .with_context(|| format!("frame {number} of seed {seed}: {frame:02x?}"))?;
            answers += 1;
            if answers % SAMPLE == 0 {
                sampled.push(run.frame);
            }
        }
    }
    let pages = program.datapath.page_tally()?;
    ensure!(pages.greeted > 0 && pages.told > 0 && pages.acknowledged > 0, "{pages:?}");
    say!("mutated: {answers} of {count} frames were answered (seed {seed}): {pages:?}");
    look_at(&sampled)
}

/// Has tshark look at frames: it checks all checksums.
fn look_at(frames: &[Vec<u8>]) -> Result<()> {
    if Command::new("tshark").arg("--version").output().is_err() {
        say!(
            "skipped tshark's part of nothing_but_what_is_due_is_answered_and_every_answer_is_right: it is not installed"
        );
        return Ok(());
    }
    let mut file = tempfile::NamedTempFile::new()?;
    // A file of pcap 2.4: Ethernet.
    for word in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65_535, 1] {
        file.write_all(&word.to_ne_bytes())?;
    }
    for frame in frames {
        for word in [0, 0, frame.len() as u32, frame.len() as u32] {
            file.write_all(&word.to_ne_bytes())?;
        }
        file.write_all(frame)?;
    }
    file.flush()?;
    let matching = |filter: &str| -> Result<usize> {
        let mut tshark = Command::new("tshark");
        tshark.arg("-r").arg(file.path()).args(["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]);
        Ok(machine::run(tshark.args(["-Y", filter]))?.lines().count())
    };
    let right = matching("tcp.checksum.status == 1 || icmp.checksum.status == 1 || icmpv6.checksum.status == 1")?;
    // What ICMP quotes is as somebody tampered with it: of that only the message's own checksum is ours.
    let wrong = matching(
        "icmp.checksum.status == 0 || icmpv6.checksum.status == 0 \
         || !(icmp || icmpv6) && (tcp.checksum.status == 0 || ip.checksum.status == 0 || _ws.malformed)",
    )?;
    say!("mutated: tshark found {right} of {} answers right and {wrong} wrong", frames.len());
    ensure!(right == frames.len() && wrong == 0, "tshark found {wrong} of {} answers wrong", frames.len());
    Ok(())
}
