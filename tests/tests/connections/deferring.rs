//! Listeners that wait for data (`TCP_DEFER_ACCEPT`): what only acknowledges opens nothing there.

use super::{
    eventually,
    host::{Host, sockets},
};
use anyhow::{Context as _, Result, ensure};
use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    time::Duration,
};
use throttle_agent::datapath::Drift;
use throttle_common::packet::tcp;
use throttle_tests::{
    needs_root,
    stranger::{FIRST, Stranger},
    wire::FAR_V4,
};

/// How many a source may have, and how many call.
const ALLOWED: usize = 2;
const CALLERS: usize = 5;
/// Longer than a connection that nobody is told of could be taken for one on its way.
const A_WHILE: Duration = Duration::from_millis(3_500);

/// A host whose limit counts the connections to a listener that waits so many seconds for data.
fn deferring(seconds: libc::c_int) -> Result<(Host, TcpListener)> {
    let mut host = Host::new()?;
    let listener = host.listen_deep(FAR_V4)?;
    // SAFETY: the value lives through the call, whose length is its own.
    let set = unsafe {
        let (value, length) = ((&raw const seconds).cast(), size_of_val(&seconds) as u32);
        libc::setsockopt(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, value, length)
    };
    ensure!(set == 0, "TCP_DEFER_ACCEPT: {}", io::Error::last_os_error());
    let limit = format!("concurrent = {ALLOWED}\naction = \"reject\"\nsources = 300");
    host.limit(listener.local_addr()?.port(), &[&limit])?;
    Ok((host, listener))
}

/// Clients that are connected, as they believe, one after the other: as soon as what was asked for before counts no more.
fn call(host: &Host, to: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let mut clients = Vec::new();
    eventually(&count, || {
        match host.connect(None, to)? {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            client => clients.push(client.context("connect")?),
        }
        Ok(clients.len())
    })?;
    Ok(clients)
}

#[test]
fn a_client_that_says_nothing_to_who_waits_for_data_holds_no_place() -> Result<()> {
    needs_root!();
    let (host, listener) = deferring(60)?;
    let to = listener.local_addr()?;
    let open = || Ok((sockets(&host.wire.far, to.port(), None)?, host.open(0)));
    let mut clients = call(&host, to, CALLERS)?;
    std::thread::sleep(A_WHILE);
    ensure!(open()? == (0, 0) && host.reconcile()? == Drift::default(), "{:?}", open()?);
    // Then each speaks: as many are served as there may be.
    for client in &mut clients {
        client.write_all(b"?")?;
    }
    eventually(&(ALLOWED as u64, ALLOWED as u64), open)?;
    let refused = || Ok(host.tally(0)?.refused.packets >= (CALLERS - ALLOWED) as u64);
    eventually(&true, refused)?;
    let tally = host.tally(0)?;
    ensure!(tally.admitted.packets == ALLOWED as u64 && open()?.0 == ALLOWED as u64, "{tally:?}");
    ensure!(host.reconcile()? == Drift::default());
    for _ in 0..ALLOWED {
        ensure!(listener.accept()?.0.read(&mut [0])? == 1);
    }
    drop((clients, listener));
    eventually(&(0, 0), open)
}

#[test]
fn who_is_let_in_without_data_in_the_end_takes_a_place_or_is_refused() -> Result<()> {
    needs_root!();
    let (host, listener) = deferring(1)?;
    let to = listener.local_addr()?;
    let open = || Ok((sockets(&host.wire.far, to.port(), None)?, host.open(0)));
    let clients = call(&host, to, CALLERS)?;
    // The kernel says its SYN-ACK once more, and takes what acknowledges that.
    eventually(&(ALLOWED as u64, ALLOWED as u64), open)?;
    eventually(&true, || Ok(host.tally(0)?.refused.packets >= (CALLERS - ALLOWED) as u64))?;
    ensure!(open()? == (ALLOWED as u64, ALLOWED as u64) && host.reconcile()? == Drift::default(), "{:?}", open()?);
    drop((clients, listener));
    eventually(&(0, 0), open)
}

#[test]
fn data_in_another_fragment_opens_a_connection_too() -> Result<()> {
    needs_root!();
    let (host, listener) = deferring(60)?;
    let to = listener.local_addr()?;
    let stranger = Stranger::new(&host.wire, "10.98.77.1", to)?;
    // Whoever has reset a handshake may ask for more than there is room for.
    stranger.asks(&(1..2))?;
    stranger.says(1, [FIRST + 1, 0], tcp::RST, 0)?;
    let answers = stranger.asks(&(1024..1024 + CALLERS as u16))?;
    for (port, answer) in answers {
        let segment =
            stranger.frame(port, [FIRST + 1, answer.wrapping_add(1)], tcp::ACK).tcp_options(&[1; 4]).payload(8);
        segment.in_two(24).iter().try_for_each(|fragment| stranger.send(fragment))?;
    }
    let refused = || Ok(host.tally(0)?.refused.packets);
    eventually(&((CALLERS - ALLOWED) as u64), refused)?;
    let open = || Ok((sockets(&host.wire.far, to.port(), None)?, host.open(0)));
    eventually(&(ALLOWED as u64, ALLOWED as u64), open)
}
