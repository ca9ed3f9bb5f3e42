//! What the program reads.

use super::{PROBE, WEB_AND_DNS, speed};
use anyhow::{Context, Result, ensure};
use std::{net::Ipv4Addr, time::Duration};
use throttle_agent::datapath::{LEASE, explain::packet};
use throttle_common::{
    packet::protocol,
    records::{HOST_CLOCK, HealthClock, MAX_CLOCKS, NO_CLOCK, maps},
    speed::{LEAD, Speed, Stretch},
    table::WAYS,
};
use throttle_tests::{
    frames::{Dice, Frame},
    needs_root,
    program::{Program, SECOND, START},
};

const DAY: u64 = 86_400 * SECOND;
const LEASE_NANOS: u64 = LEASE.as_nanos() as u64;

/// What the host's clock reads in the program: where a source's bucket ends that was full before its packet.
fn reading(program: &Program, dice: &mut Dice) -> Result<u64> {
    let source = Ipv4Addr::from_bits(dice.roll() as u32 | 1);
    let (_, limit) = program.limit_record("probe")?;
    program.act(&Frame::v4(source.octets()).bytes())?;
    let packet = packet(source.into(), None, protocol::UDP, 9, false);
    let secret = program.control()?.secret;
    let key = limit.v4.key(packet.source, packet.family, secret);
    let set = program.set_of(limit.v4.set(key, secret))?;
    let way = (0..WAYS).find(|&way| set[way].key == key).context("the source has a bucket")?;
    Ok(set[way].tat - limit.price.cost(1))
}

/// Real time in ticks.
fn real(nanos: u64) -> u64 {
    nanos * 256
}

#[test]
fn the_program_reads_what_was_published_through_expiry_return_and_thirty_days_of_silence() -> Result<()> {
    needs_root!();
    let (mut program, mut dice) = (Program::timed(PROBE)?, Dice::new(7));
    ensure!(reading(&program, &mut dice)? == real(START), "nobody ever set a speed");
    program.datapath.publish_speed(HOST_CLOCK, speed(8), None)?;
    // Until it begins all is as it was; from then on half of the time passes, to the end of the lease.
    program.wait(LEAD)?;
    let mut expected = real(START + LEAD);
    ensure!(reading(&program, &mut dice)? == expected);
    program.wait(1_000)?;
    ensure!(reading(&program, &mut dice)? == expected + real(500));
    program.wait(LEASE_NANOS - 1_000)?;
    expected += real(LEASE_NANOS / 2);
    ensure!(reading(&program, &mut dice)? == expected, "at the end of the lease");
    // The agent is silent.
    program.wait(30 * DAY)?;
    expected += real(30 * DAY);
    ensure!(reading(&program, &mut dice)? == expected, "after 30 days of silence");
    // It returns: nothing jumps, and a renewed lease goes on where it was.
    program.datapath.publish_speed(HOST_CLOCK, speed(1), None)?;
    ensure!(reading(&program, &mut dice)? == expected, "as it is published");
    program.wait(LEAD)?;
    expected += real(LEAD);
    for _ in 0..20 {
        program.wait(LEASE_NANOS / 2)?;
        program.datapath.renew_speeds()?;
        expected += real(LEASE_NANOS / 2) / 16;
        ensure!(reading(&program, &mut dice)? == expected, "while it is renewed");
    }
    // Set for a time, which no lease and no renewal outlasts.
    program.datapath.publish_speed(HOST_CLOCK, speed(4), Some(program.now() + LEAD + 8 * SECOND))?;
    program.wait(LEAD)?;
    expected += real(LEAD) / 16;
    for _ in 0..4 {
        program.wait(3 * SECOND)?;
        program.datapath.renew_speeds()?;
    }
    expected += real(2 * SECOND) + real(4 * SECOND);
    ensure!(reading(&program, &mut dice)? == expected, "when its time was over");
    program.datapath.publish_speed(HOST_CLOCK, speed(8), None)?;
    program.wait(LEAD)?;
    program.datapath.publish_speed(HOST_CLOCK, Speed::ONE, None)?;
    program.wait(LEAD + DAY)?;
    expected += real(LEAD) + real(LEAD) / 2 + real(DAY);
    ensure!(reading(&program, &mut dice)? == expected, "as fast as real time again");
    Ok(())
}

#[test]
fn what_an_agent_left_half_written_is_never_read() -> Result<()> {
    needs_root!();
    let (mut program, mut dice) = (Program::timed(PROBE)?, Dice::new(8));
    let mut clocks = program.map::<HealthClock>(maps::CLOCKS)?;
    for step in 0..50_u32 {
        let held = clocks.get(&HOST_CLOCK.into(), 0)?;
        let before = reading(&program, &mut dice)?;
        // Killed while it wrote the timeline that is read next.
        let mut torn = held;
        let next = (held.sequence + 1) & 1;
        for stretch in &mut torn.timelines[next as usize].stretches {
            *stretch = Stretch { from: dice.roll() >> 8, reading: dice.roll(), speed: speed(1) };
        }
        clocks.set(HOST_CLOCK.into(), torn, 0)?;
        ensure!(reading(&program, &mut dice)? == before, "step {step}: half a record was read");
        program.wait(dice.roll() % SECOND)?;
        let later = reading(&program, &mut dice)?;
        ensure!(later >= before, "step {step}: back from {before} to {later}");
        // The next one writes it anew.
        let at = program.now();
        program.datapath.publish_speed(HOST_CLOCK, speed(1 + dice.below(16)), None)?;
        ensure!(reading(&program, &mut dice)? == later, "step {step}: a jump at {at}");
        program.wait(2 * LEAD)?;
    }
    Ok(())
}

#[test]
fn a_clock_goes_with_its_service_and_begins_anew_with_another() -> Result<()> {
    needs_root!();
    let policy = WEB_AND_DNS.replace("burst = 10", "burst = 1");
    let mut program = Program::timed(&policy)?;
    let clock = program.datapath.clocks()["dns"];
    program.datapath.publish_speed(clock, speed(8), None)?;
    program.wait(LEAD + 2 * SECOND)?;
    let frame = Frame::v4([198, 51, 100, 7]).udp(40_000, 53).bytes();
    let admitted = |program: &Program| Ok::<_, anyhow::Error>(program.limit("dns")?.admitted.packets);
    program.act(&frame)?;
    ensure!(admitted(&program)? == 1);
    // Another place in the document, other services beside it: the same clock, the same bucket, the same speed.
    let (dns, rest) = (policy.find("[[service]]\nname = \"dns\"").unwrap(), policy.find("[[limit]]").unwrap());
    let moved = format!("mode = \"enforce\"\n{}{}", &policy[dns..rest], &policy[policy.rfind("[[limit]]").unwrap()..]);
    let more = "[[service]]\nname = \"new\"\nprotocol = \"udp\"\nports = [99]\n";
    let behind = program.datapath.clock_state(clock).behind;
    program.apply(&format!("{moved}{more}"))?;
    ensure!(program.datapath.clocks()["dns"] == clock && program.datapath.clocks()["new"] != clock);
    ensure!(program.datapath.clock_state(clock).behind == behind && behind > Duration::from_millis(900));
    program.wait(SECOND / 1000)?;
    program.act(&frame)?;
    ensure!(admitted(&program)? == 1, "half a unit has flowed in");
    program.wait(SECOND / 1000)?;
    program.act(&frame)?;
    ensure!(admitted(&program)? == 2, "a whole one");
    // Without its service nobody renews it, and whoever gets the number begins at real time.
    program.apply("mode = \"enforce\"")?;
    program.apply(&more.replace("new", "newer"))?;
    program.apply(&format!("{}{}", more.replace("new", "newer"), more.replace("99", "98")))?;
    for clock in program.datapath.clocks().into_values() {
        ensure!(program.datapath.clock_state(clock).behind.is_zero(), "clock {clock} begins anew");
    }
    ensure!(program.datapath.publish_speed(MAX_CLOCKS as u16, Speed::ONE, None).is_err());
    ensure!(program.datapath.publish_speed(NO_CLOCK, Speed::ONE, None).is_err());
    Ok(())
}
