//! Real connections, by the hundred thousand where they are wanted.

use anyhow::{Context, Result, ensure};
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    time::Duration,
};
use throttle_tests::{
    netns::Namespace,
    wire::{FAR_V4, NEAR, Wire},
};

/// A server on the far host that takes connections and does nothing with them.
pub(super) fn listen(host: &Namespace) -> Result<TcpListener> {
    host.enter(|| {
        let listener = TcpListener::bind((FAR_V4, 0)).context("listen")?;
        rustix::net::listen(&listener, 4096).map_err(io::Error::from)?;
        anyhow::Ok(listener)
    })?
}

/// The address of a client on the near host: 10.98.4.1 and up.
pub(super) fn source(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(10 << 24 | 98 << 16 | 4 << 8 | (1 + number))
}

/// Gives the near host the addresses of so many clients, up to 254.
pub(super) fn add_sources(wire: &Wire, count: u32) -> Result<()> {
    (0..count).try_for_each(|number| {
        wire.near.ip(&["address", "add", &format!("{}/16", source(number)), "dev", NEAR]).map(drop)
    })
}

/// Opens a connection from an address of this thread's namespace; gives both ends.
pub(super) fn connect(from: Ipv4Addr, listener: &TcpListener) -> Result<[TcpStream; 2]> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let near = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&near, &SocketAddr::new(IpAddr::V4(from), 0)).context("bind")?;
    connect(&near, &listener.local_addr()?).context("connect")?;
    Ok([near.into(), listener.accept().context("accept")?.0])
}

/// Has a connection end with a reset, which leaves nothing behind at either end.
pub(super) fn reset([near, far]: [TcpStream; 2]) -> Result<()> {
    rustix::net::sockopt::set_socket_linger(near.as_fd(), Some(Duration::ZERO))?;
    drop(near);
    drop(far);
    Ok(())
}

/// Opens so many from 16 addresses of the near host, and keeps both ends of each.
pub(super) fn open(wire: &Wire, listener: &TcpListener, count: u32) -> Result<Vec<[TcpStream; 2]>> {
    const SOURCES: u32 = 16;
    allow_files(u64::from(count) * 2 + 1024)?;
    add_sources(wire, SOURCES)?;
    wire.near.enter(|| {
        let range = "/proc/sys/net/ipv4/ip_local_port_range";
        fs::write(range, "1024 65535").with_context(|| format!("write {range}"))?;
        (0..count).map(|number| connect(source(number % SOURCES), listener)).collect()
    })?
}

/// Lets this process open so many files.
pub(super) fn allow_files(count: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let old = getrlimit(Resource::Nofile);
    if old.current.is_none_or(|current| current >= count) {
        return Ok(());
    }
    let maximum = old.maximum.map(|maximum| maximum.max(count));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum });
    ensure!(raised.is_ok(), "{count} open files are not allowed: raise fs.nr_open: {}", raised.unwrap_err());
    Ok(())
}
