//! Floods with honest sources that nobody named, but that have completed a handshake with the host.

use super::{FAMILIES, RATES, apart, flood_program, honest, policy, woven};
use anyhow::{Context, Result, ensure};
use std::{
    fmt::Write as _,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    process::Stdio,
};
use throttle_common::packet::Family;
use throttle_tests::{
    clients::connect_from,
    kernel::Order,
    machine, needs_root, say,
    wire::{FAR, FAR_V4, FAR_V6, NEAR, Wire},
};

/// Where a source connects from.
fn address(family: Family, source: u64) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(source as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(u128::from(source) << 64 | 1).into(),
    }
}

/// A wire whose near host has the addresses of all honest sources, and a far host that finds them there.
fn hosts(family: Family, order: &Order) -> Result<Wire> {
    let wire = Wire::new()?;
    let mut commands = String::new();
    for source in honest(order) {
        let length = if family == Family::V4 { 32 } else { 128 };
        writeln!(commands, "address add {}/{length} dev {NEAR}", address(family, source))?;
    }
    let mut ip = wire.near.command("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().context("run ip")?;
    ip.stdin.take().context("stdin is piped")?.write_all(commands.as_bytes())?;
    ensure!(ip.wait()?.success(), "addresses for the honest sources");
    let route = if family == Family::V4 { "198.51.0.0/16" } else { "2001:db8::/32" };
    wire.far.ip(&["route", "add", route, "dev", FAR])?;
    Ok(wire)
}

/// Has every honest source complete a handshake with the far host.
fn shake_hands(wire: &Wire, family: Family, order: &Order) -> Result<()> {
    let far: IpAddr = if family == Family::V4 { FAR_V4 } else { FAR_V6 }.parse()?;
    let listener = wire.far.enter(|| TcpListener::bind(SocketAddr::new(far, 0)))??;
    let to = listener.local_addr()?;
    wire.near.enter(|| {
        for source in honest(order) {
            let client = connect_from(address(family, source), to).context("a handshake")?;
            listener.accept()?;
            drop(client);
        }
        Ok(())
    })?
}

#[test]
fn sources_that_completed_a_handshake_lose_nothing() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    for family in FAMILIES {
        // Where buckets are soon full again, no place is scarce.
        for (rate, interval) in &RATES[1..] {
            let order = woven(family, *interval);
            let hosts = hosts(family, &order)?;
            let (mut program, limit) = hosts.far.enter(|| apart(family, &policy(rate, &[]), &order))??;
            program.datapath.watch_sockets()?;
            shake_hands(&hosts, family, &order)?;
            let seen = flood_program(family, (program, limit), order, 0)?;
            say!(
                "{family:?} flood of {:.2} million/s at {rate}: sources proven by a handshake {} of {} through; {} of {} \
                 frames found no place",
                seen.per_second() / 1e6,
                seen.received.honest,
                seen.sent.honest,
                seen.whole.overflowed.packets,
                seen.sent.flood,
            );
            ensure!(seen.whole.overflowed.packets > 0, "the flood was too weak to tell");
            ensure!(seen.received.honest == seen.sent.honest, "sources proven by a handshake lost packets at {rate}");
        }
    }
    Ok(())
}
