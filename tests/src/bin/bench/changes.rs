//! How long it takes from a command to its effect: the real binary against a running agent, and the kernel's own answer to
//! the next packet. A policy of 100 000 blocks, 10 000 tenants and 1 000 limits comes at once, then the rate of one of its
//! limits changes; the latter also where it is the only limit.
//!
//! The time runs from before the process of the command is started. The program that the agent attached is asked for its
//! verdict on a frame, over and over, until it is the new one.

use super::{
    chart, median,
    report::{Effort, Section},
};
use anyhow::{Context, Result, ensure};
use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};
use throttle_common::packet::tcp;
use throttle_tests::{
    agent::{Site, path},
    attached::Attached,
    frames::Frame,
    policies::{self, GENEROUS, STRICT, limit},
    program::action,
    wire::{FAR, Wire},
};

const ROUNDS: usize = 5;
const CHANGES: usize = 21;
const BLOCKS: u32 = 100_000;
const TENANTS: u32 = 10_000;
/// Prefixes of each of them.
const PREFIXES: usize = 10;
const LIMITS: u32 = 1_000;
/// Below what the host admits, so that such a limit has a meaning.
const BELOW: &str = "rate = \"1000000/s\"";
/// Each with a limit of its own and one for each of its sources; one of the host and one of tenants are the rest.
const SERVICES: u32 = (LIMITS - 2) / 2;
const FIRST_PORT: u32 = 10_000;
/// The time in which there must be an effect.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two questions: less than any figure here is told to.
const PAUSE: Duration = Duration::from_micros(100);

/// Measures, and gives the table.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    let (rounds, changes) = (effort.rounds(ROUNDS), effort.rounds(CHANGES));
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let agent = site.start(&["--interface", FAR])?;
    let bench = Bench { site: &site, attached: Attached::open(&site.pin_dir())? };

    let small = limit("source-0", "source", STRICT, "");
    let alone = bench.rates(&format!("mode = \"enforce\"\n{small}"), changes)?;
    let mut large = Vec::new();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        bench.apply("mode = \"enforce\"\n")?;
        large.push(bench.large()?);
    }
    let within = bench.rates(&policy(), changes)?;
    agent.stop()?;

    let column = |of: fn(&Times) -> f64, times: &[Times]| median(times.iter().map(of).collect());
    let mut text = format!(
        "From the start of the command's process to the kernel's own answer to the next packet, and to the end of the \
         command, in milliseconds: medians of {rounds} and {changes} rounds.\n\n| command | enforced | returned |\n|---|---:|---:|\n"
    );
    let rows = [
        ("`policy apply`: 100 000 blocks, 10 000 tenants with 100 000 prefixes, 1 000 limits", &large),
        ("`limit set --rate`, one of these limits", &within),
        ("`limit set --rate`, the only limit", &alone),
    ];
    for (name, times) in rows {
        let (enforced, returned) = (column(|times| times.enforced, times), column(|times| times.returned, times));
        writeln!(text, "| {name} | {enforced:.1} | {returned:.1} |")?;
    }
    let [all, one] = [&large, &within].map(|times| column(|times| times.enforced, times));
    writeln!(
        text,
        "\nThe whole policy is enforced in {:.2} s (goal: below 2 s), a changed rate in {one:.1} ms (goal: below 10 ms).",
        all / 1e3
    )?;
    let mut section = Section::from(text);
    let bars: Vec<_> = rows
        .iter()
        .map(|(name, times)| {
            (*name, vec![Some(column(|times| times.enforced, times)), Some(column(|times| times.returned, times))])
        })
        .collect();
    let title = "From a command to its effect";
    section.draw("changes", title, chart::bars(title, "milliseconds", &["enforced", "returned"], &bars));
    Ok(section)
}

/// What one command took, in milliseconds.
struct Times {
    enforced: f64,
    returned: f64,
}

struct Bench<'a> {
    site: &'a Site<'a>,
    attached: Attached,
}

impl Bench<'_> {
    fn apply(&self, text: &str) -> Result<()> {
        self.site.apply(text)
    }

    /// The large policy, from nothing to all of it: the last block, the limit of the last tenant and that of the last
    /// service must refuse.
    fn large(&self) -> Result<Times> {
        let file = self.site.file("large.toml");
        fs::write(&file, policy())?;
        let probes = [
            Frame::v4(policies::blocked(BLOCKS - 1)),
            Frame::v4(tenants(TENANTS - 1)[PREFIXES - 1]),
            Frame::v4([172, 16, 0, 1]).tcp(40_000, (FIRST_PORT + SERVICES - 1) as u16, tcp::ACK),
        ];
        for probe in &probes {
            ensure!(self.attached.act(probe)? == action::PASS, "a packet is refused before the policy is there");
        }
        self.time(&["policy", "apply", &path(&file)], || {
            for probe in &probes {
                if self.attached.act(probe)? != action::DROP {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// The rate of the limit `source-0` of a policy, from one that refuses to one that does not, so many times.
    fn rates(&self, policy: &str, rounds: usize) -> Result<Vec<Times>> {
        self.apply(policy)?;
        let probe = Frame::v4([172, 16, 0, 2]).tcp(40_000, FIRST_PORT as u16, tcp::ACK);
        let mut times = Vec::new();
        for _ in 0..rounds {
            for (rate, wanted) in [("1/h", action::DROP), ("1000000/s", action::PASS)] {
                // The burst is one packet's, and this is it.
                self.attached.act(&probe)?;
                let arguments = ["limit", "set", "source-0", "--rate", rate, "--burst", "1"];
                times.push(self.time(&arguments, || Ok(self.attached.act(&probe)? == wanted))?);
            }
        }
        Ok(times)
    }

    /// Runs a command, and asks until it has had its effect.
    fn time(&self, arguments: &[&str], has_effect: impl Fn() -> Result<bool>) -> Result<Times> {
        let start = Instant::now();
        let mut command = self.site.command(arguments)?;
        let mut command =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("run throttle")?;
        let milliseconds = || start.elapsed().as_secs_f64() * 1e3;
        let (mut enforced, mut returned) = (None, None);
        while enforced.is_none() || returned.is_none() {
            if enforced.is_none() && has_effect()? {
                enforced = Some(milliseconds());
            }
            if returned.is_none()
                && let Some(status) = command.try_wait()?
            {
                ensure!(status.success(), "throttle {arguments:?}: {status}");
                returned = Some(milliseconds());
            }
            ensure!(start.elapsed() < PATIENCE, "throttle {arguments:?} has no effect after {PATIENCE:?}");
            thread::sleep(PAUSE);
        }
        Ok(Times { enforced: enforced.context("enforced")?, returned: returned.context("returned")? })
    }
}

/// Where the networks of a tenant begin.
fn tenants(number: u32) -> [Ipv4Addr; PREFIXES] {
    std::array::from_fn(|network| Ipv4Addr::from_bits((20 << 24) + ((number * PREFIXES as u32 + network as u32) << 8)))
}

/// The large policy.
fn policy() -> String {
    let mut text = "mode = \"enforce\"\n".to_owned();
    text += &limit("host", "host", GENEROUS, "");
    text += &limit("tenants", "tenant", STRICT, "");
    for number in 0..SERVICES {
        let (service, port) = (format!("service = \"service-{number}\""), FIRST_PORT + number);
        text += &limit(&format!("source-{number}"), "source", STRICT, &format!("{service}\nsources = 900"));
        text += &limit(&format!("service-{number}"), "service", BELOW, &service);
        text += &policies::service(number, port);
    }
    for number in 0..TENANTS {
        text += &policies::tenant(number, &tenants(number).map(|network| format!("\"{network}/24\"")).join(", "));
    }
    text + &format!("[sources]\nblock = [{}]\n", policies::blocks(BLOCKS))
}
