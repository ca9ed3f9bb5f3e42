//! `observe` changes no verdict, and counts exactly what enforcement refuses for the same arrivals.

use anyhow::Result;
use std::collections::BTreeMap;
use throttle_common::{
    packet::tcp,
    records::Tally,
    words::{Outcome, Reason},
};
use throttle_tests::{
    frames::{Dice, Frame},
    machine, needs_root,
    program::{Program, SECOND, action, difference},
    say,
};

const POLICY: &str = r#"
mode = "MODE"
[sources]
block = ["192.0.2.5", "2001:db8:0:5::/64"]
[shapes]
arp = "drop"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[[limit]]
name = "opens"
service = "web"
unit = "connections"
rate = "5/s"
action = "reject"
mode = "LIMIT"
[[limit]]
name = "packets"
unit = "packets"
rate = "20/s"
burst = 5
sources = 12
mode = "LIMIT"
"#;

/// The same arrivals every time: when, and what.
fn arrivals(seed: u64) -> Vec<(u64, Vec<u8>)> {
    let mut dice = Dice::new(seed);
    let arrival = |_| {
        let source = dice.below(40) as u8;
        let frame = if dice.below(3) == 0 {
            Frame::v6([0x2001, 0xdb8, 0, u16::from(source), 0, 0, 0, 1])
        } else {
            Frame::v4([192, 0, 2, source])
        };
        let mut frame = match dice.below(4) {
            0 => frame.tcp(40_000, 80, tcp::SYN).bytes(),
            1 => frame.tcp(40_000, 80, tcp::ACK).payload(dice.below(1400)).bytes(),
            2 => frame.udp(1, 53).vlan(7).bytes(),
            _ => frame.echo().bytes(),
        };
        match dice.below(20) {
            0 => frame.truncate(14 + dice.below(frame.len() - 14)),
            1 => frame[12..14].copy_from_slice(&[0x08, 0x06]),
            _ => {}
        }
        (dice.below(10_000_000) as u64, frame)
    };
    (0..5_000).map(arrival).collect()
}

/// Judges the arrivals from full buckets on; gives what was counted and whether everything passed.
fn judge(program: &mut Program, host: &str, limit: &str, arrivals: &[(u64, Vec<u8>)]) -> Result<(Counted, bool)> {
    program.rest()?;
    program.apply(&POLICY.replace("MODE", host).replace("LIMIT", limit))?;
    let before = (program.tallies()?, program.limit("opens")?, program.limit("packets")?);
    let mut all_passed = true;
    for (after, frame) in arrivals {
        program.wait(*after)?;
        all_passed &= program.act(frame)? == action::PASS;
    }
    let after = (program.tallies()?, program.limit("opens")?, program.limit("packets")?);
    let mut reasons: BTreeMap<Reason, [u64; 2]> = BTreeMap::new();
    for ((reason, outcome), tally) in difference(&after.0, &before.0) {
        reasons.entry(reason).or_default()[usize::from(outcome != Outcome::Pass)] += tally.packets;
    }
    // Whatever a limit refused or would have refused, and what it let through.
    let refused = |after: Tally, before: Tally| [after.packets - before.packets, after.bytes - before.bytes];
    let limits = [(after.1, before.1), (after.2, before.2)].map(|(after, before)| {
        let [refused, observed] = [refused(after.refused, before.refused), refused(after.observed, before.observed)];
        let either = [refused[0] + observed[0], refused[1] + observed[1]];
        (after.admitted.packets - before.admitted.packets, either)
    });
    Ok(((reasons, limits), all_passed))
}

/// Frames by reason, passed and refused; of each limit what it admitted and what it refused, packets and bytes.
type Counted = (BTreeMap<Reason, [u64; 2]>, [(u64, [u64; 2]); 2]);

#[test]
fn a_host_that_observes_counts_exactly_what_it_would_refuse() -> Result<()> {
    needs_root!();
    let seed = machine::monotonic();
    say!("observe: seed {seed}");
    let arrivals = arrivals(seed);
    let mut program = Program::timed("")?;
    let (enforced, passed) = judge(&mut program, "enforce", "enforce", &arrivals)?;
    assert!(!passed, "some are refused");
    let (observed, passed) = judge(&mut program, "observe", "enforce", &arrivals)?;
    assert!(passed, "nothing is refused");
    assert_eq!(observed, enforced);
    let refused: u64 = enforced.0.values().map(|[_, refused]| refused).sum();
    say!("observe: {refused} of {} arrivals refused, and as many observed", arrivals.len());
    // The counts come from the same arrivals, not from a table that happens to be the same: others differ.
    let (others, _) = judge(&mut program, "observe", "enforce", &self::arrivals(seed ^ 1))?;
    assert_ne!(others, observed);
    Ok(())
}

#[test]
fn a_limit_that_observes_counts_exactly_what_it_would_refuse() -> Result<()> {
    needs_root!();
    let arrivals: Vec<_> =
        (0..2_000).map(|n: u32| (SECOND / 100, Frame::v4([192, 0, 2, 6 + (n % 3) as u8]).bytes())).collect();
    let mut program = Program::timed("")?;
    let ((_, enforced), passed) = judge(&mut program, "enforce", "enforce", &arrivals)?;
    assert!(!passed);
    let ((_, observed), passed) = judge(&mut program, "enforce", "observe", &arrivals)?;
    assert!(passed, "a limit that observes refuses nothing");
    assert_eq!(observed, enforced);
    Ok(())
}
