//! How much more two CPUs judge than one, where all packets come under one limit of the host: beside bare XDP_DROP in the
//! same run. What two CPUs can do more at all is the machine's affair; so what counts is the share of that.

use super::{
    chart,
    lanes::Lanes,
    median,
    report::{Effort, Section},
};
use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use std::{fmt::Write as _, sync::Barrier, thread};
use throttle_common::packet::tcp;
use throttle_tests::{
    frames::Frame,
    machine,
    policies::{GENEROUS, STRICT, limit},
    program::Program,
};

const ROUNDS: usize = 9;
/// Enough that the runs on two CPUs are under way at once nearly all of the time.
const PACKETS: u32 = 1 << 23;

/// Measures, and gives the table.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    ensure!(machine::cpus() >= 2, "this machine has one CPU");
    let rounds = effort.rounds(ROUNDS);
    let frame = Frame::v4([198, 51, 100, 7]).tcp(40_000, 80, tcp::ACK).length(60).bytes();
    let mut lanes = [Lanes::new(frame.clone(), 64)?, Lanes::new(frame, 64)?];
    let with = |rate| Program::live(&format!("mode = \"enforce\"\n{}", limit("host", "host", rate, "")));
    let (leased, mut direct, strict) = (with(GENEROUS)?, with(GENEROUS)?, with(STRICT)?);
    ensure!(leased.limit_record("host")?.1.is_leased(), "the limit is one that CPUs take ahead of");
    direct.lease(0)?;
    let programs = [
        ("bare XDP_DROP", lanes[0].baseline("drop")?),
        ("one limit of the host, admitted", leased.datapath.program_fd()?.try_clone()?),
        ("the same, without leases", direct.datapath.program_fd()?.try_clone()?),
        ("one limit of the host, refused", strict.datapath.program_fd()?.try_clone()?),
    ];
    let mut cells = [const { [const { Vec::new() }; 2] }; 4];
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for ((_, program), [one, two]) in programs.iter().zip(&mut cells) {
            one.push(packets_each_nanosecond(&mut lanes[1..], program)?);
            two.push(packets_each_nanosecond(&mut lanes, program)?);
        }
    }
    let rows = cells.map(|cells| cells.map(|cell| median(cell) * 1e3));
    let mut text = format!(
        "Million packets a second by `BPF_PROG_TEST_RUN` on one CPU and on both at once, of 2^16 sources: median of {rounds} \
         interleaved rounds.\n\n| program | one CPU | two CPUs | times | of bare XDP_DROP's |\n|---|---:|---:|---:|---:|\n"
    );
    let times = |[one, two]: [f64; 2]| two / one;
    for ((name, _), row) in programs.iter().zip(rows) {
        let share = times(row) / times(rows[0]);
        writeln!(text, "| {name} | {:.1} | {:.1} | {:.2} | {share:.2} |", row[0], row[1], times(row))?;
    }
    writeln!(text, "\nGoal: 0.9 or more of what bare XDP_DROP gains.")?;
    let mut section = Section::from(text);
    let title = "One limit of the host on two CPUs";
    let bars: Vec<_> = programs.iter().zip(rows).map(|((name, _), row)| (*name, row.map(Some).to_vec())).collect();
    section.draw("scaling", title, chart::bars(title, "million packets a second", &["one CPU", "two CPUs"], &bars));
    Ok(section)
}

/// What so many CPUs judge together, one for each lane, the last CPU for the last.
fn packets_each_nanosecond(lanes: &mut [Lanes], program: &ProgramFd) -> Result<f64> {
    const SOURCES: u32 = 16;
    let (first, begin) = (machine::cpus() - lanes.len(), Barrier::new(lanes.len()));
    thread::scope(|scope| {
        let threads: Vec<_> = (first..)
            .zip(lanes)
            .map(|(cpu, lane)| {
                let begin = &begin;
                scope.spawn(move || {
                    machine::pin_to(cpu)?;
                    begin.wait();
                    lane.packets(program, SOURCES, PACKETS)
                })
            })
            .collect();
        let each = threads.into_iter().map(|thread| {
            let nanos = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(1.0 / f64::from(nanos))
        });
        each.sum()
    })
}
