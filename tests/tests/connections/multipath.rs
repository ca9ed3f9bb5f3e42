//! Listeners of several paths (MPTCP, RFC 8684): each path is a TCP connection, and counts as one.

use super::{
    address, eventually,
    host::{Host, sockets},
};
use anyhow::{Context as _, Result, ensure};
use rustix::net::{AddressFamily, Protocol, SocketType, bind, connect, listen, socket};
use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener, TcpStream},
    num::NonZero,
};
use throttle_agent::datapath::Drift;
use throttle_common::packet::tcp;
use throttle_tests::{
    needs_root, say,
    stranger::{FIRST, Stranger},
    wire::{FAR_V4, FAR_V6},
};

/// How many a source may have, and how many it wants.
const ALLOWED: u64 = 20;
const WANTED: u16 = 80;

/// A socket of several paths.
fn several_paths(to: SocketAddr) -> io::Result<std::os::fd::OwnedFd> {
    let protocol = NonZero::new(libc::IPPROTO_MPTCP.cast_unsigned()).map(Protocol::from_raw);
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(socket(family, SocketType::STREAM, protocol)?)
}

/// A listener on the far host; `None`, said aloud, where its kernel has no MPTCP.
fn listener(host: &Host, at: &str) -> Result<Option<TcpListener>> {
    let at = SocketAddr::new(address(at), 0);
    match host.wire.far.enter(|| several_paths(at))? {
        Ok(listener) => {
            bind(&listener, &at)?;
            listen(&listener, 1000)?;
            Ok(Some(listener.into()))
        }
        Err(error) => {
            say!("skipped {}: no MPTCP ({error})", std::thread::current().name().unwrap_or("a test"));
            Ok(None)
        }
    }
}

/// A client on the near host.
fn call(host: &Host, to: SocketAddr) -> Result<io::Result<TcpStream>> {
    host.wire.near.enter(|| {
        let client = several_paths(to)?;
        connect(&client, &to)?;
        Ok(client.into())
    })
}

#[test]
fn a_listener_of_several_paths_has_no_more_than_the_limit_whatever_is_doubted() -> Result<()> {
    needs_root!();
    let mut host = Host::new()?;
    let Some(listener) = listener(&host, FAR_V4)? else { return Ok(()) };
    let to = listener.local_addr()?;
    host.limit(to.port(), &["concurrent = 20\naction = \"reject\"\nsources = 300"])?;
    let stranger = Stranger::new(&host.wire, "10.98.77.1", to)?;
    // Whoever resets a handshake is doubted: every SYN of its passes, and completed handshakes decide.
    stranger.asks(&(1023..1024))?;
    stranger.says(1023, [FIRST + 1, 0], tcp::RST, 0)?;
    for (port, answer) in stranger.asks(&(1024..1024 + WANTED))? {
        stranger.completes(port, answer)?;
    }
    let open = || Ok((sockets(&host.wire.far, to.port(), None)?, host.open(0)));
    eventually(&(ALLOWED, ALLOWED), open)?;
    let tally = host.tally(0)?;
    let refused = u64::from(WANTED) - ALLOWED;
    ensure!((tally.admitted.packets, tally.refused.packets) == (ALLOWED, refused), "{tally:?}");
    ensure!(host.reconcile()? == Drift::default());
    drop(listener);
    eventually(&(0, 0), open)
}

#[test]
fn connections_of_several_paths_are_counted_and_give_their_places_back() -> Result<()> {
    needs_root!();
    for at in [FAR_V4, FAR_V6] {
        let mut host = Host::new()?;
        let Some(listener) = listener(&host, at)? else { return Ok(()) };
        let to = listener.local_addr()?;
        // One is older than the limit.
        let mut open = vec![(call(&host, to)??, listener.accept()?)];
        host.limit(to.port(), &["concurrent = 3\naction = \"reject\"\nsources = 300"])?;
        ensure!(host.open(0) == 1, "{} were found", host.open(0));
        for count in 2..=3 {
            open.push((call(&host, to)??, listener.accept()?));
            eventually(&count, || Ok(host.open(0)))?;
        }
        let refused = call(&host, to)?.err().map(|error| error.kind());
        ensure!(refused == Some(ErrorKind::ConnectionRefused), "the fourth met {refused:?}");
        ensure!(host.tally(0)?.admitted.packets == 2 && host.reconcile()? == Drift::default());
        drop(open.pop().context("there are three")?);
        eventually(&2, || Ok(host.open(0)))?;
        drop((open, listener));
        eventually(&(0, 0), || Ok((sockets(&host.wire.far, to.port(), None)?, host.open(0))))?;
        ensure!(host.reconcile()? == Drift::default() && host.connections()? == 0);
    }
    Ok(())
}
