//! Every level, algorithm and unit by a clock that the test sets, so that what is due is known to the packet: on one CPU, on
//! two by turns, and on two at the same instants; at the speed of real time, and at speeds that change every tenth of a
//! second.

use crate::levels::{Algorithm, Limit};
use anyhow::{Context, Result, ensure};
use std::{
    sync::{
        RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};
use throttle_common::{gcra, speed::Speed};
use throttle_tests::{
    frames::Dice,
    machine, needs_root,
    program::{Program, SECOND},
    say,
    wire::Wire,
};

/// Frames a second.
const RATE: u64 = 200;
/// In how many steps the time of a frame passes. A leaky bucket that is empty within a step is due its next frame only
/// with the next one, so that these must be shorter where they are not parts of its own time.
const STEPS: u64 = 4;
const SHORT_STEPS: u64 = 128;
/// Steps after which it is another CPU's turn.
const TURN: u64 = 100;
/// Frames that each CPU offers at a step.
const OFFERED: u32 = 2;
/// For how long it goes on, by the limit's clock: whole windows, or less where there are none and steps are short.
const SPAN: u64 = 2 * SECOND;
const SHORT_SPAN: u64 = SECOND / 2;

/// Who offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cpus {
    One,
    ByTurns,
    Both,
}

#[test]
fn every_level_admits_what_is_due_whichever_cpus_ask_and_however_fast_its_clock_runs() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::silent()?;
    let mut program = Program::timed("")?;
    // A program that is attached somewhere is called directly, and a test run need not arrange for that each time.
    program.attach(&wire)?;
    let program = RwLock::new(program);
    let ways = if machine::cpus() > 1 { &[Cpus::One, Cpus::ByTurns, Cpus::Both][..] } else { &[Cpus::One] };
    let measured = thread::scope(|scope| scope.spawn(|| weigh(&program, ways)).join().expect("it does not panic"));
    let (count, off, what) = measured?;
    say!("by the clock: {count} ways to ask, each within 1 % or one frame of what is due; the worst {off:+.2}: {what}");
    Ok(())
}

/// Measures every limit in these ways, from this thread, which goes from CPU to CPU; gives how often, and by how many frames
/// what was admitted is off at most.
fn weigh(program: &RwLock<Program>, ways: &[Cpus]) -> Result<(u32, f64, String)> {
    let (last, mut measured, mut worst) = (machine::cpus() - 1, 0, (0.0, String::new()));
    for limit in Limit::all(RATE) {
        write(program).apply(&limit.policy()).with_context(|| format!("{limit:?}"))?;
        for changing in [false, true] {
            for cpus in ways {
                let what = format!("{limit:?}, {cpus:?}, speeds change: {changing}");
                let speeds = if changing { Some(Dice::new(11)) } else { None };
                let (admitted, due) = measure(program, &limit, (*cpus, last), speeds).with_context(|| what.clone())?;
                let off = admitted as f64 - due;
                let slack = (due / 100.0).max(1.01);
                ensure!(off.abs() <= slack, "{what}: {admitted} admitted of {due:.2}");
                measured += 1;
                if f64::abs(off) > f64::abs(worst.0) {
                    worst = (off, format!("{admitted} of {due:.2}, {what}"));
                }
            }
        }
    }
    Ok((measured, worst.0, worst.1))
}

fn write(program: &RwLock<Program>) -> std::sync::RwLockWriteGuard<'_, Program> {
    program.write().expect("nobody panics")
}

fn read(program: &RwLock<Program>) -> std::sync::RwLockReadGuard<'_, Program> {
    program.read().expect("nobody panics")
}

/// Offers more than is due from full buckets on, up to the last CPU; gives what was admitted and what was due.
fn measure(
    program: &RwLock<Program>,
    limit: &Limit,
    (cpus, last): (Cpus, usize),
    mut speeds: Option<Dice>,
) -> Result<(u64, f64)> {
    let short = speeds.is_some() && limit.algorithm == Algorithm::LeakyBucket;
    let (steps, span) = if short { (SHORT_STEPS, SHORT_SPAN) } else { (STEPS, SPAN) };
    let clock = rest(&mut write(program))?;
    let reads = || {
        let program = read(program);
        program.datapath.followed(clock).at(program.now())
    };
    let admitted = || Ok::<_, anyhow::Error>(read(program).limit(limit.counted())?.admitted.packets);
    let frames: Vec<_> = (0..8).map(|turn| limit.frame_of(source(limit, turn))).collect();
    let offer = |step: u64| {
        let frame = &frames[step as usize % frames.len()];
        read(program).datapath.test_run(frame, OFFERED).map(drop)
    };
    let (begin, before) = (reads(), admitted()?);
    let mut offered_at = begin;
    let mut run = |other: Option<&Other>| {
        machine::pin_to(0)?;
        for step in 0.. {
            let now = reads();
            if now - begin >= gcra::ticks(span) {
                break;
            }
            offered_at = now;
            if cpus == Cpus::ByTurns && step % TURN == 0 {
                machine::pin_to(if (step / TURN).is_multiple_of(2) { 0 } else { last })?;
            }
            match other {
                Some(other) => other.beside(step, || offer(step))?,
                None => offer(step)?,
            }
            let mut program = write(program);
            program.wait(SECOND / (steps * RATE))?;
            if let Some(dice) = &mut speeds
                && step % (steps * RATE / 10) == 0
            {
                let parts = Speed::LEAST.parts() * (1 + dice.below(16) as u64);
                program.datapath.publish_speed(clock, Speed::of_parts(parts).context("a speed")?, None)?;
            }
        }
        Ok(())
    };
    if cpus == Cpus::Both {
        beside_another(last, offer, |other| run(Some(other)))?;
    } else {
        run(None)?;
    }
    Ok((admitted()? - before, limit.due((offered_at - begin) as f64 / gcra::TICKS_PER_NANO as f64)))
}

/// Waits until all buckets are full and a window begins, by the clock of the limit, which runs as fast as real time again;
/// gives its number.
fn rest(program: &mut Program) -> Result<u16> {
    let clock = program.limit_record("l")?.1.clock;
    program.datapath.publish_speed(clock, Speed::ONE, None)?;
    program.rest()?;
    let past = program.datapath.followed(clock).at(program.now()) % gcra::ticks(SECOND);
    program.wait((gcra::ticks(SECOND) - past).div_ceil(gcra::TICKS_PER_NANO))?;
    Ok(clock)
}

/// One of those who share what the limit allows.
fn source(limit: &Limit, turn: u64) -> [u8; 4] {
    let lowest = limit.level.turns & limit.level.turns.wrapping_neg();
    let first = u64::from(u32::from_be_bytes(crate::SOURCE)) & !limit.level.turns;
    ((first | (turn * lowest)) as u32).to_be_bytes()
}

/// The other CPU, which offers at the same steps.
#[derive(Default)]
struct Other {
    /// The step that both are in, counted from one.
    told: AtomicU64,
    done: AtomicU64,
    over: AtomicBool,
}

impl Other {
    /// Has it offer at a step while `here` does.
    fn beside(&self, step: u64, here: impl FnOnce() -> Result<()>) -> Result<()> {
        self.told.store(step + 1, Ordering::SeqCst);
        here()?;
        while self.done.load(Ordering::SeqCst) <= step {
            ensure!(!self.over.load(Ordering::SeqCst), "the other CPU has failed");
            std::hint::spin_loop();
        }
        Ok(())
    }

    fn offer_when_told(&self, offer: impl Fn(u64) -> Result<()>) -> Result<()> {
        let mut done = 0;
        while !self.over.load(Ordering::SeqCst) {
            if self.told.load(Ordering::SeqCst) > done {
                offer(done)?;
                done += 1;
                self.done.store(done, Ordering::SeqCst);
            }
            std::hint::spin_loop();
        }
        Ok(())
    }
}

/// Acts here while another CPU offers at each step that it is told of.
fn beside_another(
    cpu: usize,
    offer: impl Fn(u64) -> Result<()> + Sync,
    act: impl FnOnce(&Other) -> Result<()>,
) -> Result<()> {
    let other = Other::default();
    thread::scope(|scope| {
        let there = scope.spawn(|| {
            let offered = machine::seize(cpu).and_then(|()| other.offer_when_told(&offer));
            other.over.store(true, Ordering::SeqCst);
            offered
        });
        let acted = act(&other);
        other.over.store(true, Ordering::SeqCst);
        there.join().expect("it does not panic").and(acted)
    })
}
