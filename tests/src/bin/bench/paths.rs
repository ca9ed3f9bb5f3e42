//! What a packet costs under the full policy, by the path that it takes: beside bare XDP_DROP and parse + clock, with the
//! helpers of the kernel that it calls on its way.

use super::{
    chart,
    lanes::{self, BASELINES, Lanes, PACKETS, cell},
    report::{Effort, Section},
};
use anyhow::Result;
use std::fmt::Write as _;
use throttle_tests::paths::{PATHS, Path, frame};

const ROUNDS: usize = 9;

/// Measures, and gives the table.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    super::seized(|| {
        let paths: Vec<_> = PATHS.iter().map(Path::program).collect::<Result<_>>()?;
        let frame = frame();
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
        let calls: Vec<_> = PATHS.iter().zip(&paths).map(|(path, program)| path.calls(program, &frame)).collect();
        for (path, program) in PATHS.iter().zip(&paths) {
            path.check(program, &frame)?;
        }
        report(&rows, &calls, rounds)
    })
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
         of the source and a tail call are in every row. The ratio is for one source. The others are spread over all \
         tenants, whose compartments have 3 072 open places each: from 2^20 on most sources find none, and are refused by \
         that already where a limit per source is asked.\n\n\
         {table}\n"
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
