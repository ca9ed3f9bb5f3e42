//! Segments that complete a handshake, whatever else they say: the kernel makes a socket of each, so each takes a place.

use super::{eventually, host::Host};
use anyhow::{Result, ensure};
use rustix::net::sockopt::set_socket_linger;
use std::{
    net::{TcpListener, TcpStream},
    ops::Range,
    time::Duration,
};
use throttle_agent::datapath::Drift;
use throttle_common::packet::tcp;
use throttle_tests::{
    needs_root,
    stranger::{FIRST, Stranger},
    wire::FAR_V4,
};

const ALLOWED: u64 = 2;
const PORTS: Range<u16> = 1024..1029;
/// Longer than what may not have opened is waited for.
const A_WHILE: Duration = Duration::from_millis(3_500);

/// How many sockets wait to be accepted.
fn accepted(listener: &TcpListener) -> Result<Vec<TcpStream>> {
    listener.set_nonblocking(true)?;
    Ok(std::iter::from_fn(|| listener.accept().ok()).map(|(stream, _)| stream).collect())
}

#[test]
fn a_syn_that_is_said_once_more_completes_a_handshake_as_any_segment_does() -> Result<()> {
    needs_root!();
    // The kernel forgets a SYN whose number it knows, and takes the rest.
    let ways = [(tcp::SYN | tcp::ACK, 1), (tcp::SYN | tcp::ACK | tcp::FIN, 0)];
    for (flags, payload) in ways {
        let mut host = Host::new()?;
        let listener = host.listen_deep(FAR_V4)?;
        let to = listener.local_addr()?;
        host.limit(to.port(), &[&format!("concurrent = {ALLOWED}\nsources = 300")])?;
        let stranger = Stranger::new(&host.wire, "10.98.77.1", to)?;
        // Whoever has reset a handshake may ask for more than there is room for.
        stranger.asks(&(1..2))?;
        stranger.says(1, [FIRST + 1, 0], tcp::RST, 0)?;
        for (port, answer) in stranger.asks(&PORTS)? {
            stranger.says(port, [FIRST, answer.wrapping_add(1)], flags, payload)?;
        }
        eventually(&(PORTS.len() as u64 - ALLOWED), || Ok(host.tally(0)?.refused.packets))?;
        let served = accepted(&listener)?;
        ensure!(served.len() as u64 == ALLOWED, "{} are served by {flags:#x} with {payload}", served.len());
        // Nor does it lose its place where its handshake goes on without end.
        std::thread::sleep(A_WHILE);
        stranger.says(2000, [FIRST, 0], tcp::SYN, 0)?;
        eventually(&true, || Ok(host.tally(0)?.refused.packets > PORTS.len() as u64 - ALLOWED))?;
        ensure!(host.open(0) == ALLOWED && host.reconcile()? == Drift::default(), "{} are counted", host.open(0));
        // The stranger acknowledges no end: it is reset.
        served.iter().try_for_each(|it| set_socket_linger(it, Some(Duration::ZERO)))?;
        drop(served);
        eventually(&0, || Ok(host.open(0)))?;
    }
    Ok(())
}
