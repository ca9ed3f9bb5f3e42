//! How phases of load are shown, simulated and real: a table of recoveries, and good answers over time.

use super::chart;
use anyhow::Result;
use std::fmt::Write as _;
use throttle_tests::{
    outcome::{Outcome, RECOVERED},
    simulator::scenario::{CAPACITY, Phase},
};

/// The phases of the scenario that begin with something to recover from, and what that is.
const RECOVERIES: [(usize, &str); 3] = [(2, "the cut"), (3, "its end"), (5, "5x")];

/// Begins a table of seconds until the first second began that had [`RECOVERED`] of what was possible, with more columns.
pub(super) fn begin_recoveries(text: &mut String, who: &str, more: &[&str]) -> Result<()> {
    let heads: Vec<_> = RECOVERIES.iter().map(|(_, what)| format!("recovers from {what}, s")).collect();
    let heads: Vec<_> = heads.iter().map(String::as_str).chain(more.iter().copied()).collect();
    writeln!(
        text,
        "\nRecovered is who gives {RECOVERED} of what is possible for a second; the seconds until that one begins.\n"
    )?;
    Ok(writeln!(text, "| {who} | {} |\n|---{}|", heads.join(" | "), "|---:".repeat(heads.len()))?)
}

/// Begins a row of it: the mean of the runs, where all of them recovered.
pub(super) fn recoveries(text: &mut String, name: &str, runs: &[&[Outcome]]) -> Result<()> {
    write!(text, "| {name} |")?;
    for (phase, _) in RECOVERIES {
        match mean(runs, phase, Outcome::recovery) {
            Some(seconds) => write!(text, " {seconds:.1} |")?,
            None => write!(text, " never |")?,
        }
    }
    Ok(())
}

/// The mean over the runs of what a phase has of something, where it has it in all of them.
pub(super) fn mean(runs: &[&[Outcome]], phase: usize, of: impl Fn(&Outcome) -> Option<f64>) -> Option<f64> {
    let all: Option<Vec<_>> = runs.iter().map(|phases| of(&phases[phase])).collect();
    all.map(|all| all.iter().sum::<f64>() / all.len() as f64)
}

/// The good answers of each second, beside what is possible.
pub(super) fn draw(title: &str, phases: &[Phase], rows: &[(&str, &[Outcome])]) -> String {
    let mut lines = vec![("possible", Vec::new())];
    let (mut marks, mut start) = (Vec::new(), 0.0);
    for phase in phases {
        let possible = phase.load.min(phase.capacity) * CAPACITY;
        marks.push((start, phase.name));
        lines[0].1.extend([[start, possible], [start + phase.seconds as f64, possible]]);
        start += phase.seconds as f64;
    }
    for (name, outcomes) in rows {
        let seconds = outcomes.iter().flat_map(Outcome::seconds).zip(0u32..);
        lines.push((name, seconds.map(|(good, second)| [f64::from(second) + 0.5, good]).collect()));
    }
    chart::timeline(title, ["seconds", "good answers a second"], &marks, &lines)
}
