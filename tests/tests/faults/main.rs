//! Live faults, with a real agent and real backends: processes that are killed, stopped and restarted, cables that are pulled
//! out and lose packets, and an agent that stands still or is dead. How long things take is printed; what is asserted is what
//! came of them, in which order, and how often.

mod deaths;
mod loss;
mod pauses;
mod proxy;
mod restarts;
mod trials;

use anyhow::Result;
use std::{fs, net::SocketAddr, path::Path};
use throttle_agent::api::wire::TransitionView;
use throttle_tests::{
    agent::{Agent, Site},
    backends::Backend,
    slow::at,
    standing::{changes, until},
    upstreams::{PORT, Upstream},
    wire::{FAR, FAR_V4, Wire},
};

const RUN: [&str; 3] = ["--interface", FAR, "--mode=native"];

/// The binary that backends are run by.
fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_bench"))
}

/// A service whose backends are kept away while they are dead; nothing else moves.
fn policy(backends: &[(SocketAddr, &str)]) -> String {
    let service = format!(
        "mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80, 81, 82, 83, {PORT}]\n\
         [service.health]\nmode = \"enforce\"\ncontrol = \"fixed\"\n"
    );
    let backend = |(number, (address, probe)): (usize, &(SocketAddr, &str))| {
        let name = name(number);
        format!("[[backend]]\nname = \"{name}\"\nservice = \"web\"\naddress = \"{address}\"\nprobe = {probe}\n")
    };
    service + &backends.iter().enumerate().map(backend).collect::<String>()
}

/// What a backend is called in the policy.
fn name(number: usize) -> String {
    format!("web-{}", number + 1)
}

/// How most are asked.
const HTTP: &str = "\"http:/\"";

/// Addresses of this host, with the ports where its own backends listen.
fn here(ports: &[u16]) -> Vec<(SocketAddr, &'static str)> {
    ports.iter().map(|port| (at(FAR_V4, *port), HTTP)).collect()
}

/// A host with so many others behind it, each with a backend.
struct Fleet {
    wire: Wire,
    upstreams: Vec<Upstream>,
}

impl Fleet {
    fn new(count: u8) -> Result<Self> {
        let wire = Wire::new()?;
        let upstreams = (1..=count).map(|number| Upstream::behind(&wire.far, number)).collect::<Result<_>>()?;
        Ok(Self { wire, upstreams })
    }

    /// Starts a backend on one of them.
    fn backend(&self, number: usize) -> Result<Backend> {
        Backend::on(&self.upstreams[number].host, program(), PORT)
    }

    /// Starts one on each.
    fn backends(&self) -> Result<Vec<Backend>> {
        (0..self.upstreams.len()).map(|number| self.backend(number)).collect()
    }

    /// Starts an agent on all interfaces of the host, with whatever else it is told.
    fn agent(&self, site: &Site<'_>, arguments: &[&str]) -> Result<Agent> {
        let interfaces: Vec<String> = self.upstreams.iter().map(Upstream::interface).collect();
        let each = interfaces.iter().flat_map(|it| ["--interface", it]).collect();
        site.start(&[RUN.to_vec(), each, arguments.to_vec()].concat())
    }

    /// Has the host pass packets on to them that clients send.
    fn forward(&self) -> Result<()> {
        self.wire.far.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
        self.wire.near.ip(&["route", "add", "10.99.0.0/16", "via", FAR_V4]).map(drop)
    }

    /// Puts them all behind the service, and returns once they are known to be well.
    fn follow(&self, site: &Site<'_>) -> Result<()> {
        let backends: Vec<_> = self.upstreams.iter().map(|it| (it.address(), HTTP)).collect();
        site.apply(&policy(&backends))?;
        all_are_well(site, backends.len())
    }
}

/// Returns once so many backends have answered, and are well.
fn all_are_well(site: &Site<'_>, count: usize) -> Result<()> {
    until(site, "all are well", |view| {
        view.backends.len() == count
            && view.backends.iter().all(|it| it.level == "healthy" && it.latency_seconds.is_some())
    })?;
    Ok(())
}

/// What was held of a backend, one change after the other, since the change of a number.
fn story(site: &Site<'_>, backend: &str, after: u64) -> Result<Vec<TransitionView>> {
    let all = changes(site, "web")?.into_iter();
    Ok(all.filter(|it| it.number > after && it.kind == "backend" && it.backend.as_deref() == Some(backend)).collect())
}

/// How many changes were deaths of backends, and how many suspicions.
fn deaths_and_suspicions(changes: &[TransitionView]) -> [usize; 2] {
    ["dead", "suspect"].map(|level| changes.iter().filter(|it| it.kind == "backend" && it.to == level).count())
}
