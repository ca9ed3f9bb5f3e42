//! A service of several backends of which one fails, by who stands before it.

use super::super::report::{Effort, Section};
use super::overload::{LIMITS, Named};
use anyhow::Result;
use std::fmt::Write as _;
use throttle_tests::simulator::fleet::{self, BACKENDS, Fault, Guard, Health, LOAD, Only, Script};

const SEEDS: usize = 5;
/// How long all are well, one fails, and all are well again.
const SECONDS: [u64; 3] = [20, 60, 60];
const FAULTS: [(&str, Fault); 5] = [
    ("cut off", Fault::Silent),
    ("hangs", Fault::Hangs),
    ("20 times as slow", Fault::Slow(20)),
    ("60 times as slow", Fault::Slow(60)),
    ("answers errors at once", Fault::Errors),
];

/// Simulates, and gives the table.
pub(super) fn simulate(section: &mut Section, effort: Effort) -> Result<()> {
    eprintln!("a backend that fails");
    let seeds = effort.rounds(SEEDS) as u64;
    let [_, during, after] = SECONDS;
    writeln!(
        section.text,
        "\n## A backend that fails\n\nOne of {BACKENDS} backends fails for {during} s; a balancer gives each request to the next, \
         whatever became of the one before, and goes on where a connection is refused. {:.0} % of the capacity of all is asked \
         for, so that three can bear it. Good answers come within the objective of the first time that a client asked: of all \
         that was asked while it failed, and in parentheses in the {after} s after. throttle probes every 200 ms; its \
         controller, detector, breakers and the bound on who is kept away run in a loop with the kernel's arithmetic of \
         breakers. The others see the service as a whole. Means of {seeds} seeds.\n",
        LOAD * 100.0
    )?;
    let heads: Vec<_> = FAULTS.iter().map(|(name, _)| *name).collect();
    writeln!(section.text, "| limit | {} |\n|---|{}", heads.join(" | "), "---:|".repeat(FAULTS.len()))?;
    for (name, limit) in LIMITS.iter().filter(|(name, _)| !name.contains("throttle")) {
        let limit: &Named = &(*name, *limit);
        row(section, name, seeds, |script, seed| fleet::run(script, &mut Only(&mut *limit.1(seed)), seed))?;
    }
    row(section, "**throttle**", seeds, |script, seed| {
        fleet::run(script, &mut Health::default() as &mut dyn Guard, seed)
    })?;
    write!(section.text, "\nthrottle kept it away after")?;
    for (number, (name, fault)) in FAULTS.iter().enumerate() {
        let script = Script { failing: 1, fault: *fault, seconds: SECONDS };
        let outcome = fleet::run(script, &mut Health::default(), 1);
        let time = outcome.kept_away.map_or_else(|| "never".to_owned(), |time| format!("{:.1} s", time as f64 / 1e9));
        write!(section.text, "{} {time} ({name})", if number == 0 { "" } else { "," })?;
    }
    Ok(writeln!(section.text, ", with the first seed.")?)
}

fn row(section: &mut Section, name: &str, seeds: u64, run: impl Fn(Script, u64) -> fleet::Outcome) -> Result<()> {
    write!(section.text, "| {name} |")?;
    for (_, fault) in FAULTS {
        let script = Script { failing: 1, fault, seconds: SECONDS };
        let [mut during, mut after] = [0.0; 2];
        for seed in 1..=seeds {
            let [_, fails, well] = run(script, seed).goodput;
            during += fails / seeds as f64;
            after += well / seeds as f64;
        }
        write!(section.text, " {during:.3} ({after:.3}) |")?;
    }
    Ok(writeln!(section.text)?)
}
