//! What is kept of sources, tenants and limits takes so much memory, as the kernel says; and what a packet costs where 10^6
//! and 10^7 sources are tracked, beside an LRU hash with room for as many.

use super::{
    lanes::{Lanes, memory_of},
    median,
    report::{Effort, Section},
};
use anyhow::{Context, Result};
use std::{fmt::Write as _, net::Ipv4Addr};
use throttle_common::{
    records::{GENERATIONS, MAX_LIMITS, NAME, maps},
    table::{OPEN_WAYS, WAYS},
};
use throttle_tests::{frames::Frame, policies::limit, program::Program};

const ROUNDS: usize = 9;
const PACKETS: u32 = 1 << 20;
const TENANTS: u32 = 10_000;

/// Measures, and gives the table.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    super::seized(|| {
        // Bits by which sources differ: two million and sixteen, of whom most have spoken once they are measured.
        let spreads: &[u32] = if effort.short { &[21] } else { &[21, 24] };
        let most = 1_u32 << spreads[spreads.len() - 1];
        let policy = |tenants: &str| {
            // Half of the table for either family.
            let places = format!("overflow = \"refuse\"\nsources = {}", most / 2 * OPEN_WAYS as u32);
            format!("mode = \"enforce\"\n{}{tenants}", limit("source", "source", "rate = \"1/h\"\nburst = 24", &places))
        };
        let mut program = Program::load(&policy(""), false, most)?;
        let mut lanes = Lanes::new(Frame::v4([10, 0, 0, 1]).length(60).bytes(), most)?;
        let (own, lru) = (program.datapath.program_fd()?.try_clone()?, lanes.baseline("lru_hash")?);
        let rounds = effort.rounds(ROUNDS);
        let mut text = format!(
            "Nanoseconds a packet of a source that is tracked among so many, each packet of another: median of {rounds} rounds \
             of {PACKETS} packets.\n\n| sources tracked | throttle | LRU_HASH |\n|---|---:|---:|\n"
        );
        for &bits in spreads {
            let nanos = [&own, &lru].map(|program| -> Result<u32> {
                // Twice as many packets as sources: seven in eight have spoken.
                lanes.packets(program, bits, 2 << bits)?;
                let rounds = (0..rounds).map(|_| lanes.packets(program, bits, PACKETS));
                Ok(median(rounds.collect::<Result<_>>()?))
            });
            let busy = program.datapath.occupancy(&program.limit_record("source")?.1).v4.busy;
            let [throttle, lru] = nanos;
            writeln!(text, "| {busy} | {} | {} |", throttle?, lru?)?;
        }
        let memory = |program: &Program, map: &str| anyhow::Ok(memory_of(&program.map_data(map)?)? as f64);
        let table = memory(&program, maps::BUCKETS)? + memory(&program, maps::AGGREGATES)?;
        let slot = table / f64::from(most) / WAYS as f64;
        let before = memory(&program, maps::PREFIXES_V4)?;
        program.apply(&policy(&tenants())).context("apply the tenants")?;
        let prefix = (memory(&program, maps::PREFIXES_V4)? - before) / f64::from(TENANTS);
        let name = GENERATIONS as usize * NAME;
        let limits = (memory(&program, maps::LIMITS)? + memory(&program, maps::LIMIT_TALLIES)?) / f64::from(MAX_LIMITS);
        writeln!(text, "\n| what is kept | bytes |\n|---|---:|")?;
        writeln!(
            text,
            "| a source of one limit, with the place in four that is for proven ones | {:.1} |",
            table / f64::from(most) / OPEN_WAYS as f64
        )?;
        writeln!(text, "| the same in an LRU hash | {:.1} |", lanes.lru_memory()? as f64 / f64::from(most))?;
        writeln!(text, "| a tenant: its name, and a bucket of each limit per tenant | {name} + {slot:.0} |")?;
        writeln!(text, "| a prefix of a tenant, allowed or blocked | {prefix:.0} |")?;
        writeln!(text, "| a limit, with its counters on this machine's CPUs | {limits:.0} |")?;
        Ok(text.into())
    })
}

fn tenants() -> String {
    let tenant = |number: u32| {
        let net = Ipv4Addr::from_bits((20 << 24) + (number << 8));
        format!("[[tenant]]\nname = \"tenant-{number}\"\nsources = [\"{net}/24\"]\n")
    };
    (0..TENANTS).map(tenant).collect()
}
