//! A host that stays up for as long as the clock of buckets takes to turn, and longer.

use anyhow::{Context, Result, ensure};
use throttle_common::{gcra::TICKS_PER_NANO, words::Reason};
use throttle_tests::{
    frames::Frame,
    needs_root,
    program::{Program, SECOND, START},
};

/// Nanoseconds after which the clock of buckets reads the same again: 2.28 years.
const TURN: u64 = u64::MAX / TICKS_PER_NANO + 1;
const HOUR: u64 = 3600 * SECOND;
/// A source that comes back after all that time; others come once.
const OLD: [u8; 4] = [198, 51, 100, 1];

#[test]
fn nobody_owes_what_was_admitted_a_turn_of_the_clock_ago_nor_anything_for_the_time_before_the_boot() -> Result<()> {
    needs_root!();
    for algorithm in ["token-bucket", "leaky-bucket", "fixed-window", "sliding-window"] {
        for per in ["source", "host"] {
            turn(algorithm, per).with_context(|| format!("{algorithm} per {per}"))?;
        }
    }
    Ok(())
}

fn turn(algorithm: &str, per: &str) -> Result<()> {
    let limit = format!(
        "[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"2/min\"\nalgorithm = \"{algorithm}\"\nper = \"{per}\"\n"
    );
    let mut program = Program::timed(&format!("mode = \"enforce\"\n{limit}"))?;
    let judge = |program: &Program, from| Ok::<_, anyhow::Error>(program.judge(&Frame::v4(from).bytes())?.reason);
    while judge(&program, OLD)? == Reason::Admitted {}
    while program.now() < TURN - 300 * 24 * HOUR {
        program.wait(300 * 24 * HOUR)?;
        program.datapath.bound_debts();
    }
    // For two days, what the clock reads is behind what it read when a bucket was charged, or never was.
    let others = (2..).map(|number| [198, 51, 100, number]);
    let times = [TURN - 47 * HOUR, TURN - HOUR, TURN, TURN + HOUR].into_iter().zip(others);
    for (at, from) in times.chain([(TURN + START - HOUR, OLD)]) {
        program.wait(at - program.now())?;
        let met = judge(&program, from)?;
        ensure!(met == Reason::Admitted, "{from:?} met {met:?} after {} h", program.now() / HOUR);
    }
    Ok(())
}
