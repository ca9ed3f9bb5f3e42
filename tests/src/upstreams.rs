//! Hosts behind a host, each by a cable of its own that can fail alone: it can be unplugged, and lose packets.

use crate::{generator::attach, kernel, machine, netns::Namespace};
use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Array, PerCpuArray, PerCpuValues},
    programs::{SchedClassifier, TcAttachType},
    util::nr_cpus,
};
use kernel::{Arrivals, Loss};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
};

/// The port that backends listen on.
pub const PORT: u16 = 8080;
/// The interface of a host behind.
const BEHIND: &str = "uplink";

/// A host behind another.
#[derive(Debug)]
pub struct Upstream {
    /// Itself.
    pub host: Namespace,
    number: u8,
}

impl Upstream {
    /// Makes one and lays its cable; numbers tell those behind one host apart.
    pub fn behind(front: &Namespace, number: u8) -> Result<Self> {
        let upstream = Self { host: Namespace::new("upstream")?, number };
        let here = upstream.interface();
        machine::run(Command::new("ip").args(["link", "add", &here, "netns", front.name(), "type", "veth"]).args([
            "peer",
            "name",
            BEHIND,
            "netns",
            upstream.host.name(),
        ]))?;
        for (host, interface, address) in [(front, &*here, 1), (&upstream.host, BEHIND, 2)] {
            host.ip(&["address", "add", &format!("{}/24", upstream.of(address)), "dev", interface])?;
            host.ip(&["link", "set", interface, "up"])?;
        }
        upstream.host.ip(&["route", "add", "default", "via", &upstream.of(1).to_string()])?;
        Ok(upstream)
    }

    /// The interface of the host before it that leads here.
    pub fn interface(&self) -> String {
        format!("{BEHIND}{}", self.number)
    }

    /// Where its backend listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.of(2), PORT)
    }

    /// One of the addresses on its cable.
    pub fn of(&self, last: u8) -> IpAddr {
        Ipv4Addr::new(10, 99, self.number, last).into()
    }

    /// Pulls the cable out at the end behind: the host before it hears nothing.
    pub fn unplug(&self) -> Result<()> {
        self.host.ip(&["link", "set", BEHIND, "down"]).map(drop)
    }

    /// Puts it in again.
    pub fn plug_in(&self) -> Result<()> {
        self.host.ip(&["link", "set", BEHIND, "up"])?;
        // It has gone with the link.
        self.host.ip(&["route", "replace", "default", "via", &self.of(1).to_string()]).map(drop)
    }

    /// Has so many in a hundred of the packets that come to it get lost from now on, ARP's among them; and counts the SYNs of
    /// one source.
    pub fn lose(&self, percent: u32, counted: IpAddr, seed: u64) -> Result<Losses> {
        Losses::at(&self.host, BEHIND, percent, counted, seed)
    }
}

/// What gets lost at an interface, for as long as this lives.
#[derive(Debug)]
pub struct Losses(Ebpf);

impl Losses {
    /// Of all packets that come in by an interface of a host.
    pub fn at(host: &Namespace, interface: &str, percent: u32, counted: IpAddr, seed: u64) -> Result<Self> {
        Self::on(host, interface, TcAttachType::Ingress, percent, counted, seed)
    }

    /// Of all packets that leave by one.
    pub fn leaving(host: &Namespace, interface: &str, percent: u32, counted: IpAddr, seed: u64) -> Result<Self> {
        Self::on(host, interface, TcAttachType::Egress, percent, counted, seed)
    }

    fn on(
        host: &Namespace,
        interface: &str,
        direction: TcAttachType,
        percent: u32,
        counted: IpAddr,
        seed: u64,
    ) -> Result<Self> {
        let mut object = kernel::load(64)?;
        let counted = if let IpAddr::V4(counted) = counted { u32::from(counted).into() } else { 0 };
        let loss = Loss { odds: (u64::from(percent) << 32) / 100, counted };
        Array::try_from(object.map_mut("LOSS").context("no map LOSS")?)?.set(0, loss, 0)?;
        let cpus = nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
        let seeds = (1..=cpus as u64)
            .map(|cpu| Arrivals { state: (seed + cpu).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, ..Arrivals::default() });
        let mut counts = PerCpuArray::try_from(object.map_mut("ARRIVALS").context("no map ARRIVALS")?)?;
        counts.set(0, PerCpuValues::try_from(seeds.collect::<Vec<_>>())?, 0)?;
        let program: &mut SchedClassifier = object.program_mut("lose").context("no program lose")?.try_into()?;
        program.load().context("load lose")?;
        host.enter(|| attach(program, interface, direction))?.context("attach lose")?;
        Ok(Self(object))
    }

    /// What came and what was lost so far.
    pub fn so_far(&self) -> Result<Arrivals> {
        let map = PerCpuArray::<_, Arrivals>::try_from(self.0.map("ARRIVALS").context("no map ARRIVALS")?)?;
        Ok(map.get(&0, 0)?.iter().fold(Arrivals::default(), |sum, cpu| Arrivals {
            state: 0,
            packets: sum.packets + cpu.packets,
            lost: sum.lost + cpu.lost,
            asks: sum.asks + cpu.asks,
        }))
    }
}
