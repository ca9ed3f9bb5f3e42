//! What throttle costs, each figure beside a baseline of the same run.
//!
//! [`packets`]: nanoseconds a packet, by path and number of sources. [`handshakes`]: the same for the packets that a limit
//! on open connections looks at. [`beside`]: real connections and real SYNs on a veth, with throttle, nftables and
//! iptables. [`agent`]: what the agent takes of a CPU with 10^6 sources, under `throttle top`, and with 100 000
//! connections to count.

mod agent;
mod beside;
mod handshakes;
mod packets;
mod sockets;

use anyhow::{Context, Result, bail, ensure};
use std::{ffi::OsString, fmt::Write as _, fs, path::PathBuf};
use throttle_tests::machine;

const USAGE: &str = "usage: bench [--markdown FILE] [PART]...: measures what throttle costs, and writes it to FILE too; \
                     parts are packets, handshakes, beside and agent, without any all of them";

/// Measures something, and gives what is to be said of it.
type Measure = fn() -> Result<String>;

/// What is measured, in this order.
const PARTS: [(&str, Measure); 4] = [
    ("packets", packets::measure),
    ("handshakes", handshakes::measure),
    ("beside", beside::measure),
    ("agent", agent::measure),
];

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let [first, rest @ ..] = &arguments[..]
        && first == sockets::HOLD
    {
        return sockets::hold(rest);
    }
    let (markdown, wanted) = parse(arguments)?;
    ensure!(machine::is_root(), "the benchmark loads kernel programs: run it as root");
    // Who measures beside it would be held up by the CPU that it takes, and would disturb it.
    let _machine = machine::alone()?;
    let mut report = format!(
        "Linux {}, {}, {} CPUs.\n",
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        processor()?,
        machine::cpus()
    );
    for (name, measure) in PARTS.into_iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name)) {
        eprintln!("{name}");
        writeln!(report)?;
        report += &measure().with_context(|| format!("measure {name}"))?;
    }
    println!("{report}");
    if let Some(file) = markdown {
        fs::write(&file, &report).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

/// The file of `--markdown FILE`, and the parts that are named.
fn parse(arguments: Vec<OsString>) -> Result<(Option<PathBuf>, Vec<&'static str>)> {
    let (mut markdown, mut wanted) = (None, Vec::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument == "--help" {
            println!("{USAGE}");
            std::process::exit(0)
        } else if argument == "--markdown" {
            markdown = Some(arguments.next().context(USAGE)?.into());
        } else if let Some((part, _)) = PARTS.iter().find(|(part, _)| argument == *part) {
            wanted.push(*part);
        } else {
            bail!(USAGE);
        }
    }
    Ok((markdown, wanted))
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
