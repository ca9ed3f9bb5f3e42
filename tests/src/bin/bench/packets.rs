//! What a packet costs under few limits: throttle's paths beside bare XDP_DROP, parse + clock, and a bucket in an LRU hash,
//! for sources drawn from 1 to 2^32 addresses, all in one run.

use super::{
    chart,
    lanes::{self, BASELINES, Lanes, PACKETS, cell, memory_of},
    report::{Effort, Section},
};
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use throttle_common::{
    records::{Slot, maps},
    table::OPEN_WAYS,
};
use throttle_tests::{
    frames::Frame,
    program::{DEFAULT_SETS, Program},
};

const ROUNDS: usize = 9;
/// Entries of the LRU hash, and slots of throttle's region.
const SLOTS: u32 = 1 << 20;

/// Under which policy each of throttle's paths is measured.
const PATHS: [(&str, &str); 8] = [
    ("throttle: pass, no limits", "mode = \"enforce\"\n"),
    (
        "throttle: one limit, admitted",
        "mode = \"enforce\"\n[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"100000000/s\"\nburst = 1000000\nsources = 786432\n",
    ),
    // One address is enough for every packet to be looked up.
    (
        "throttle: the same, one address known",
        "mode = \"enforce\"\n[sources]\nknown = [\"192.0.2.1\"]\n[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"100000000/s\"\nburst = 1000000\nsources = 786432\n",
    ),
    ("throttle: blocked by prefix", "mode = \"enforce\"\n[sources]\nblock = [\"0.0.0.0/1\", \"128.0.0.0/1\"]\n"),
    (
        "throttle: one limit, refused",
        "mode = \"enforce\"\n[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"1/h\"\nsources = 786432\noverflow = \"refuse\"\n",
    ),
    (
        "throttle: the same, observed",
        "[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"1/h\"\nsources = 786432\noverflow = \"refuse\"\n",
    ),
    ("throttle: one limit of the host, admitted", SHARED),
    (WITHOUT_LEASES, SHARED),
];

/// A limit that all share.
const SHARED: &str = "mode = \"enforce\"\n[[limit]]\nname = \"l\"\nunit = \"packets\"\nper = \"host\"\nrate = \"100000000/s\"\nburst = 1000000\n";
/// The path on which every packet is charged to the bucket by itself.
const WITHOUT_LEASES: &str = "throttle: the same, without leases";

/// Measures, and gives the table.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    super::seized(|| {
        let paths: Vec<_> =
            PATHS.iter().map(|(name, policy)| Ok((*name, program(name, policy)?))).collect::<Result<_>>()?;
        let mut lanes = Lanes::new(Frame::v4([198, 51, 100, 7]).length(60).bytes(), SLOTS)?;
        let mut programs = Vec::new();
        for (name, program) in BASELINES {
            programs.push((name, lanes.baseline(program)?));
        }
        for (name, program) in &paths {
            programs.push((*name, program.datapath.program_fd()?.try_clone()?));
        }
        let rounds = effort.rounds(ROUNDS);
        let rows = lanes.run(&programs, rounds)?;
        let (_, program) =
            paths.iter().find(|(name, _)| name.ends_with("one limit, admitted")).context("a path is missing")?;
        report(&rows, bytes_of_a_source(program)?, lanes.lru_memory()? as f64 / f64::from(SLOTS), rounds)
    })
}

fn program(name: &str, policy: &str) -> Result<Program> {
    let mut program = Program::live(policy)?;
    if name == WITHOUT_LEASES {
        program.lease(0)?;
    }
    Ok(program)
}

/// Bytes of the table for each source that has room in it.
fn bytes_of_a_source(program: &Program) -> Result<f64> {
    let table = memory_of(&program.map_data(maps::BUCKETS)?)? + memory_of(&program.map_data(maps::AGGREGATES)?)?;
    ensure!(size_of::<Slot>() == 16, "a slot has another size than the documents say");
    Ok(table as f64 / (u64::from(DEFAULT_SETS) * OPEN_WAYS as u64) as f64)
}

/// The table, and how throttle stands to the baselines.
fn report(rows: &[lanes::Row], throttle: f64, lru: f64, rounds: usize) -> Result<Section> {
    let mut text = format!(
        "Nanoseconds a packet, `BPF_PROG_TEST_RUN`, median of {rounds} interleaved rounds of {PACKETS} packets; the draw of \
         the source and a tail call are in every row.\n\n{}",
        lanes::table(rows, "", |_| String::new())?
    );
    let hot = cell(rows, "one limit, admitted", 0)? / cell(rows, "parse + clock", 0)?;
    let flood = cell(rows, "one limit, admitted", 3)? / cell(rows, "LRU_HASH", 3)?;
    writeln!(text, "\nOne hot source under one limit costs {hot:.2}x of parse + clock (goal: 1.5x or less).")?;
    writeln!(text, "With 2^32 sources it costs {flood:.2}x of the LRU hash (goal: 0.4x or less).")?;
    writeln!(text, "A tracked source takes {throttle:.1} bytes (goal: 32 or less; an LRU hash entry {lru:.1}).")?;
    let mut section = Section::from(text);
    let title = "A packet under few limits";
    let svg = chart::bars(title, "nanoseconds a packet", &["1 source", "2^32 sources"], &lanes::bars(rows));
    section.draw("packets", title, svg);
    Ok(section)
}
