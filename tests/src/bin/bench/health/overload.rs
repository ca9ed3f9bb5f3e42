//! A server of known capacity under more than it can bear, by limit.

use super::super::{
    chart, phases,
    report::{Effort, Section},
};
use anyhow::Result;
use std::fmt::Write as _;
use throttle_agent::health::{MILLISECOND, Nanos, SECOND};
use throttle_tests::{
    outcome::Outcome,
    simulator::{
        limits::{
            Aimd, Delayed, EnvoyGradient, FixedConcurrency, FixedRate, Gradient2, Limit, Ours, Sees, Unlimited, Vegas,
        },
        overload::run,
        scenario::{CAPACITY, LONG, OBJECTIVE, PHASES, Phase, RETRIES, TIMEOUT, WORKERS, Work},
    },
};

const SEEDS: usize = 5;
/// Of what was possible, in every phase.
const GOAL: f64 = 0.98;

/// A limit by its name, made anew for each run.
pub(super) type Named = (&'static str, fn(u64) -> Box<dyn Limit>);

const OURS: Named = ("**throttle**", |_| Box::new(Ours::new(Sees::Latency, 0)));
const VEGAS: Named = ("Vegas", |seed| Box::new(Vegas::new(seed)));
const GRADIENT2: Named = ("Gradient2", |_| Box::new(Gradient2::default()));
const ENVOY: Named = ("Envoy's gradient", |seed| Box::new(EnvoyGradient::new(seed)));
const UNLIMITED: Named = ("no limit", |_| Box::new(Unlimited));
const AT_CAPACITY: Named = ("rate, as much as the capacity", |_| Box::new(FixedRate::new(CAPACITY)));
const RIGHT_SIZED: Named = ("window of 32: four for each worker", |_| Box::new(FixedConcurrency(32)));
const TOO_WIDE: Named = ("window of 200", |_| Box::new(FixedConcurrency(200)));

pub(super) const LIMITS: [Named; 10] = [
    UNLIMITED,
    AT_CAPACITY,
    ("rate, 0.9 of the capacity", |_| Box::new(FixedRate::new(0.9 * CAPACITY))),
    RIGHT_SIZED,
    TOO_WIDE,
    ("AIMD", |_| Box::new(Aimd::default())),
    VEGAS,
    GRADIENT2,
    ENVOY,
    OURS,
];

/// What came of each phase, seed by seed.
type Runs = Vec<Vec<Outcome>>;

/// Simulates, and says what came of it.
pub(super) fn simulate(section: &mut Section, effort: Effort) -> Result<()> {
    let seeds = effort.rounds(SEEDS) as u64;
    writeln!(
        section.text,
        "A server of {WORKERS} workers, {CAPACITY:.0} requests a second, first come first served; clients come by chance, wait \
         {} s and try {RETRIES} times again, and the server works on for those who have given up. A good answer comes \
         within {} ms. Goodput is good answers, of what was possible: what was asked for, or what the server can do, \
         whichever is less; more than that where clients of the phase before come again. Means of {seeds} seeds; simulated, so refusals cost nothing and arrive at once: how laws of \
         control compare, not what a product does. The real thing is in [overload](overload.md).\n",
        TIMEOUT / SECOND,
        OBJECTIVE / MILLISECOND,
    )?;
    scenario(section, seeds)?;
    long(section, seeds)?;
    works(section, seeds)?;
    delays(section, seeds)?;
    signals(section, seeds)
}

fn runs(phases: &[Phase], work: Work, limit: impl Fn(u64) -> Box<dyn Limit>, seeds: u64) -> Runs {
    (1..=seeds).map(|seed| run(phases, work, &mut *limit(seed), seed)).collect()
}

fn slices(runs: &Runs) -> Vec<&[Outcome]> {
    runs.iter().map(Vec::as_slice).collect()
}

/// A table of goodputs with the 99th percentiles of how long answered clients waited, a row at a time.
struct Goodputs<'s> {
    text: &'s mut String,
    phases: &'s [Phase],
}

impl<'s> Goodputs<'s> {
    fn begin(text: &'s mut String, heads: &[&str], phases: &'s [Phase]) -> Result<Self> {
        let columns: Vec<_> = heads.iter().copied().chain(phases.iter().map(|phase| phase.name)).collect();
        let rule = format!("{}{}", "|---".repeat(heads.len()), "|---:".repeat(phases.len()));
        writeln!(text, "| {} |\n{rule}|", columns.join(" | "))?;
        Ok(Self { text, phases })
    }

    fn row(&mut self, heads: &[&str], runs: &Runs) -> Result<()> {
        write!(self.text, "| {} |", heads.join(" | "))?;
        for phase in 0..self.phases.len() {
            let mean =
                |of: fn(&Outcome) -> f64| runs.iter().map(|phases| of(&phases[phase])).sum::<f64>() / runs.len() as f64;
            write!(self.text, " {:.3} ({:.0}) |", mean(Outcome::goodput), mean(|outcome| outcome.p99))?;
        }
        Ok(writeln!(self.text)?)
    }
}

fn scenario(section: &mut Section, seeds: u64) -> Result<()> {
    eprintln!("the scenario");
    let text = &mut section.text;
    writeln!(
        text,
        "## The scenario\n\nGoodput by phase, and in parentheses within how many ms 99 % of those were answered.\n"
    )?;
    let all: Vec<_> =
        LIMITS.iter().map(|(name, limit)| (*name, runs(&PHASES, Work::Exponential, limit, seeds))).collect();
    let mut table = Goodputs::begin(text, &["limit"], &PHASES)?;
    all.iter().try_for_each(|(name, runs)| table.row(&[name], runs))?;
    let (_, ours) = &all[all.len() - 1];
    let each = ours.iter().flatten().map(Outcome::goodput);
    let hold = |runs: &Runs, phase| phases::mean(&slices(runs), phase, |outcome| Some(outcome.goodput())) >= Some(GOAL);
    let holding = all.iter().filter(|(_, runs)| (0..PHASES.len()).all(|phase| hold(runs, phase)));
    let holding: Vec<_> = holding.map(|(name, _)| *name).collect();
    writeln!(
        text,
        "\nWho has {GOAL} in every phase, which is the goal: {}. The least of throttle's phases, of all seeds, is {:.3}. What \
         throttle lets clients wait is a fifth of the objective, so that its 99 % are not the shortest. A second's goodput \
         varies from another's by the coefficient of variation, once five seconds have passed; that of a server which is always \
         busy by 0.03, by chance.",
        holding.join("; "),
        each.fold(f64::INFINITY, f64::min),
    )?;
    phases::begin_recoveries(text, "limit", &["varies at 2x", "under the cut", "at 5x"])?;
    for (name, runs) in &all {
        phases::recoveries(text, name, &slices(runs))?;
        for phase in [1, 2, 4] {
            match phases::mean(&slices(runs), phase, Outcome::oscillation) {
                Some(varies) => write!(text, " {varies:.2} |")?,
                None => write!(text, " - |")?,
            }
        }
        writeln!(text)?;
    }
    let shown = [OURS, UNLIMITED, AT_CAPACITY, TOO_WIDE, ENVOY];
    draw(section, "health", "Good answers a second: what each limit makes of the same overload", &PHASES, &shown);
    Ok(())
}

/// The ten minutes in which overload must not become the norm.
fn long(section: &mut Section, seeds: u64) -> Result<()> {
    const SHOWN: [&str; 5] = [OURS.0, VEGAS.0, GRADIENT2.0, ENVOY.0, "AIMD"];
    eprintln!("ten minutes of overload");
    let text = &mut section.text;
    writeln!(
        text,
        "\n## Ten minutes of overload\n\nWhat adapts must not take an overload for the norm because it lasts.\n"
    )?;
    let mut table = Goodputs::begin(text, &["limit"], &LONG)?;
    let mut bars: Vec<_> = LONG.iter().map(|phase| (phase.name, vec![None; SHOWN.len()])).collect();
    for (name, limit) in LIMITS {
        let runs = runs(&LONG, Work::Exponential, limit, seeds);
        table.row(&[name], &runs)?;
        if let Some(shown) = SHOWN.iter().position(|shown| *shown == name) {
            let p99 = |phase| phases::mean(&slices(&runs), phase, |outcome| Some(outcome.p99));
            bars.iter_mut().enumerate().for_each(|(phase, (_, bars))| bars[shown] = p99(phase));
        }
    }
    let title = "How long 99 % of the answers take at most in ten minutes at twice the capacity";
    let names = SHOWN.map(plain);
    section.draw("health-long", title, chart::bars(title, "milliseconds", &names, &bars));
    Ok(())
}

/// A name as charts show it.
fn plain(name: &str) -> &str {
    name.trim_matches('*')
}

/// Draws the first seed's.
fn draw(section: &mut Section, name: &'static str, title: &str, phases: &[Phase], limits: &[Named]) {
    let runs: Vec<_> = limits.iter().map(|(_, limit)| run(phases, Work::Exponential, &mut *limit(1), 1)).collect();
    let rows: Vec<_> = limits.iter().zip(&runs).map(|((name, _), run)| (plain(name), &run[..])).collect();
    section.draw(name, title, phases::draw(title, phases, &rows));
}

fn works(section: &mut Section, seeds: u64) -> Result<()> {
    eprintln!("how long requests take");
    let text = &mut section.text;
    writeln!(
        text,
        "\n## How long requests take\n\nThe same mean of 8 ms: exponential; bimodal, where nine in ten take 3 ms and one 53; \
         heavy-tailed (Pareto with exponent 1.5, cut at 200 ms, so that one request may hold a worker for 200 ms, and for \
         500 under the cut).\n"
    )?;
    let mut table = Goodputs::begin(text, &["requests", "limit"], &PHASES)?;
    for (work, name) in
        [(Work::Exponential, "exponential"), (Work::Bimodal, "bimodal"), (Work::HeavyTailed, "heavy-tailed")]
    {
        for (limit, make) in [RIGHT_SIZED, VEGAS, GRADIENT2, ENVOY, OURS] {
            table.row(&[name, limit], &runs(&PHASES, work, make, seeds))?;
        }
    }
    Ok(())
}

fn delays(section: &mut Section, seeds: u64) -> Result<()> {
    eprintln!("how old signals are");
    let text = &mut section.text;
    writeln!(
        text,
        "\n## How old signals are\n\nThe limit hears so much later of what ended. What is under way each counts itself.\n"
    )?;
    let mut table = Goodputs::begin(text, &["delay", "limit"], &PHASES)?;
    for millis in [0, 500, 1_000, 2_000] {
        let (delay, head) = (millis * MILLISECOND, format!("{} s", millis as f64 / 1e3));
        let mut row = |name, make: &dyn Fn(u64) -> Box<dyn Limit>| {
            table.row(&[&head, name], &runs(&PHASES, Work::Exponential, make, seeds))
        };
        row(VEGAS.0, &|seed| delayed(Vegas::new(seed), delay))?;
        row(GRADIENT2.0, &|_| delayed(Gradient2::default(), delay))?;
        row(ENVOY.0, &|seed| delayed(EnvoyGradient::new(seed), delay))?;
        row(OURS.0, &|_| Box::new(Ours::new(Sees::Latency, delay)))?;
    }
    Ok(())
}

fn delayed(limit: impl Limit + 'static, delay: Nanos) -> Box<dyn Limit> {
    Box::new(Delayed::new(limit, delay))
}

fn signals(section: &mut Section, seeds: u64) -> Result<()> {
    eprintln!("what the controller sees");
    let text = &mut section.text;
    writeln!(
        text,
        "\n## What throttle's controller sees\n\nWhere there is no latency, the next best signal stands in.\n"
    )?;
    let mut table = Goodputs::begin(text, &["signal"], &PHASES)?;
    for (sees, name) in [
        (Sees::Latency, "time to first byte"),
        (Sees::Flow, "what is under way, and what ends"),
        (Sees::Backlog, "what waits to be accepted"),
    ] {
        table.row(&[name], &runs(&PHASES, Work::Exponential, |_| Box::new(Ours::new(sees, 0)), seeds))?;
    }
    Ok(())
}
