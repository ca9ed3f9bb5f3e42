//! What throttle costs, each figure beside a baseline of the same run.
//!
//! [`paths`]: nanoseconds a packet under the full policy, by path and number of sources. [`packets`]: the same under
//! few limits. [`handshakes`]: the same for the packets that a limit on open connections looks at. [`beside`]: real
//! connections and real SYNs on a veth, with throttle, nftables and iptables. [`agent`]: what the agent takes of a CPU
//! with 10^6 sources, under `throttle top`, and with 100 000 connections to count; [`heartbeats`]: with 1 000 backends.
//! [`changes`]: from a command to its
//! effect on the next packet. [`refusals`]: refused packets on a veth, with throttle, nftables and iptables; [`pages`]:
//! refused requests, answered with 429 by throttle and by nginx.
//! [`scaling`]: one CPU and two. [`state`]: memory, and 10^7 sources. [`curves`]: what each algorithm admits of the
//! same bursts. [`web`]: nginx behind all this. [`bulkheads`]: nginx beside a flood that is another's, and how soon a
//! guarantee is lent and back. [`overload`]: a real server under more than it can bear; [`kept`]: the same, asked over
//! connections that are kept; [`neighbours`]: a service beside one that fails. [`health`]: the controller and the
//! detector in simulation, which needs no machine at all.

mod agent;
mod beside;
mod bulkheads;
mod changes;
mod chart;
mod curves;
mod handshakes;
mod health;
mod heartbeats;
mod kept;
mod lanes;
mod neighbours;
mod overload;
mod packets;
mod pages;
mod paths;
mod phases;
mod refusals;
mod report;
mod rivals;
mod scaling;
mod sockets;
mod state;
mod web;

use anyhow::{Context, Result, bail, ensure};
use report::{Effort, Section};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};
use throttle_tests::{backends, machine, workers};

const USAGE: &str = "usage: bench [--short] [--into DIR] [PART]...: measures what throttle costs, and writes a page with \
                     charts of each part into docs/benchmarks or DIR; without a PART all of them. --short only sees that \
                     everything runs, and writes nothing unless it is told where";

/// Measures something, and gives what is to be said of it.
type Measure = fn(Effort) -> Result<Section>;

/// What is measured, in this order.
const PARTS: [(&str, Measure); 18] = [
    ("paths", paths::measure),
    ("packets", packets::measure),
    ("refusals", refusals::measure),
    ("pages", pages::measure),
    ("scaling", scaling::measure),
    ("web", web::measure),
    ("bulkheads", bulkheads::measure),
    ("state", state::measure),
    ("curves", curves::measure),
    ("handshakes", handshakes::measure),
    ("beside", beside::measure),
    ("changes", changes::measure),
    ("agent", agent::measure),
    ("heartbeats", heartbeats::measure),
    ("overload", overload::measure),
    ("kept", kept::measure),
    ("neighbours", neighbours::measure),
    (SIMULATED, health::measure),
];
/// The part that only simulates: it needs neither root nor the machine for itself.
const SIMULATED: &str = "health";

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let [first, rest @ ..] = &arguments[..]
        && first == sockets::HOLD
    {
        return sockets::hold(rest);
    }
    if arguments.first().is_some_and(|first| first == workers::WORK) {
        return workers::work();
    }
    if let [first, rest @ ..] = &arguments[..]
        && first == backends::SERVE
    {
        return backends::serve(rest);
    }
    let Told { effort, into, wanted } = parse(arguments)?;
    let measures = wanted.iter().any(|part| *part != SIMULATED) || wanted.is_empty();
    ensure!(!measures || machine::is_root(), "the benchmark loads kernel programs: run it as root");
    // Who measures beside it would be held up by the CPU that it takes, and would disturb it.
    let _machine = measures.then(machine::alone).transpose()?;
    let here = format!(
        "Linux {}, {}, {} CPUs.",
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        processor()?,
        machine::cpus()
    );
    println!("{here}");
    for (name, measure) in PARTS.into_iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name)) {
        eprintln!("{name}");
        let section = measure(effort).with_context(|| format!("measure {name}"))?;
        println!("\n{}", section.text);
        if let Some(directory) = &into {
            let machine = if name == SIMULATED { "Simulated: it is the same on every machine." } else { &here };
            section.write(directory, name, machine)?;
        }
    }
    Ok(())
}

/// What the benchmark is told.
struct Told {
    effort: Effort,
    /// Where pages and charts go.
    into: Option<PathBuf>,
    /// The parts that are named.
    wanted: Vec<&'static str>,
}

fn parse(arguments: Vec<OsString>) -> Result<Told> {
    let (mut short, mut into, mut wanted) = (false, None, Vec::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument == "--help" {
            let parts = PARTS.map(|(part, _)| part).join(", ");
            println!("{USAGE}.\nParts: {parts}.");
            std::process::exit(0)
        } else if argument == "--short" {
            short = true;
        } else if argument == "--into" {
            into = Some(arguments.next().context(USAGE)?.into());
        } else if let Some((part, _)) = PARTS.iter().find(|(part, _)| argument == *part) {
            wanted.push(*part);
        } else {
            bail!(USAGE);
        }
    }
    let pages = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks");
    Ok(Told { effort: Effort { short }, into: into.or_else(|| (!short).then(pages)), wanted })
}

/// The median of the rounds.
fn median<T: PartialOrd + Copy>(mut rounds: Vec<T>) -> T {
    rounds.sort_by(|one, other| one.partial_cmp(other).expect("what is measured is a number"));
    rounds[rounds.len() / 2]
}

/// Measures on the last CPU, which no other process gets meanwhile: see [`machine::seize`]. For a thread that ends then.
fn seized_here<T>(measure: impl FnOnce() -> Result<T>) -> Result<T> {
    machine::seize(machine::cpus() - 1)?;
    measure()
}

/// The same on a thread of its own.
fn seized<T: Send>(measure: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| seized_here(measure));
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn processor() -> Result<String> {
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    Ok(name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned()))
}
