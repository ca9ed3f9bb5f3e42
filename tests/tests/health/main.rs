//! A real server under more than it can bear: a short form of what `cargo xtask bench -- overload` measures.

use anyhow::{Result, ensure};
use std::{path::Path, time::Duration};
use throttle_tests::{
    demand::Answers,
    machine, needs_root,
    outcome::Outcome,
    overload::{self, Guard},
    say,
    simulator::scenario::Phase,
};

const fn phase(name: &'static str, seconds: u64, load: f64, capacity: f64) -> Phase {
    Phase { name, seconds, load, capacity }
}

const PHASES: [Phase; 4] = [
    phase("0.7x", 3, 0.7, 1.0),
    phase("2x", 5, 2.0, 1.0),
    phase("0.9x at 40 % capacity", 5, 0.9, 0.4),
    phase("back to 0.7x", 5, 0.7, 1.0),
];

/// Clients come by the clock, a few milliseconds late at most, unless the machine stands still under them, and then under
/// the server too.
const LATE: Duration = Duration::from_millis(50);
const ATTEMPTS: usize = 3;

fn run(guard: Guard) -> Result<Answers> {
    let measure = || overload::run(guard, &PHASES, Path::new(env!("CARGO_BIN_EXE_bench")));
    let mut answers = measure()?;
    for _ in 1..ATTEMPTS {
        if answers.late < LATE {
            break;
        }
        say!("{}: the machine stood still, and clients came late by {:?}; once more", guard.name(), answers.late);
        answers = measure()?;
    }
    let goodputs: Vec<_> = answers.phases.iter().map(Outcome::goodput).collect();
    say!("{}: goodput {goodputs:.3?}, {:?}, clients late by {:?}", guard.name(), answers.attempts, answers.late);
    ensure!(goodputs[0] >= 0.95, "the server has not the capacity that it is said to have");
    Ok(answers)
}

#[test]
fn overload_leaves_nothing_even_when_it_is_over_but_where_a_limit_follows_health() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let unguarded = run(Guard::Nothing)?;
    ensure!(unguarded.phases[1].goodput() < 0.5, "twice the capacity left the unguarded server standing");
    let limited = run(Guard::AtCapacity)?;
    ensure!(limited.phases[1].goodput() >= 0.8, "a limit at capacity does not hold what it is made for");
    for answers in [unguarded, limited] {
        for phase in &answers.phases[2..] {
            ensure!(phase.goodput() < 0.5, "{phase:?}");
        }
        ensure!(answers.phases[3].recovery().is_none(), "it recovered by itself: {:?}", answers.phases[3]);
    }
    let followed = run(Guard::Health)?;
    for phase in &followed.phases[1..] {
        ensure!(phase.goodput() >= 0.9, "{phase:?}");
    }
    Ok(())
}
