//! What a packet costs: throttle's paths beside bare XDP_DROP, parse + clock, and a bucket in an LRU hash, for sources
//! drawn from 1 to 2^32 addresses, all in one run.
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
use throttle_common::{gcra::Price, records::Slot, table::OPEN_WAYS};
use throttle_tests::{
    frames::Frame,
    kernel::{self, Order},
    program::Program,
};

const ROUNDS: usize = 9;
/// Packets of a measurement, after a quarter as many that warm it up.
const PACKETS: u32 = 1 << 18;
/// Entries of the LRU hash, and slots of throttle's region.
const SLOTS: u32 = 1 << 20;
/// Bits of the source that are drawn.
const SPREADS: [u32; 4] = [0, 16, 20, 32];
/// A rate that one source cannot reach, so that every packet is admitted and charged; and the burst beside it.
const PER_SECOND: u64 = 100_000_000;
const BURST: u64 = 1_000_000;

/// Under which policy each of throttle's paths is measured.
const PATHS: [(&str, &str); 6] = [
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
];

/// Measures, and gives the table with what follows from it.
pub(super) fn measure() -> Result<String> {
    super::seized(|| {
        let mut bench = Bench::new()?;
        let table = bench.run()?;
        report(&table, &bench.memory()?)
    })
}

/// A row of the table: what was measured, in nanoseconds by spread.
struct Row {
    name: &'static str,
    nanos: [u32; SPREADS.len()],
}

struct Bench {
    /// `vary` and the baselines.
    object: Ebpf,
    /// Throttle once for each path, each with maps of its own.
    paths: Vec<(&'static str, Program)>,
    frame: Vec<u8>,
}

const BASELINES: [(&str, &str); 3] =
    [("bare XDP_DROP", "drop"), ("parse + clock", "parse_clock"), ("LRU_HASH bucket, admitted", "lru_hash")];

impl Bench {
    fn new() -> Result<Self> {
        let mut object = kernel::load(SLOTS)?;
        for name in ["vary"].into_iter().chain(BASELINES.map(|(_, program)| program)) {
            kernel::xdp(&mut object, name)?;
        }
        let price = Price::of_rate(PER_SECOND, 1_000_000_000, 1).context("the rate has a price")?;
        let limit = [price.cost(1), price.depth(BURST).context("the burst has a depth")?];
        array::<[u64; 2]>(&mut object, "PRICE")?.set(0, limit, 0)?;
        array::<u64>(&mut object, "DICE")?.set(0, 0x2545_f491_4f6c_dd1d, 0)?;
        let paths =
            PATHS.map(|(name, policy)| Ok((name, Program::live(policy)?))).into_iter().collect::<Result<_>>()?;
        Ok(Self { object, paths, frame: Frame::v4([198, 51, 100, 7]).length(60).bytes() })
    }

    /// Measures every cell once in each round, and gives the medians.
    fn run(&mut self) -> Result<Vec<Row>> {
        let mut programs = Vec::new();
        for (name, program) in BASELINES {
            let program: &Xdp = self.object.program(program).context("a baseline is missing")?.try_into()?;
            programs.push((name, program.fd()?.try_clone()?));
        }
        for (name, program) in &self.paths {
            programs.push((name, program.datapath.program_fd()?.try_clone()?));
        }
        let mut cells = vec![[const { Vec::new() }; SPREADS.len()]; programs.len()];
        for round in 1..=ROUNDS {
            eprintln!("round {round} of {ROUNDS}");
            for ((_, program), cells) in programs.iter().zip(&mut cells) {
                for (bits, cell) in SPREADS.into_iter().zip(cells) {
                    cell.push(self.measure(program, bits)?);
                }
            }
        }
        let rows = programs.iter().zip(cells).map(|((name, _), cells)| Row { name, nanos: cells.map(median) });
        Ok(rows.collect())
    }

    /// Nanoseconds a packet.
    fn measure(&mut self, program: &ProgramFd, bits: u32) -> Result<u32> {
        let random = (1u64 << bits) - 1;
        let order = Order { flood: if bits < 32 { 10 << 24 } else { 0 }, random, ..Order::SILENT };
        array::<Order>(&mut self.object, "SPREAD")?.set(0, order, 0)?;
        let measured = self.object.map_mut("MEASURED").context("no map MEASURED")?;
        ProgramArray::try_from(measured)?.set(0, program, 0)?;
        let vary: &Xdp = self.object.program("vary").context("no program vary")?.try_into()?;
        let mut nanos = 0;
        for packets in [PACKETS / 4, PACKETS] {
            let mut options = TestRunOptions::new();
            options.data_in = Some(&self.frame);
            options.repeat = packets;
            let run = vary.test_run(options)?;
            ensure!(matches!(run.return_value, 1 | 2), "the program ended with {}", run.return_value);
            nanos = run.duration.as_nanos() as u32;
        }
        Ok(nanos)
    }

    /// Bytes of kernel memory for a tracked source: of throttle, and of the LRU hash.
    fn memory(&self) -> Result<[f64; 2]> {
        let (_, program) =
            self.paths.iter().find(|(name, _)| name.ends_with("admitted")).context("a path is missing")?;
        let of = |map: &str| memory_of(&program.map_data(map)?);
        let table = of(throttle_common::records::maps::BUCKETS)? + of(throttle_common::records::maps::AGGREGATES)?;
        let sources = u64::from(throttle_tests::program::DEFAULT_SETS) * OPEN_WAYS as u64;
        let lru = match self.object.map("LRU").context("no map LRU")? {
            aya::maps::Map::LruHashMap(data) => memory_of(data)?,
            _ => bail!("LRU is another kind of map"),
        };
        Ok([table as f64 / sources as f64, lru as f64 / f64::from(SLOTS)])
    }
}

fn array<'a, T: aya::Pod>(object: &'a mut Ebpf, name: &str) -> Result<Array<&'a mut MapData, T>> {
    Ok(object.map_mut(name).with_context(|| format!("no map {name}"))?.try_into()?)
}

/// What the kernel says that a map takes.
fn memory_of(map: &MapData) -> Result<u64> {
    use std::os::fd::{AsFd as _, AsRawFd as _};
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let info = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:")).context("the kernel tells no memory")?;
    line.trim().parse().with_context(|| format!("read {line:?} as bytes"))
}

/// The table, and how throttle stands to the baselines.
fn report(rows: &[Row], [throttle, lru]: &[f64; 2]) -> Result<String> {
    let mut text = format!(
        "Nanoseconds a packet, `BPF_PROG_TEST_RUN`, median of {ROUNDS} interleaved rounds of {PACKETS} packets; the draw of \
         the source and a tail call are in every row.\n\n| program | 1 source | 2^16 | 2^20 | 2^32 |\n\
         |---|---:|---:|---:|---:|\n"
    );
    for Row { name, nanos: [one, narrow, wide, all] } in rows {
        writeln!(text, "| {name} | {one} | {narrow} | {wide} | {all} |")?;
    }
    let cell = |name: &str, spread: usize| {
        let row = rows.iter().find(|row| row.name.contains(name)).context("a row is missing")?;
        anyhow::Ok(f64::from(row.nanos[spread]))
    };
    let hot = cell("one limit, admitted", 0)? / cell("parse + clock", 0)?;
    let flood = cell("one limit, admitted", 3)? / cell("LRU_HASH", 3)?;
    writeln!(text, "\nOne hot source under one limit costs {hot:.2}x of parse + clock (goal: 1.5x or less).")?;
    writeln!(text, "With 2^32 sources it costs {flood:.2}x of the LRU hash (goal: 0.4x or less).")?;
    writeln!(text, "A tracked source takes {throttle:.1} bytes (goal: 32 or less; an LRU hash entry {lru:.1}).")?;
    ensure!(size_of::<Slot>() == 16, "a slot has another size than the table says");
    Ok(text)
}
