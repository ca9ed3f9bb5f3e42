//! A real server under more than it can bear, with real clients that give up and try again: without a throttle, with a
//! static limit at its capacity, and with one that follows its health. The scenario is the simulator's, in less time.

use super::{
    phases,
    report::{Effort, Section},
};
use anyhow::{Context, Result};
use std::fmt::Write as _;
use throttle_agent::health::{MILLISECOND, SECOND};
use throttle_tests::{
    demand::Answers,
    outcome::Outcome,
    overload::{GUARDS, run},
    simulator::scenario::{CAPACITY, OBJECTIVE, PHASES, Phase, RETRIES, TIMEOUT, WORKERS},
};

/// Of the simulated time, in which none passes: three eighths.
const SCALE: [u64; 2] = [3, 8];

/// Measures, and gives the table and the chart.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    let scenario = PHASES.map(|phase| {
        let seconds = if effort.short { 2 } else { phase.seconds * SCALE[0] / SCALE[1] };
        Phase { seconds, ..phase }
    });
    let binary = std::env::current_exe()?;
    let mut rows = Vec::new();
    for guard in GUARDS {
        eprintln!("{}", guard.name());
        rows.push((guard.name(), run(guard, &scenario, &binary).context(guard.name())?));
    }
    report(&scenario, &rows)
}

fn report(scenario: &[Phase], rows: &[(&'static str, Answers)]) -> Result<Section> {
    let names: Vec<_> = scenario.iter().map(|phase| phase.name).collect();
    let mut text = format!(
        "A server of {WORKERS} workers that each take 8 ms for a request on average (they wait, so that it is not the CPU's \
         doing), {CAPACITY:.0} a second in all, first come first served; it works on for clients that have given up. Clients \
         come by chance from 64 addresses, wait {} s, and try {RETRIES} times again after 0.1, 0.2 and 0.4 s. An answer is good \
         within {} ms of its attempt. Goodput is good answers of what was possible: what was asked for, or what the server \
         can do, whichever is less; in parentheses within how many ms 99 % of the answers came.\n\n\
         | before the server | {} |\n|---{}|\n",
        TIMEOUT / SECOND,
        OBJECTIVE / MILLISECOND,
        names.join(" | "),
        "|---:".repeat(names.len()),
    );
    for (name, answers) in rows {
        write!(text, "| {name} |")?;
        for phase in &answers.phases {
            write!(text, " {:.3} ({:.0}) |", phase.goodput(), phase.p99)?;
        }
        writeln!(text)?;
    }
    if let Some((name, answers)) = rows.last() {
        let [double, cut, five, over] = [1, 2, 4, 5].map(|phase| &answers.phases[phase]);
        let seconds =
            |outcome: &Outcome| outcome.recovery().map_or("never".to_owned(), |it| format!("after {it:.1} s"));
        writeln!(
            text,
            "\nWith {name}: {:.3} at 2x (goal: 0.95), {:.3} at 5x (goal: 0.90); 0.95 of what is left of the capacity {} (goal: \
             5 s), and of what is asked for when the overload is over {} (goal: 3 s).",
            double.goodput(),
            five.goodput(),
            seconds(cut),
            seconds(over),
        )?;
    }
    let heads = ["attempts", "refused", "timed out", "99 % of clients late by, ms"];
    phases::begin_recoveries(&mut text, "before the server", &heads)?;
    for (name, answers) in rows {
        phases::recoveries(&mut text, name, &[&answers.phases])?;
        let (attempts, late) = (answers.attempts, answers.late.as_secs_f64() * 1e3);
        writeln!(text, " {} | {} | {} | {late:.1} |", attempts.made, attempts.refused, attempts.timed_out)?;
    }
    let mut section = Section::from(text);
    let title = "Good answers a second of a real server under overload";
    let lines: Vec<_> = rows.iter().rev().map(|(name, answers)| (*name, &answers.phases[..])).collect();
    section.draw("overload", title, phases::draw(title, scenario, &lines));
    Ok(section)
}
