//! What limits admit by clocks whose speed changes.

use super::{PROBE, WEB_AND_DNS, speed};
use anyhow::{Result, ensure};
use std::{
    net::Ipv4Addr,
    sync::{
        RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use throttle_common::{
    records::HOST_CLOCK,
    speed::{LEAD, Speed},
};
use throttle_tests::{
    frames::{Dice, Frame},
    machine, needs_root,
    program::{Program, SECOND},
    say,
    wire::Wire,
};

/// Speeds that follow each other, a tenth of a second each, and packets offered to each limit meanwhile in a second.
const TENTHS: u64 = 200;
const OFFERED: u64 = 100_000;
/// For how long it is measured in real time.
const SPAN: Duration = Duration::from_secs(5);
/// Sources that send a packet each, and what all of them share in a second.
const SOURCES: u32 = 1_000_000;
const SHARED: u64 = 10_000;

#[test]
fn a_speed_that_changes_every_tenth_of_a_second_admits_what_is_entitled() -> Result<()> {
    needs_root!();
    let (mut program, mut dice) = (Program::timed(WEB_AND_DNS)?, Dice::new(9));
    let clock = program.datapath.clocks()["web"];
    let frames = [80, 53].map(|port| Frame::v4([198, 51, 100, 7]).udp(40_000, port).bytes());
    // Virtual nanoseconds that have passed, by the speeds alone.
    let (mut entitled, mut held) = (0.0, 1.0);
    for _ in 0..TENTHS {
        let sixteenths = 1 + dice.below(16);
        let share = sixteenths as f64 / 16.0;
        program.datapath.publish_speed(clock, speed(sixteenths), None)?;
        entitled += LEAD as f64 * held + (SECOND / 10 - LEAD) as f64 * share;
        held = share;
        let step = SECOND / OFFERED;
        for _ in 0..OFFERED / 10 {
            for frame in &frames {
                program.act(frame)?;
            }
            program.wait(step)?;
        }
    }
    for (name, entitled) in [("web", 10.0 + entitled / 1e6), ("dns", 10.0 + TENTHS as f64 * 100.0)] {
        let admitted = program.limit(name)?.admitted.packets as f64;
        let off = (admitted - entitled) / entitled * 100.0;
        say!("speeds: {name}: {admitted} admitted, {entitled:.1} entitled, off by {off:.3} %");
        ensure!(off.abs() <= 1.0 || (admitted - entitled).abs() <= 1.0, "{name}: {admitted} of {entitled:.1}");
    }
    Ok(())
}

#[test]
fn so_it_does_in_real_time_on_one_cpu_and_on_two() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    for cpus in [1, 2] {
        let wire = Wire::silent()?;
        let mut program = Program::live(&PROBE.replace("1000/s", "100000/s"))?;
        // A program that is attached somewhere is called directly, and a test run need not arrange for that each time.
        program.attach(&wire)?;
        let program = RwLock::new(program);
        let frame = Frame::v4([198, 51, 100, 7]).bytes();
        let over = AtomicBool::new(false);
        let look = |program: &Program| -> Result<(u64, u64)> {
            let now = machine::monotonic();
            Ok((program.datapath.followed(HOST_CLOCK).at(now), program.limit("probe")?.admitted.packets))
        };
        let (before, after, tenths) = thread::scope(|scope| -> Result<_> {
            for cpu in 0..cpus {
                let (program, frame, over) = (&program, &frame, &over);
                scope.spawn(move || -> Result<()> {
                    machine::seize(cpu)?;
                    while !over.load(Ordering::Relaxed) {
                        program.read().expect("nobody panics").datapath.test_run(frame, 200)?;
                    }
                    Ok(())
                });
            }
            let mut dice = Dice::new(10);
            // What the bucket held at first is used up by then.
            thread::sleep(Duration::from_secs(2));
            let before = look(&program.read().expect("nobody panics"))?;
            let (begin, mut tenths) = (machine::monotonic(), 0);
            while machine::monotonic() - begin < SPAN.as_nanos() as u64 {
                let speed = speed(1 + dice.below(16));
                program.write().expect("nobody panics").datapath.publish_speed(HOST_CLOCK, speed, None)?;
                tenths += 1;
                thread::sleep(Duration::from_millis(100));
            }
            let after = look(&program.read().expect("nobody panics"));
            over.store(true, Ordering::Relaxed);
            Ok((before, after?, tenths))
        })?;
        let (entitled, admitted) = ((after.0 - before.0) as f64 / 256.0 / 1e4, (after.1 - before.1) as f64);
        let off = (admitted - entitled) / entitled * 100.0;
        say!("speeds: {cpus} CPUs, {tenths} speeds: {admitted} admitted, {entitled:.1} entitled, off by {off:.3} %");
        ensure!(off.abs() <= 1.0, "{cpus} CPUs: {admitted} of {entitled:.1}");
    }
    Ok(())
}

#[test]
fn a_million_sources_below_their_limits_are_held_by_what_they_share() -> Result<()> {
    needs_root!();
    let policy = "mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n\
        [[limit]]\nname = \"each\"\nservice = \"web\"\nunit = \"packets\"\nrate = \"1000/s\"\n\
        [[limit]]\nname = \"all\"\nservice = \"web\"\nunit = \"packets\"\nrate = \"10000/s\"\nburst = 100\nper = \"service\"\n";
    let mut program = Program::timed(policy)?;
    let clock = program.datapath.clocks()["web"];
    let reads = |program: &Program| program.datapath.followed(clock).at(program.now());
    let (begin, read) = (program.now(), reads(&program));
    // A hundred thousand a second, each of another source; a fifth of them at the speed of real time.
    for source in 0..SOURCES {
        program.act(&Frame::v4(Ipv4Addr::from_bits(0x0a00_0000 + source)).udp(40_000, 80).bytes())?;
        program.wait(SECOND / 100_000)?;
        if source == SOURCES / 5 {
            program.datapath.publish_speed(clock, Speed::LEAST, None)?;
        }
        if source % 100_000 == 0 {
            program.datapath.renew_speeds()?;
        }
    }
    let passed = (reads(&program) - read) as f64 / 256e9;
    let spent = (program.now() - begin) as f64 / 1e9;
    ensure!((passed - spent * (0.2 + 0.8 / 16.0)).abs() < 0.01, "it ran at a sixteenth: {passed} of {spent}");
    let entitled = 100.0 + passed * SHARED as f64;
    let (each, all) = (program.limit("each")?, program.limit("all")?);
    let admitted = all.admitted.packets as f64;
    say!("speeds: {SOURCES} sources: {admitted} admitted, {entitled:.1} entitled, {} refused", all.refused.packets);
    ensure!(each.refused.packets == 0 && each.overflowed.packets == 0, "each stays below its limit: {each:?}");
    ensure!((admitted - entitled).abs() <= entitled / 100.0, "{admitted} of {entitled:.1}");
    Ok(())
}
