//! A day of backends that beat, pause, crash and come back: the agent's detector beside fixed timeouts.

use super::super::{
    chart,
    report::{Effort, Section},
};
use anyhow::Result;
use std::fmt::Write as _;
use throttle_agent::health::{MILLISECOND, detector::INTERVAL};
use throttle_tests::simulator::detection::{Day, Detected, Outcome, TIMEOUTS, run};

/// Mistakes in a node's day, and milliseconds until 99 % of crashes are found: softly, and for good.
const GOAL: (f64, [f64; 2]) = (1.0, [700.0, 1_200.0]);
const SEED: u64 = 1;

/// Simulates, and says what came of it.
pub(super) fn simulate(section: &mut Section, effort: Effort) -> Result<()> {
    eprintln!("a day of heartbeats");
    let day = Day { nodes: 40, hours: if effort.short { 2 } else { 24 }, traffic: true };
    let outcome = run(day, SEED);
    let without = run(Day { traffic: false, ..day }, SEED);
    let interval = INTERVAL / MILLISECOND;
    writeln!(
        section.text,
        "\n## Who is dead\n\n{} backends for {} hours, each with a beat every {interval} ms over a link that is calm for an hour \
         and loses packets in bursts for the next. Senders pause for 0.3 s now and then, the observer for 1.2 s; backends \
         crash about once an hour. A fixed timeout sees the same beats, and is forgiven the observer's pauses as throttle is.\n\n\
         | detector | crashes found | half within, ms | 99 % within, ms | mistakes | in a node's day |\n\
         |---|---:|---:|---:|---:|---:|",
        day.nodes, day.hours,
    )?;
    let mut rows = vec![
        ("**throttle**: suspect, and slowed".to_owned(), &outcome.soft),
        ("**throttle**: dead, and ejected".to_owned(), &outcome.hard),
        ("**throttle**: dead, of those without traffic".to_owned(), &without.hard),
    ];
    let ours = rows.len();
    let timeouts = TIMEOUTS.iter().zip(&outcome.fixed);
    rows.extend(timeouts.map(|(tenths, found)| (format!("a timeout of {} ms", tenths * interval / 10), found)));
    for (name, detected) in &rows {
        writeln!(
            section.text,
            "| {name} | {} | {:.0} | {:.0} | {} | {:.2} |",
            detected.times.len(),
            detected.percentile(50),
            detected.percentile(99),
            detected.mistakes,
            detected.per_node_day(day),
        )?;
    }
    let (equal, idle) = (equal(&outcome), without.hard.per_node_day(day));
    judge(section, &outcome, equal, idle, day)?;
    // What is slower than the equal one, and makes fewer mistakes, is nobody's choice.
    rows.truncate(ours + equal.map_or(TIMEOUTS.len(), |equal| equal + 1));
    let title = "How soon a crash is found, and how often a backend that lives is taken for dead";
    let name = |name: &str, detected: &Detected| {
        format!("{}: {:.1} mistakes a day", name.replace("**", ""), detected.per_node_day(day))
    };
    let named: Vec<_> = rows.iter().map(|(of, detected)| (name(of, detected), *detected)).collect();
    let bars: Vec<_> = named
        .iter()
        .map(|(name, detected)| (name.as_str(), vec![Some(detected.percentile(50)), Some(detected.percentile(99))]))
        .collect();
    let svg = chart::bars(
        title,
        "milliseconds from the crash; mistakes in a node's day",
        &["half within", "99 % within"],
        &bars,
    );
    section.draw("health-detector", title, svg);
    Ok(())
}

/// The shortest of the timeouts that makes no more mistakes than throttle.
fn equal(outcome: &Outcome) -> Option<usize> {
    outcome.fixed.iter().position(|fixed| fixed.mistakes <= outcome.hard.mistakes)
}

/// Says how it stands with the goal, and how long a timeout takes that is as often right.
fn judge(section: &mut Section, outcome: &Outcome, equal: Option<usize>, idle: f64, day: Day) -> Result<()> {
    let (mistakes, [soft, hard]) = GOAL;
    writeln!(
        section.text,
        "\nSuspect within {:.0} ms, dead within {:.0} ms at the 99th percentile, {:.2} mistakes in a node's day (goal: {soft:.0}, \
         {hard:.0}, {mistakes:.0}); {idle:.2} where backends have no traffic but beats and probes, so that the kernel sees \
         nothing else of them. At most {} of {} were ejected at once.",
        outcome.soft.percentile(99),
        outcome.hard.percentile(99),
        outcome.hard.per_node_day(day),
        outcome.most_ejected,
        day.nodes,
    )?;
    match equal {
        Some(equal) => writeln!(
            section.text,
            "The shortest timeout here with as few mistakes is {} ms, which finds 99 % within {:.0} ms.",
            TIMEOUTS[equal] * INTERVAL / MILLISECOND / 10,
            outcome.fixed[equal].percentile(99),
        )?,
        None => writeln!(section.text, "No timeout here makes as few mistakes.")?,
    }
    Ok(())
}
