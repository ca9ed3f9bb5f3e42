//! Penalties: which refusals count, when they are too many, and who is told of.

use anyhow::{Result, ensure};
use aya::maps::{Map, RingBuf};
use std::net::IpAddr;
use throttle_common::{
    packet::{Family, tcp},
    penalties,
    proven::{Claim, Line},
    records::{Address, Offence, PROVEN_LINES, maps},
};
use throttle_tests::{
    frames::{Dice, Frame},
    needs_root,
    program::{Program, SECOND, action},
};

/// Five refusals in ten seconds trip the penalty; nearly all packets are refused.
const POLICY: &str = r#"
mode = "enforce"
[[limit]]
name = "few"
unit = "packets"
rate = "1/day"
[limit.penalty]
after = 5
within = "10s"
"#;

struct PenaltyBox {
    program: Program,
    offences: RingBuf<aya::maps::MapData>,
}

impl PenaltyBox {
    fn under(policy: &str) -> Result<Self> {
        let program = Program::timed(policy)?;
        let offences = RingBuf::try_from(Map::RingBuf(program.map_data(maps::OFFENCES)?))?;
        Ok(Self { program, offences })
    }

    /// Has a source complete a handshake.
    fn prove(&self, source: &str) -> Result<()> {
        let (address, family) = address(source);
        let claim = Claim::of(address, family, PROVEN_LINES, self.program.control()?.secret);
        let mut proven = self.program.map::<Line>(maps::PROVEN)?;
        let mut line = proven.get(&claim.line, 0)?;
        let (cell, value) = claim.remember(&line, self.program.now());
        line[cell] = value;
        Ok(proven.set(claim.line, line, 0)?)
    }

    /// A source that has used up what it may do, and is proven.
    fn exhausted(&self, source: &str) -> Result<Vec<u8>> {
        let frame = Frame::from(source).tcp(40_000, 80, tcp::ACK).bytes();
        ensure!(self.program.act(&frame)? == action::PASS, "{source} has used something up before");
        self.prove(source)?;
        Ok(frame)
    }

    fn refuse(&self, frame: &[u8], times: usize) -> Result<()> {
        for _ in 0..times {
            ensure!(self.program.act(frame)? == action::DROP, "it is not refused");
        }
        Ok(())
    }

    /// Who was told of since the last look.
    fn told(&mut self) -> Vec<Offence> {
        let mut told = Vec::new();
        while let Some(bytes) = self.offences.next() {
            assert_eq!(bytes.len(), size_of::<Offence>());
            // SAFETY: so many bytes, which are plain numbers.
            told.push(unsafe { bytes.as_ptr().cast::<Offence>().read_unaligned() });
        }
        told
    }

    fn count(&self, source: &str) -> Result<u32> {
        let (_, limit) = self.program.limit_record("few")?;
        Ok(self.program.datapath.refused(&limit, source.parse()?, self.program.now()).times)
    }
}

fn address(source: &str) -> (Address, Family) {
    match source.parse().expect("an address") {
        IpAddr::V4(address) => (Address::v4(address.to_bits()), Family::V4),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            (Address { high: (bits >> 64) as u64, low: bits as u64 }, Family::V6)
        }
    }
}

#[test]
fn so_many_refusals_in_the_time_trip_a_penalty_and_one_less_does_not() -> Result<()> {
    needs_root!();
    // With entries of sources a CPU remembers refusals, and another part of the program refuses.
    for policy in [POLICY.to_owned(), format!("{POLICY}[sources]\nallow = [\"203.0.113.1\"]\n")] {
        let mut penal = PenaltyBox::under(&policy)?;
        let frame = penal.exhausted("198.51.100.7")?;
        penal.refuse(&frame, 4)?;
        ensure!(penal.told().is_empty() && penal.count("198.51.100.7")? == 4);
        penal.program.wait(9 * SECOND)?;
        penal.refuse(&frame, 1)?;
        let told = penal.told();
        let (number, _) = penal.program.limit_record("few")?;
        ensure!(told.len() == 1 && told[0].source == address("198.51.100.7").0, "{told:?}");
        ensure!((told[0].limit, told[0].family, told[0].observed) == (number, 4, 0), "{told:?}");
        ensure!(told[0].time == penal.program.now() && told[0].salt == penal.program.datapath.penalty(number).salt);
        penal.refuse(&frame, 100)?;
        ensure!(penal.told().is_empty(), "it is told once");
        penal.program.wait(2 * SECOND)?;
        ensure!(penal.count("198.51.100.7")? == 0, "they are forgotten");
        penal.refuse(&frame, 4)?;
        ensure!(penal.told().is_empty());
        penal.refuse(&frame, 1)?;
        ensure!(penal.told().len() == 1, "it is told anew");
    }
    Ok(())
}

#[test]
fn who_is_refused_more_slowly_never_trips_it() -> Result<()> {
    needs_root!();
    let mut penal = PenaltyBox::under(POLICY)?;
    let frame = penal.exhausted("198.51.100.7")?;
    for _ in 0..300 {
        penal.program.wait(SECOND * 26 / 10)?;
        penal.refuse(&frame, 1)?;
    }
    ensure!(penal.told().is_empty(), "four in ten seconds are too few");
    for _ in 0..10 {
        penal.program.wait(SECOND * 19 / 10)?;
        penal.refuse(&frame, 1)?;
    }
    ensure!(!penal.told().is_empty(), "and five are enough");
    Ok(())
}

#[test]
fn refusals_count_for_each_source_as_the_limit_sees_it() -> Result<()> {
    needs_root!();
    let mut penal = PenaltyBox::under(POLICY)?;
    let one = penal.exhausted("198.51.100.7")?;
    let other = penal.exhausted("198.51.100.8")?;
    let of_v6 = penal.exhausted("2001:db8::1")?;
    let beside = Frame::from("2001:db8::2").tcp(1, 80, tcp::ACK).bytes();
    for frame in [&one, &other] {
        penal.refuse(frame, 4)?;
    }
    ensure!(penal.told().is_empty());
    penal.refuse(&of_v6, 3)?;
    penal.refuse(&beside, 2)?;
    let told = penal.told();
    ensure!(told.len() == 1 && told[0].source == address("2001:db8::2").0 && told[0].family == 6, "{told:?}");
    Ok(())
}

#[test]
fn nobody_is_told_of_in_anothers_name_unless_policy_says_so() -> Result<()> {
    needs_root!();
    let known = "[sources]\nknown = [\"198.51.100.9\"]\n";
    let mut penal = PenaltyBox::under(&format!("{POLICY}{known}"))?;
    let victim = Frame::from("198.51.100.7").tcp(40_000, 80, tcp::SYN).bytes();
    ensure!(penal.program.act(&victim)? == action::PASS);
    penal.refuse(&victim, 1_000)?;
    ensure!(penal.told().is_empty() && penal.program.datapath.penalty_tally()?.unproven == 1_000);
    // What proves TCP proves no UDP.
    penal.prove("198.51.100.7")?;
    let datagram = Frame::from("198.51.100.7").udp(40_000, 80).bytes();
    penal.refuse(&datagram, 1_000)?;
    ensure!(penal.told().is_empty() && penal.count("198.51.100.7")? == 0);
    penal.refuse(&victim, 5)?;
    ensure!(penal.told().len() == 1, "it is proven now");
    let known = Frame::from("198.51.100.9").udp(40_000, 80).bytes();
    ensure!(penal.program.act(&known)? == action::PASS);
    penal.refuse(&known, 5)?;
    ensure!(penal.told().len() == 1, "policy knows it");
    // The handshake is remembered for an hour.
    penal.program.wait(3_700 * SECOND)?;
    penal.refuse(&victim, 100)?;
    ensure!(penal.told().is_empty());

    let mut penal = PenaltyBox::under(&POLICY.replace("after", "unproven = true\nafter"))?;
    ensure!(penal.program.act(&datagram)? == action::PASS);
    penal.refuse(&datagram, 5)?;
    ensure!(penal.told().len() == 1 && penal.program.datapath.penalty_tally()?.unproven == 0);
    Ok(())
}

#[test]
fn only_the_limit_that_refuses_counts_and_allowed_and_blocked_sources_are_nobodys() -> Result<()> {
    needs_root!();
    let other = "[[limit]]\nname = \"fewer\"\nunit = \"packets\"\nrate = \"1/day\"\nprefix = { ipv4 = 31 }\n";
    let sources = "[sources]\nallow = [\"203.0.113.1\"]\nblock = [\"203.0.113.2\"]\n";
    let mut penal = PenaltyBox::under(&format!("{POLICY}{other}{sources}"))?;
    for source in ["203.0.113.1", "203.0.113.2"] {
        penal.prove(source)?;
        let frame = Frame::from(source).tcp(40_000, 80, tcp::ACK).bytes();
        (0..100).try_for_each(|_| penal.program.act(&frame).map(drop))?;
    }
    ensure!(penal.told().is_empty() && penal.program.datapath.penalty_tally()?.told == 0);
    // What is within its limit counts for nothing, whoever else refuses what.
    let other = other.replace("prefix = { ipv4 = 31 }", "").replace("1/day", "3/day");
    let penal = PenaltyBox::under(&format!("{}{other}", POLICY.replace("1/day", "8/day")))?;
    let frame = penal.exhausted("198.51.100.8")?;
    (0..2).try_for_each(|_| penal.program.act(&frame).map(drop))?;
    penal.refuse(&frame, 100)?;
    ensure!(penal.count("198.51.100.8")? == 0, "the other limit refuses");
    let mut penal = PenaltyBox::under(&POLICY.replace("1/day", "5/day"))?;
    let frame = penal.exhausted("198.51.100.7")?;
    (0..4).try_for_each(|_| penal.program.act(&frame).map(drop))?;
    ensure!(penal.count("198.51.100.7")? == 0, "what passes is no refusal");
    penal.refuse(&frame, 5)?;
    ensure!(penal.told().len() == 1);
    Ok(())
}

#[test]
fn what_is_observed_is_told_as_such() -> Result<()> {
    needs_root!();
    for policy in [POLICY.replace("enforce", "observe"), POLICY.replace("rate =", "mode = \"observe\"\nrate =")] {
        let mut penal = PenaltyBox::under(&policy)?;
        let frame = penal.exhausted("198.51.100.7")?;
        for _ in 0..5 {
            ensure!(penal.program.act(&frame)? == action::PASS, "nothing is refused");
        }
        let told = penal.told();
        ensure!(told.len() == 1 && told[0].observed == 1, "{told:?}");
    }
    Ok(())
}

#[test]
fn another_penalty_counts_anew_and_none_counts_nothing() -> Result<()> {
    needs_root!();
    let mut penal = PenaltyBox::under(POLICY)?;
    let frame = penal.exhausted("198.51.100.7")?;
    penal.refuse(&frame, 4)?;
    penal.program.apply(&POLICY.replace("= 5", "= 6"))?;
    ensure!(penal.count("198.51.100.7")? == 0);
    penal.refuse(&frame, 5)?;
    ensure!(penal.told().is_empty());
    penal.program.apply(&POLICY[..POLICY.find("[limit.penalty]").expect("one")])?;
    penal.refuse(&frame, 50)?;
    ensure!(penal.told().is_empty());
    penal.program.apply(&POLICY.replace("= 5", "= 6"))?;
    penal.refuse(&frame, 1)?;
    ensure!(penal.told().len() == 1, "what was counted before stays counted until its time is over");
    Ok(())
}

#[test]
fn the_kernel_counts_as_the_arithmetic_says() -> Result<()> {
    needs_root!();
    let mut penal = PenaltyBox::under(POLICY)?;
    let mut dice = Dice::new(7);
    let sources: Vec<String> = (0..6).map(|number| format!("198.51.100.{number}")).collect();
    let frames = sources.iter().map(|source| penal.exhausted(source)).collect::<Result<Vec<_>>>()?;
    let (mut words, within) = ([0; 6], penalties::units(10_000));
    let mut tripped = 0;
    for _ in 0..5_000 {
        penal.program.wait(dice.below(SECOND as usize) as u64)?;
        let which = dice.below(6);
        penal.refuse(&frames[which], 1)?;
        words[which] = penalties::step(words[which], penal.program.now(), within);
        let trips = penalties::count(words[which], penal.program.now()) == 5;
        tripped += usize::from(trips);
        ensure!(penal.told().len() == usize::from(trips));
        // They stay proven.
        penal.prove(&sources[which])?;
    }
    ensure!(tripped > 10, "only {tripped} were too many");
    Ok(())
}

#[test]
fn a_flood_of_offenders_is_told_within_a_budget_and_makes_nobody_forgotten() -> Result<()> {
    needs_root!();
    let policy = POLICY.replace("after = 5", "unproven = true\nafter = 2");
    let mut penal = PenaltyBox::under(&policy)?;
    let steady = penal.exhausted("198.51.100.7")?;
    penal.refuse(&steady, 1)?;
    let cpus = std::thread::available_parallelism()?.get() as u64;
    let many = 1_500 * cpus;
    for number in 0..many as u32 {
        let frame = Frame::v4(0x0a00_0000 + number).udp(1, 1).bytes();
        (0..3).try_for_each(|_| penal.program.act(&frame).map(drop))?;
    }
    let tally = penal.program.datapath.penalty_tally()?;
    ensure!(tally.told + tally.withheld + tally.lost == many, "{tally:?}");
    ensure!(tally.told <= 1_000 * cpus && tally.withheld > 0 && tally.uncounted == 0, "{tally:?}");
    penal.told();
    ensure!(penal.count("198.51.100.7")? == 1, "it is still counted");
    Ok(())
}
