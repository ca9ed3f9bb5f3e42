//! What a refused client of a plain HTTP service is told, byte for byte, and whose segments are left alone.

use anyhow::{Context, Result, ensure};
use throttle_common::{
    packet::tcp,
    pages::{HEAD, HEAD_LENGTH, LONGEST},
    words::{Outcome, Reason},
};
use throttle_tests::{
    frames::{Checked, Frame},
    needs_root,
    program::{Judged, Program, SECOND, START},
};

const SERVICE: &str = r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[service.http]
body = "busy\n"
headers = { X-Reason = "limit" }
"#;
const LIMIT: &str = r#"
[[limit]]
name = "few"
service = "web"
unit = "connections"
rate = "1/min"
action = "reject"
"#;
/// Behind the head.
const REST: &str =
    "\r\nConnection: close\r\nContent-Length: 5\r\nContent-Type: text/plain\r\nX-Reason: limit\r\n\r\nbusy\n";
const V4: &str = "198.51.100.7";
const V6: &str = "2001:db8:7::7";
/// The client's number behind its SYN.
const NEXT: u32 = 0x0102_0305;

fn policy() -> String {
    format!("{SERVICE}{LIMIT}")
}

fn syn(source: &str) -> Frame {
    Frame::from(source).tcp(40_000, 80, tcp::SYN)
}

/// A segment behind the SYN.
fn segment(source: &str, flags: u8, acknowledged: u32) -> Frame {
    Frame::from(source).tcp(40_000, 80, flags).sequence(NEXT).acknowledging(acknowledged)
}

/// A number in a TCP header.
fn number(frame: &[u8], at: usize) -> Result<u32> {
    let checked = Checked::of(frame).map_err(anyhow::Error::msg)?;
    Ok(u32::from_be_bytes(checked.segment[at..at + 4].try_into()?))
}

fn met(judged: &Judged, reason: Reason, outcome: Outcome) -> Result<()> {
    ensure!((judged.reason, judged.outcome) == (reason, outcome), "met {:?} {:?}", judged.reason, judged.outcome);
    Ok(())
}

/// Uses up what the source may do, and gives the answer to its next SYN.
fn greeting(program: &Program, syn: &Frame) -> Result<Vec<u8>> {
    met(&program.judge(&syn.bytes())?, Reason::Admitted, Outcome::Pass)?;
    let judged = program.judge(&syn.bytes())?;
    met(&judged, Reason::SourceLimit, Outcome::Reject)?;
    Ok(judged.frame)
}

/// The same; gives the number of that answer.
fn cookie(program: &Program, source: &str) -> Result<u32> {
    number(&greeting(program, &syn(source))?, 4)
}

/// A program whose source has been greeted, and by which number.
fn greeted(source: &str) -> Result<(Program, u32)> {
    let program = Program::timed(&policy())?;
    let cookie = cookie(&program, source)?;
    Ok((program, cookie))
}

/// The answer to a segment of such a connection: its flags, its number, what it acknowledges, and its text.
fn told(program: &Program, asked: &Frame) -> Result<(u8, u32, u32, String)> {
    let bytes = asked.bytes();
    let judged = program.judge(&bytes)?;
    met(&judged, Reason::TooManyRequests, Outcome::Reject)?;
    let (asked, answer) = (Checked::of(&bytes).map_err(anyhow::Error::msg)?, Checked::of(&judged.frame));
    let answer = answer.map_err(anyhow::Error::msg)?;
    ensure!(answer.to_mac == asked.from_mac && answer.from_mac == asked.to_mac, "it goes back where it came from");
    ensure!(answer.tags == asked.tags && answer.hops == 64, "{answer:?}");
    ensure!((answer.source, answer.destination) == (asked.destination, asked.source), "{answer:?}");
    ensure!(answer.segment[..4] == [0, 80, 0x9c, 0x40] && answer.segment[12] == 5 << 4, "{:?}", answer.segment);
    ensure!(answer.segment[14..16] == [0xff; 2] && answer.segment[18..20] == [0; 2], "{:?}", answer.segment);
    let text = String::from_utf8(answer.segment[20..].to_vec())?;
    Ok((answer.segment[13], number(&judged.frame, 4)?, number(&judged.frame, 8)?, text))
}

/// The page with this many seconds.
fn page(seconds: u64) -> String {
    format!("HTTP/1.1 429 Too Many Requests\r\nRetry-After:{seconds:>6}{REST}")
}

fn tagged() -> [fn(Frame) -> Frame; 3] {
    [|frame| frame, |frame| frame.vlan(7), |frame| frame.vlan(7).vlan(8)]
}

#[test]
fn a_refused_syn_is_answered_with_a_syn_ack_that_promises_nothing() -> Result<()> {
    needs_root!();
    let mut program = Program::timed(&policy())?;
    for (source, option) in [(V4, [2, 4, 5, 0xb4]), (V6, [2, 4, 5, 0xa0])] {
        for tag in tagged() {
            program.rest()?;
            let asked = tag(syn(source).tcp_options(&[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0]));
            let frame = greeting(&program, &asked)?;
            let answer = Checked::of(&frame).map_err(anyhow::Error::msg)?;
            let cookie = number(&frame, 4)?.to_be_bytes();
            let head =
                [&[0, 80, 0x9c, 0x40][..], &cookie, &NEXT.to_be_bytes(), &[6 << 4, tcp::SYN | tcp::ACK, 0xff, 0xff]];
            assert_eq!(answer.segment[..16], head.concat());
            assert_eq!(answer.segment[18..], [&[0, 0][..], &option].concat());
            let bytes = asked.bytes();
            let before = Checked::of(&bytes).map_err(anyhow::Error::msg)?;
            assert_eq!((answer.to_mac, answer.from_mac), (before.from_mac, before.to_mac));
            assert_eq!((answer.tags, answer.hops), (before.tags, 64));
            assert_eq!((answer.source, answer.destination), (before.destination, before.source));
            assert_eq!(frame.len(), 14 + answer.tags.len() + if source == V4 { 20 } else { 40 } + 24);
            assert_eq!(program.judge(&bytes)?.frame, frame, "said once more, it is answered alike");
        }
    }
    Ok(())
}

#[test]
fn a_request_is_answered_with_429_and_so_is_its_repetition() -> Result<()> {
    needs_root!();
    for source in [V4, V6] {
        let (program, cookie) = greeted(source)?;
        let since = cookie.wrapping_add(1);
        let ends = tcp::PSH | tcp::ACK | tcp::FIN;
        for tag in tagged() {
            for length in [1, 18, 77, 300, 1400] {
                let request = tag(segment(source, tcp::PSH | tcp::ACK, since).payload(length));
                let expected = (ends, since, NEXT + length as u32, page(60));
                for _ in 0..2 {
                    assert_eq!(told(&program, &request)?, expected, "{length} bytes");
                }
                let last = tag(segment(source, tcp::FIN | tcp::ACK, since).payload(length));
                assert_eq!(told(&program, &last)?, (ends, since, NEXT + length as u32 + 1, page(60)));
            }
            let silent = tag(segment(source, tcp::FIN | tcp::ACK, since));
            assert_eq!(told(&program, &silent)?, (ends, since, NEXT + 1, page(60)), "who says nothing is told too");
        }
        let with_options = segment(source, tcp::ACK, since).payload(60);
        let with_options = if source == V4 { with_options.options(3) } else { with_options.extension(0, 16) };
        assert_eq!(told(&program, &with_options)?, (ends, since, NEXT + 60, page(60)), "under options of IP");
    }
    Ok(())
}

#[test]
fn what_only_acknowledges_is_swallowed_and_what_comes_late_is_acknowledged() -> Result<()> {
    needs_root!();
    for source in [V4, V6] {
        let (program, cookie) = greeted(source)?;
        let since = cookie.wrapping_add(1);
        let behind = since.wrapping_add(page(60).len() as u32 + 1);
        for (flags, acknowledged) in
            [(tcp::ACK, since), (tcp::ACK, behind), (tcp::ACK | tcp::RST, since), (tcp::ACK | tcp::RST, behind)]
        {
            let judged = program.judge(&segment(source, flags, acknowledged).bytes())?;
            met(&judged, Reason::TooManyRequests, Outcome::Drop).with_context(|| format!("{flags:x}"))?;
        }
        let late = segment(source, tcp::ACK, behind).payload(500);
        assert_eq!(told(&program, &late)?, (tcp::ACK, behind, NEXT + 500, String::new()));
        let last = segment(source, tcp::FIN | tcp::ACK, behind);
        assert_eq!(told(&program, &last)?, (tcp::ACK, behind, NEXT + 1, String::new()));
        let tally = program.datapath.page_tally()?;
        assert_eq!((tally.greeted, tally.told, tally.cut, tally.acknowledged), (1, 0, 0, 2));
    }
    Ok(())
}

#[test]
fn what_is_of_another_connection_is_let_alone() -> Result<()> {
    needs_root!();
    let mut program = Program::timed(&policy())?;
    let since = cookie(&program, V4)?.wrapping_add(1);
    let of_six = cookie(&program, V6)?.wrapping_add(1);
    let whole = page(60).len() as u32;
    let request = |flags, acknowledged| segment(V4, flags, acknowledged).payload(80);
    let passing = [
        request(tcp::ACK, since.wrapping_add(1)),
        request(tcp::ACK, since.wrapping_sub(1)),
        request(tcp::ACK, since.wrapping_add(whole)),
        request(tcp::ACK, since.wrapping_add(whole + 2)),
        request(tcp::ACK, 0),
        request(tcp::ACK, since).tcp_options(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0]),
        request(tcp::PSH, since),
        request(tcp::SYN | tcp::ACK, since),
        Frame::from(V4).tcp(40_001, 80, tcp::ACK).sequence(NEXT).acknowledging(since).payload(80),
        Frame::from(V4).tcp(40_000, 81, tcp::ACK).sequence(NEXT).acknowledging(since).payload(80),
        Frame::from("198.51.100.8").tcp(40_000, 80, tcp::ACK).sequence(NEXT).acknowledging(since).payload(80),
        segment(V6, tcp::ACK, since).payload(80),
        request(tcp::ACK, of_six),
    ];
    for frame in &passing {
        let judged = program.judge(&frame.bytes())?;
        met(&judged, Reason::Admitted, Outcome::Pass).with_context(|| format!("{frame:?}"))?;
        ensure!(judged.frame == frame.bytes(), "the frame was changed");
    }
    // Two of its times later a cookie says nothing any more.
    program.wait(140 * SECOND)?;
    met(&program.judge(&request(tcp::ACK, since).bytes())?, Reason::Admitted, Outcome::Pass)
}

#[test]
fn a_connection_that_was_refused_is_so_to_its_end_though_the_limit_has_room_again() -> Result<()> {
    needs_root!();
    let (mut program, cookie) = greeted(V4)?;
    let since = cookie.wrapping_add(1);
    let request = segment(V4, tcp::ACK, since).payload(80);
    for (waited, seconds) in [(10, 50), (49, 1), (1, 1), (8, 1)] {
        program.wait(waited * SECOND)?;
        assert_eq!(told(&program, &request)?.3, page(seconds), "{waited} s later");
    }
    assert_eq!(program.now(), START + 68 * SECOND, "and the time that its cookie was of may have ended");
    met(&program.judge(&syn(V4).bytes())?, Reason::Admitted, Outcome::Pass)
}

/// What a source is told that has used up what a limit allows, half a second after its window began where it has one.
fn seconds(terms: &str) -> Result<u64> {
    let limit =
        format!("[[limit]]\nname = \"few\"\nservice = \"web\"\nunit = \"connections\"\naction = \"reject\"\n{terms}\n");
    let mut program = Program::timed(&format!("{SERVICE}{limit}"))?;
    program.wait(20 * SECOND + SECOND / 2)?;
    let mut judged = program.judge(&syn(V4).bytes())?;
    while judged.outcome == Outcome::Pass {
        judged = program.judge(&syn(V4).bytes())?;
    }
    ensure!(judged.outcome == Outcome::Reject, "met {judged:?}");
    let since = number(&judged.frame, 4)?.wrapping_add(1);
    let (_, _, _, text) = told(&program, &segment(V4, tcp::ACK, since).payload(80))?;
    let digits = text.get(HEAD.len()..HEAD_LENGTH).context("a page is longer")?;
    let seconds = digits.trim_start().parse()?;
    // Who comes then is let in, and who comes a second before is not.
    let allow = "allow";
    ensure!((1..=LONGEST).contains(&seconds), "{seconds} s for {allow}");
    if seconds > 1 {
        program.wait((seconds - 1) * SECOND - 1)?;
        met(&program.judge(&syn(V4).bytes())?, judged.reason, Outcome::Reject)?;
        program.wait(SECOND + 1)?;
    } else {
        program.wait(SECOND)?;
    }
    met(&program.judge(&syn(V4).bytes())?, Reason::Admitted, Outcome::Pass)?;
    Ok(seconds)
}

#[test]
fn who_comes_when_it_is_told_is_let_in() -> Result<()> {
    needs_root!();
    // START is a multiple of all these windows but the hour's.
    for (terms, expected) in [
        ("rate = \"1/min\"", 60),
        ("rate = \"1000/s\"", 1),
        ("rate = \"20/min\"\nburst = 5", 3),
        ("rate = \"1/day\"", 86_400),
        ("rate = \"6/min\"\nalgorithm = \"leaky-bucket\"", 10),
        ("rate = \"10/min\"\nalgorithm = \"fixed-window\"", 60),
        ("rate = \"100/s\"\nalgorithm = \"fixed-window\"", 1),
        ("rate = \"3/min\"\nper = \"service\"", 20),
    ] {
        let told = seconds(terms).with_context(|| terms)?;
        let windowed = terms.contains("window");
        let agrees = if windowed { told <= expected } else { told == expected };
        ensure!(agrees, "{terms}: told {told} s, {expected} s expected");
    }
    Ok(())
}

#[test]
fn of_several_limits_the_one_with_the_longest_wait_is_told() -> Result<()> {
    needs_root!();
    let more = "[[limit]]\nname = \"all\"\nservice = \"web\"\nunit = \"connections\"\nrate = \"1/hour\"\nper = \"service\"\naction = \"reject\"\n";
    let program = Program::timed(&format!("{}{more}", policy()))?;
    let since = cookie(&program, V4)?.wrapping_add(1);
    assert_eq!(told(&program, &segment(V4, tcp::ACK, since).payload(80))?.3, page(3600));
    Ok(())
}

#[test]
fn a_page_that_its_frame_has_no_room_for_is_cut_to_what_every_page_has() -> Result<()> {
    needs_root!();
    let body = "x".repeat(130);
    let long = SERVICE.replace("busy\\n", &body).replace("headers = { X-Reason = \"limit\" }\n", "");
    let program = Program::timed(&format!("{long}{LIMIT}"))?;
    let since = cookie(&program, V4)?.wrapping_add(1);
    let request = |length| segment(V4, tcp::ACK, since).payload(length);
    let whole = told(&program, &request(36))?.3;
    assert!(whole.ends_with(&format!("\r\n\r\n{body}")) && whole.len() == HEAD_LENGTH + 200, "{whole}");
    let cut = told(&program, &request(1))?.3;
    assert_eq!(
        cut,
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After:    60\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    // Whoever has seen either is acknowledged.
    for text in [whole, cut] {
        let late = segment(V4, tcp::FIN | tcp::ACK, since.wrapping_add(text.len() as u32 + 1));
        assert_eq!(told(&program, &late)?.0, tcp::ACK);
    }
    let tally = program.datapath.page_tally()?;
    assert_eq!((tally.told, tally.cut), (2, 1));
    Ok(())
}

#[test]
fn only_reject_tells_anybody_and_a_host_that_observes_does_not() -> Result<()> {
    needs_root!();
    let (mut program, cookie) = greeted(V4)?;
    let request = segment(V4, tcp::ACK, cookie.wrapping_add(1)).payload(80).bytes();
    let again = |program: &mut Program, policy: &str| -> Result<(Judged, Judged)> {
        program.apply(policy)?;
        Ok((program.judge(&syn(V4).bytes())?, program.judge(&request)?))
    };
    let (asked, said) = again(&mut program, &policy().replace("enforce", "observe"))?;
    met(&asked, Reason::SourceLimit, Outcome::Observe)?;
    met(&said, Reason::Admitted, Outcome::Pass)?;
    let (asked, said) = again(&mut program, &policy().replace("\"reject\"", "\"drop\""))?;
    met(&asked, Reason::SourceLimit, Outcome::Drop)?;
    met(&said, Reason::TooManyRequests, Outcome::Reject).context("what was begun is ended")?;
    let (asked, said) = again(&mut program, &format!("{}[sources]\nblock = [\"{V4}\"]\n", policy()))?;
    met(&asked, Reason::Blocked, Outcome::Drop)?;
    met(&said, Reason::Blocked, Outcome::Drop)?;
    let plain = policy().replace("[service.http]\nbody = \"busy\\n\"\nheaders = { X-Reason = \"limit\" }\n", "");
    let (asked, said) = again(&mut program, &plain)?;
    met(&asked, Reason::SourceLimit, Outcome::Reject)?;
    let reset = Checked::of(&asked.frame).map_err(anyhow::Error::msg)?.segment[13];
    assert_eq!(reset, tcp::RST | tcp::ACK, "a service without a page resets");
    met(&said, Reason::Admitted, Outcome::Pass)
}

#[test]
fn pages_are_charged_to_the_hosts_budget_for_answers() -> Result<()> {
    needs_root!();
    let mut program = Program::timed(&format!("{}[answers]\nrate = \"2/s\"\n", policy()))?;
    let since = cookie(&program, V4)?.wrapping_add(1);
    let request = segment(V4, tcp::ACK, since).payload(80).bytes();
    let outcomes = [program.judge(&request)?.outcome, program.judge(&request)?.outcome];
    assert_eq!(outcomes, [Outcome::Reject, Outcome::Drop]);
    assert_eq!(program.datapath.losses()?.answers_withheld, 1);
    program.wait(SECOND)?;
    met(&program.judge(&request)?, Reason::TooManyRequests, Outcome::Reject)
}

#[test]
fn what_must_not_be_answered_is_not() -> Result<()> {
    needs_root!();
    let (program, cookie) = greeted(V4)?;
    let mut frame = segment(V4, tcp::ACK, cookie.wrapping_add(1)).payload(80).bytes();
    frame[..6].fill(0xff);
    met(&program.judge(&frame)?, Reason::TooManyRequests, Outcome::Drop)?;
    let mut frame = syn(V4).bytes();
    frame[..6].fill(0xff);
    met(&program.judge(&frame)?, Reason::SourceLimit, Outcome::Drop)?;
    assert_eq!(program.datapath.losses()?.answers_undue, 2);
    let both = Frame::from(V4).tcp(40_000, 80, tcp::SYN | tcp::FIN).bytes();
    let judged = program.judge(&both)?;
    met(&judged, Reason::SourceLimit, Outcome::Reject)?;
    let flags = Checked::of(&judged.frame).map_err(anyhow::Error::msg)?.segment[13];
    assert_eq!(flags, tcp::RST | tcp::ACK, "who asks and ends in one word is reset");
    Ok(())
}
