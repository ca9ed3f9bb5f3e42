//! Two CPUs on one set with more sources than it has ways: what the races of a take-over cost.

use anyhow::{Result, ensure};
use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use throttle_tests::{
    frames::Frame,
    machine, needs_root,
    program::{Program, SECOND, action},
    say,
};

use crate::SPAN;

#[test]
fn more_sources_than_ways_on_two_cpus_stay_within_the_bound() -> Result<()> {
    const SOURCES: usize = 6;
    const PER_SECOND: u64 = 20_000;
    needs_root!();
    let _machine = machine::alone()?;
    let program = Program::live(&format!(
        "mode = \"enforce\"\n[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"{PER_SECOND}/s\"\nburst = 1\n\
         sources = 3\noverflow = \"refuse\"\n"
    ))?;
    ensure!(program.limit_record("l")?.1.v4.sets == 1, "the region is one set");
    let cpus = machine::cpus().min(2);
    let frames: Vec<_> = (0..SOURCES as u8).map(|host| Frame::v4([198, 51, 100, host]).bytes()).collect();
    let admitted: Vec<AtomicU64> = (0..SOURCES).map(|_| AtomicU64::new(0)).collect();
    let (over, barrier) = (AtomicBool::new(false), Barrier::new(cpus + 1));
    let window = thread::scope(|scope| -> Result<u64> {
        let hammers: Vec<_> = (0..cpus)
            .map(|cpu| {
                let (program, frames, admitted, over, barrier) = (&program, &frames, &admitted, &over, &barrier);
                scope.spawn(move || -> Result<()> {
                    machine::pin_to(cpu)?;
                    barrier.wait();
                    while !over.load(Ordering::Relaxed) {
                        for (frame, admitted) in frames.iter().zip(admitted) {
                            if program.act(frame)? == action::PASS {
                                admitted.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        barrier.wait();
        let start = machine::monotonic();
        thread::sleep(Duration::from_nanos(SPAN));
        over.store(true, Ordering::Relaxed);
        hammers.into_iter().try_for_each(|hammer| hammer.join().expect("no hammer panics"))?;
        Ok(machine::monotonic() - start)
    })?;
    let admitted: Vec<u64> = admitted.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    // In the time of one charge a source is charged once in its slot, and once more on each other CPU that takes a slot
    // over for it at that moment.
    let charges = 1 + window * PER_SECOND / SECOND;
    let total: u64 = admitted.iter().sum();
    let ways = throttle_common::table::OPEN_WAYS as u64;
    say!(
        "one set, {SOURCES} sources, {cpus} CPUs: {total} admitted, {} without any race: {admitted:?}",
        ways * charges
    );
    ensure!(total <= cpus as u64 * ways * charges, "{total} admitted in {ways} slots of {charges} charges each");
    for count in admitted {
        ensure!(count <= cpus as u64 * charges, "a source was admitted {count} times, {charges} is its right");
    }
    Ok(())
}
