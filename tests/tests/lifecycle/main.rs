//! What outlives what: programs, links and maps against agents that die, interfaces that go, and policies that change.

mod adoption;
mod dawdling;
mod handshakes;
mod interfaces;
mod loading;
mod policies;
mod renamed;
mod switching;

use std::{path::Path, time::Instant};

use anyhow::{Context, Result};
use ipnet::IpNet;
use throttle_agent::{
    datapath::{Datapath, Options},
    policy,
};
use throttle_common::records::SourceEntry;
use throttle_tests::{
    frames::Frame,
    pins::Pins,
    program::{START, action},
};

/// Sets of the table: a small one is quickly made.
const SETS: u32 = 1 << 10;

/// Who sends.
const SOURCE: u32 = u32::from_be_bytes([10, 98, 0, 2]);

fn options(pins: &Pins) -> Options {
    Options { pin_dir: pins.pin_dir(), table_sets: SETS, debug: false, test_clock: true, adopt: true }
}

fn open(pins: &Pins) -> Result<Datapath> {
    let mut datapath = Datapath::open(&options(pins))?;
    datapath.set_clock(START)?;
    Ok(datapath)
}

/// Puts a policy in force: the lines of a document that enforces.
fn apply(datapath: &mut Datapath, revision: u64, text: &str) -> Result<()> {
    let document = policy::parse(&format!("mode = \"enforce\"\n{text}")).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
    let compiled =
        policy::compile(&document, revision, &datapath.layout()).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
    datapath.apply(&compiled)
}

fn limit(name: &str, rate: &str, burst: u32) -> String {
    format!(
        "[[limit]]\nname = \"{name}\"\nunit = \"packets\"\nrate = \"{rate}\"\nburst = {burst}\nsources = 300\n\
         overflow = \"refuse\"\n"
    )
}

fn frame(source: u32) -> Vec<u8> {
    Frame::v4(source).bytes()
}

/// How many of a source's frames pass, one after the other at one instant.
fn passing(datapath: &Datapath, source: u32, frames: usize) -> Result<usize> {
    let actions = (0..frames).map(|_| Ok(datapath.test_run(&frame(source), 1)?.action));
    Ok(actions.collect::<Result<Vec<_>>>()?.into_iter().filter(|&action| action == action::PASS).count())
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let mut names =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

fn entry(prefix: &str, blocked_until: u64, flags: u32) -> (IpNet, SourceEntry) {
    (prefix.parse().expect("a prefix"), SourceEntry { blocked_until, flags, ..SourceEntry::default() })
}

/// What `look` sees once it sees something.
fn until<T>(look: impl Fn() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return Ok(seen);
        }
        anyhow::ensure!(start.elapsed().as_secs() < 30, "nothing to be seen for 30 s");
        std::thread::yield_now();
    }
}

/// How many packets were judged.
fn seen(datapath: &Datapath) -> Result<u64> {
    Ok(datapath.reason_tallies()?.iter().map(|(_, _, tally)| tally.packets).sum())
}
