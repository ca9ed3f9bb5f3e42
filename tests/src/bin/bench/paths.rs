//! What a packet costs under the full policy, by the path that it takes: beside bare XDP_DROP and parse + clock, with the
//! helpers of the kernel that it calls on its way.

use super::{
    calls::Tracer,
    chart,
    lanes::{self, BASELINES, Lanes, PACKETS, cell},
    policies::{self, Difference, Level, PORT},
    report::{Effort, Section},
};
use anyhow::{Result, ensure};
use std::fmt::Write as _;
use throttle_common::{
    packet::tcp,
    words::{Outcome, Reason},
};
use throttle_tests::{
    frames::Frame,
    program::{Program, difference},
};

const ROUNDS: usize = 9;

/// A path: how the policy differs, what becomes of its packets, and how much of parse + clock it may cost, if it may not
/// cost what it likes.
struct Path {
    name: &'static str,
    difference: Difference,
    /// Whether CPUs take ahead of what sources share.
    leased: bool,
    ends: (Reason, Outcome),
    goal: Option<f64>,
}

const SAME: Difference = Difference { allow_all: false, block_all: false, strict: None };

const PATHS: [Path; 6] = [
    Path {
        name: "allowed",
        difference: Difference { allow_all: true, ..SAME },
        leased: true,
        ends: (Reason::Allowed, Outcome::Pass),
        goal: None,
    },
    Path {
        name: "blocked by prefix",
        difference: Difference { block_all: true, ..SAME },
        leased: true,
        ends: (Reason::Blocked, Outcome::Drop),
        goal: None,
    },
    Path {
        name: "refused by the source's limit",
        difference: Difference { strict: Some(Level::Source), ..SAME },
        leased: true,
        ends: (Reason::SourceLimit, Outcome::Drop),
        goal: Some(2.5),
    },
    Path {
        name: "refused by the host's, the last of four",
        difference: Difference { strict: Some(Level::Host), ..SAME },
        leased: true,
        ends: (Reason::HostLimit, Outcome::Drop),
        goal: Some(3.5),
    },
    Path {
        name: "admitted by all four",
        difference: SAME,
        leased: true,
        ends: (Reason::Admitted, Outcome::Pass),
        goal: None,
    },
    Path {
        name: "the same, without leases",
        difference: SAME,
        leased: false,
        ends: (Reason::Admitted, Outcome::Pass),
        goal: None,
    },
];

/// Measures, and gives the table.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    super::seized(|| {
        let paths: Vec<_> = PATHS.iter().map(program).collect::<Result<_>>()?;
        let frame = Frame::v4([198, 51, 100, 7]).tcp(40_000, PORT, tcp::ACK).length(60).bytes();
        // The hot source has its place before others have taken all of them.
        for program in &paths {
            program.datapath.test_run(&frame, 1)?;
        }
        let mut lanes = Lanes::new(frame.clone(), 64)?;
        let mut programs = Vec::new();
        for (name, program) in &BASELINES[..2] {
            programs.push((*name, lanes.baseline(program)?));
        }
        for (path, program) in PATHS.iter().zip(&paths) {
            programs.push((path.name, program.datapath.program_fd()?.try_clone()?));
        }
        let rounds = effort.rounds(ROUNDS);
        let rows = lanes.run(&programs, rounds)?;
        let calls: Vec<_> = PATHS.iter().zip(&paths).map(|(path, program)| trace(path, program, &frame)).collect();
        for (path, program) in PATHS.iter().zip(&paths) {
            check(path, program, &frame)?;
        }
        report(&rows, &calls, rounds)
    })
}

fn program(path: &Path) -> Result<Program> {
    let mut program = Program::live(&policies::full(path.difference))?;
    if !path.leased {
        program.lease(0)?;
    }
    Ok(program)
}

/// A hot source's packets must all have taken the path, but for the one that its bucket holds.
fn check(path: &Path, program: &Program, frame: &[u8]) -> Result<()> {
    const PACKETS: u32 = 1_000;
    let before = program.tallies()?;
    program.datapath.test_run(frame, PACKETS)?;
    let tallies = difference(&program.tallies()?, &before);
    let on_path = tallies.get(&path.ends).map_or(0, |tally| tally.packets);
    ensure!(
        on_path >= u64::from(PACKETS) - 1,
        "{}: {on_path} of {PACKETS} packets took the path: {tallies:?}",
        path.name
    );
    Ok(())
}

/// The helpers that a packet of the path calls.
fn trace(path: &Path, program: &Program, frame: &[u8]) -> Result<Vec<(String, u32)>> {
    /// Enough that the budget of events is used up, as in a flood.
    const BEFORE: u32 = 100_000;
    const TRACED: u32 = 64;
    let tracer = Tracer::new()?;
    program.datapath.test_run(frame, BEFORE)?;
    let calls = tracer.calls(|| program.datapath.test_run(frame, TRACED).map(drop))?;
    ensure!(!calls.is_empty() || path.goal.is_none(), "{}: no call was traced", path.name);
    let each = calls.into_iter().map(|(name, calls)| (name, (calls + TRACED / 2) / TRACED));
    Ok(each.filter(|(_, calls)| *calls > 0).collect())
}

fn report(rows: &[lanes::Row], calls: &[Result<Vec<(String, u32)>>], rounds: usize) -> Result<Section> {
    let parse = cell(rows, "parse + clock", 0)?;
    let helpers = |row: &lanes::Row| {
        let path = PATHS.iter().position(|path| path.name == row.name);
        match path.map(|path| &calls[path]) {
            None => " |".to_owned(),
            Some(Err(_)) => " ? |".to_owned(),
            Some(Ok(calls)) => format!(" {} |", calls.iter().map(|(_, count)| count).sum::<u32>()),
        }
    };
    let columns = " of parse + clock | helper calls |";
    let table =
        lanes::table(rows, columns, |row| format!(" {:.2}x |{}", f64::from(row.nanos[0]) / parse, helpers(row)))?;
    let mut text = format!(
        "Nanoseconds a packet under 1 000 blocks, 100 tenants, 10 services, and limits per source, per tenant, of the \
         service and of the host. `BPF_PROG_TEST_RUN`, median of {rounds} interleaved rounds of {PACKETS} packets; the draw \
         of the source and a tail call are in every row. The ratio is for one source.\n\n{table}\n"
    );
    for path in &PATHS {
        if let Some(goal) = path.goal {
            let ratio = cell(rows, path.name, 0)? / parse;
            writeln!(text, "A packet {} costs {ratio:.2}x of parse + clock (goal: {goal}x or less).", path.name)?;
        }
    }
    match calls.iter().find_map(|calls| calls.as_ref().err()) {
        Some(error) => writeln!(text, "\nHelper calls were not counted on this machine: {error:#}.")?,
        None => writeln!(text, "\nHelpers are counted by the kernel's function tracer, as the program calls them:\n")?,
    }
    for (path, calls) in PATHS.iter().zip(calls) {
        let Ok(calls) = calls else { continue };
        let said = calls.iter().map(|(name, count)| format!("{count} `{name}`")).collect::<Vec<_>>().join(", ");
        writeln!(text, "- {}: {}.", path.name, if said.is_empty() { "none" } else { &said })?;
    }
    let mut section = Section::from(text);
    let title = "A packet under the full policy";
    let svg = chart::bars(title, "nanoseconds a packet", &["1 source", "2^32 sources"], &lanes::bars(rows));
    section.draw("paths", title, svg);
    Ok(section)
}
