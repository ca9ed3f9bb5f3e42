//! `top` on a table that is full of sources: whom it shows, and what a look costs.

use anyhow::{Result, ensure};
use std::{net::Ipv4Addr, time::Duration};
use throttle_common::packet::Family;
use throttle_tests::{frames::Frame, needs_root, program::Program, say};

/// Sources that owe something.
const SOURCES: u32 = 1_000_000;
/// What `top` asks for by default.
const SHOWN: usize = 50;

const POLICY: &str = r#"
mode = "enforce"
[[limit]]
name = "slow"
unit = "packets"
rate = "1/hour"
burst = 8
sources = 3000000
overflow = "admit"
"#;

#[test]
fn of_a_million_sources_those_that_owe_most_are_found_in_one_pass() -> Result<()> {
    needs_root!();
    let program = Program::load(POLICY, false, 1 << 21)?;
    let (number, limit) = program.limit_record("slow")?;
    let send = |source: u32| program.act(&Frame::v4(Ipv4Addr::from_bits(source)).bytes()).map(drop);
    (0..SOURCES).try_for_each(|source| send(0x0a00_0000 + source))?;
    // One in twenty thousand sends more.
    let loud: Vec<u32> = (0..SHOWN as u32).map(|number| 0x0a00_0000 + number * 20_000).collect();
    for _ in 0..4 {
        loud.iter().try_for_each(|&source| send(source))?;
    }
    let begin = cpu_time();
    let talkers = program.datapath.talkers(&limit, Family::V4, SHOWN);
    let took = cpu_time().saturating_sub(begin);
    let counts = program.datapath.limit_tally(number)?;
    let all = u64::from(SOURCES) + 4 * SHOWN as u64;
    ensure!(counts.admitted.packets == all, "{counts:?}");
    let (without_place, overflowed) = (u64::from(SOURCES) - talkers.busy, counts.overflowed.packets);
    ensure!((without_place..=without_place * 5).contains(&overflowed), "{without_place} without a place, {overflowed}");
    let shown: Vec<String> = talkers.most.iter().map(|talker| talker.source.to_string()).collect();
    let expected: Vec<String> = loud.iter().map(|&source| Ipv4Addr::from_bits(source).to_string()).collect();
    // Some of them may have found no place.
    let found = shown.iter().take_while(|source| expected.contains(source)).count();
    ensure!(found > SHOWN * 4 / 5, "only {found} of those that owe most come first: {shown:?}");
    let profile = if cfg!(debug_assertions) { "not optimised" } else { "optimised" };
    let (busy, places) = (talkers.busy, limit.v4.sets * 4);
    say!("top: {busy} busy sources of {places} places, one look takes {took:.1?} of a CPU ({profile})");
    Ok(())
}

/// What this thread has used.
fn cpu_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.cast_unsigned(), used.tv_nsec.cast_unsigned() as u32)
}
