//! Nanoseconds a packet by `BPF_PROG_TEST_RUN`: any programs, sources drawn from 1 to 2^32 addresses, in one run.
//!
//! Every program is entered through `vary`, which draws the packet's source and tail-calls it: that costs the same in
//! every row and is not subtracted. Rounds are interleaved and each cell is the median of its rounds.

use super::median;
use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf,
    maps::{Array, MapData, ProgramArray},
    programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp},
};
use std::{fmt::Write as _, fs};
use throttle_common::gcra::Price;
use throttle_tests::kernel::{self, Order};

/// Packets of a measurement, after a quarter as many that warm it up.
pub(super) const PACKETS: u32 = 1 << 18;
/// Bits of the source that are drawn.
pub(super) const SPREADS: [u32; 4] = [0, 16, 20, 32];
/// A rate that one source cannot reach, so that every packet is admitted and charged; and the burst beside it.
const PER_SECOND: u64 = 100_000_000;
const BURST: u64 = 1_000_000;

/// What throttle is compared to, and its program.
pub(super) const BASELINES: [(&str, &str); 3] =
    [("bare XDP_DROP", "drop"), ("parse + clock", "parse_clock"), ("LRU_HASH bucket, admitted", "lru_hash")];

/// A program by its name, in nanoseconds by spread.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) nanos: [u32; SPREADS.len()],
}

/// `vary` and the baselines.
pub(super) struct Lanes {
    object: Ebpf,
    frame: Vec<u8>,
}

impl Lanes {
    /// For a packet that lacks only its source; the LRU hash has room for so many.
    pub(super) fn new(frame: Vec<u8>, lru_entries: u32) -> Result<Self> {
        let mut object = kernel::load(lru_entries)?;
        for name in ["vary"].into_iter().chain(BASELINES.map(|(_, program)| program)) {
            kernel::xdp(&mut object, name)?;
        }
        let price = Price::of_rate(PER_SECOND, 1_000_000_000, 1).context("the rate has a price")?;
        let limit = [price.cost(1), price.depth(BURST).context("the burst has a depth")?];
        array::<[u64; 2]>(&mut object, "PRICE")?.set(0, limit, 0)?;
        array::<u64>(&mut object, "DICE")?.set(0, 0x2545_f491_4f6c_dd1d, 0)?;
        Ok(Self { object, frame })
    }

    /// A baseline's program.
    pub(super) fn baseline(&self, program: &str) -> Result<ProgramFd> {
        let program: &Xdp = self.object.program(program).context("a baseline is missing")?.try_into()?;
        Ok(program.fd()?.try_clone()?)
    }

    /// Measures every cell once in each round, and gives the medians.
    pub(super) fn run(&mut self, programs: &[(&'static str, ProgramFd)], rounds: usize) -> Result<Vec<Row>> {
        let mut cells = vec![[const { Vec::new() }; SPREADS.len()]; programs.len()];
        for round in 1..=rounds {
            eprintln!("round {round} of {rounds}");
            for ((name, program), cells) in programs.iter().zip(&mut cells) {
                for (bits, cell) in SPREADS.into_iter().zip(cells) {
                    self.packets(program, bits, PACKETS / 4).context(*name)?;
                    cell.push(self.packets(program, bits, PACKETS).context(*name)?);
                }
            }
        }
        let rows = programs.iter().zip(cells).map(|((name, _), cells)| Row { name, nanos: cells.map(median) });
        Ok(rows.collect())
    }

    /// Gives a program so many packets, whose sources differ by so many bits; nanoseconds a packet.
    pub(super) fn packets(&mut self, program: &ProgramFd, bits: u32, packets: u32) -> Result<u32> {
        // Over the tenants of the full policy, who are told apart by the upper seven bits.
        let random = if bits < 7 { 0 } else { (0x7f << 25) | ((1u64 << (bits - 7)) - 1) };
        let order = Order { flood: if bits == 0 { 10 << 24 } else { 0 }, random, ..Order::SILENT };
        array::<Order>(&mut self.object, "SPREAD")?.set(0, order, 0)?;
        let measured = self.object.map_mut("MEASURED").context("no map MEASURED")?;
        ProgramArray::try_from(measured)?.set(0, program, 0)?;
        let vary: &Xdp = self.object.program("vary").context("no program vary")?.try_into()?;
        let options = TestRunOptions { data_in: Some(&self.frame), repeat: packets, ..TestRunOptions::default() };
        let run = vary.test_run(options)?;
        ensure!(matches!(run.return_value, 1 | 2), "the program ended with {}", run.return_value);
        Ok(run.duration.as_nanos() as u32)
    }

    /// Bytes of kernel memory of the LRU hash.
    pub(super) fn lru_memory(&self) -> Result<u64> {
        match self.object.map("LRU").context("no map LRU")? {
            aya::maps::Map::LruHashMap(data) => memory_of(data),
            _ => bail!("LRU is another kind of map"),
        }
    }
}

fn array<'a, T: aya::Pod>(object: &'a mut Ebpf, name: &str) -> Result<Array<&'a mut MapData, T>> {
    Ok(object.map_mut(name).with_context(|| format!("no map {name}"))?.try_into()?)
}

/// What the kernel says that a map takes.
pub(super) fn memory_of(map: &MapData) -> Result<u64> {
    use std::os::fd::{AsFd as _, AsRawFd as _};
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let info = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:")).context("the kernel tells no memory")?;
    line.trim().parse().with_context(|| format!("read {line:?} as bytes"))
}

/// The rows as a table, with further columns behind those of the spreads.
pub(super) fn table(rows: &[Row], columns: &str, behind: impl Fn(&Row) -> String) -> Result<String> {
    let mut text = format!("| program | 1 source | 2^16 | 2^20 | 2^32 |{columns}\n|---|---:|---:|---:|---:|");
    writeln!(text, "{}", "---:|".repeat(columns.matches('|').count()))?;
    for row @ Row { name, nanos: [one, narrow, wide, all] } in rows {
        writeln!(text, "| {name} | {one} | {narrow} | {wide} | {all} |{}", behind(row))?;
    }
    Ok(text)
}

/// The nanoseconds of the row whose name contains this, at a spread.
pub(super) fn cell(rows: &[Row], name: &str, spread: usize) -> Result<f64> {
    let row = rows.iter().find(|row| row.name.contains(name)).with_context(|| format!("no row {name}"))?;
    Ok(f64::from(row.nanos[spread]))
}

/// The rows as they are drawn: one source and all.
pub(super) fn bars(rows: &[Row]) -> Vec<(&'static str, Vec<Option<f64>>)> {
    let shown = |row: &Row| vec![Some(f64::from(row.nanos[0])), Some(f64::from(row.nanos[3]))];
    rows.iter().map(|row| (row.name, shown(row))).collect()
}
