//! All CPUs at once on one set: what the races of a take-over and of a charge cost. The clock stands still in each round,
//! so that a bucket admits its burst and not one packet more.

use anyhow::{Result, ensure};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};
use throttle_agent::datapath::Mode;
use throttle_common::table::OPEN_WAYS;
use throttle_tests::{
    frames::Frame,
    machine, needs_root,
    program::Program,
    say,
    wire::{FAR, Wire},
};

const BURST: u64 = 100;
/// Frames of one source in one call into the kernel, on each CPU: more than its burst, so that they meet in there.
const REPEATED: u32 = 256;
/// How long each law is put to the test, and how often at least: both of that on a busy machine.
const SPAN: Duration = Duration::from_secs(2);
const ROUNDS: u32 = 200;

#[test]
fn one_source_on_all_cpus_gets_its_burst_and_at_most_a_charge_for_each_other_cpu() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let most = BURST + others();
    let rounds = hammer(1, |admitted| {
        ensure!((BURST..=most).contains(&admitted), "{admitted} were admitted of a burst of {BURST}, at most {most}");
        Ok(())
    })?;
    say!("one source on {} CPUs, {rounds}", machine::cpus());
    Ok(())
}

#[test]
fn more_sources_than_ways_on_all_cpus_stay_within_the_bound() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    // Each way is taken once; at this instant it is never free again.
    let most = OPEN_WAYS as u64 * (BURST + others());
    let least = OPEN_WAYS as u64 * BURST;
    let rounds = hammer(2 * OPEN_WAYS, |admitted| {
        ensure!((least..=most).contains(&admitted), "{admitted} were admitted by buckets of {least}, at most {most}");
        Ok(())
    })?;
    say!("{} sources in {OPEN_WAYS} ways on {} CPUs, {rounds}", 2 * OPEN_WAYS, machine::cpus());
    Ok(())
}

/// Other CPUs that may take a slot over for the same source at the same moment.
fn others() -> u64 {
    machine::cpus() as u64 - 1
}

/// Sends from all CPUs at once, round after round from full buckets on, each source more often than its burst; `check`
/// is given what a round admitted. Says how many rounds there were, and how many cost a charge more than no race does.
fn hammer(sources: usize, check: impl Fn(u64) -> Result<()>) -> Result<String> {
    let mut program = Program::timed(&format!(
        "mode = \"enforce\"\n[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"1/s\"\nburst = {BURST}\n\
         sources = {OPEN_WAYS}\noverflow = \"refuse\"\n"
    ))?;
    ensure!(program.limit_record("l")?.1.v4.sets == 1, "the region is one set");
    // A program that is attached somewhere is called directly, and a test run need not arrange for that each time.
    let wire = Wire::silent()?;
    wire.far.enter(|| program.datapath.attach(FAR, Mode::Native))??;
    let frames: Vec<_> = (0..sources as u8).map(|host| Frame::v4([198, 51, 100, host]).bytes()).collect();
    let without_race = BURST * OPEN_WAYS.min(sources) as u64;
    let (mut rounds, mut dear, start) = (0u32, 0u32, Instant::now());
    while start.elapsed() < SPAN || rounds < ROUNDS {
        ensure!(start.elapsed() < 30 * SPAN, "only {rounds} rounds in {:?}: too few to tell", start.elapsed());
        program.rest()?;
        let before = program.limit("l")?.admitted.packets;
        together(|cpu| {
            // Half of the CPUs begin at the other end, and all meet on the way.
            let from = if cpu % 2 == 0 { 0 } else { sources / 2 };
            frames[from..]
                .iter()
                .chain(&frames[..from])
                .try_for_each(|frame| program.datapath.test_run(frame, REPEATED).map(drop))
        })?;
        let admitted = program.limit("l")?.admitted.packets - before;
        check(admitted)?;
        rounds += 1;
        dear += u32::from(admitted > without_race);
    }
    Ok(format!("{rounds} rounds: a race cost a charge in {dear}"))
}

/// Acts on every CPU at the same moment.
fn together(act: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let cpus = machine::cpus();
    let (arrived, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus)
            .map(|cpu| {
                let (act, arrived, failed) = (&act, &arrived, &failed);
                scope.spawn(move || {
                    let pinned = machine::pin_to(cpu);
                    failed.fetch_or(pinned.is_err(), Ordering::Relaxed);
                    arrived.fetch_add(1, Ordering::SeqCst);
                    // A barrier that sleeps wakes its threads one after the other.
                    while arrived.load(Ordering::SeqCst) < cpus as u64 {
                        std::hint::spin_loop();
                    }
                    pinned?;
                    if failed.load(Ordering::Relaxed) { Ok(()) } else { act(cpu) }
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })
}
