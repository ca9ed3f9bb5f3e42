//! TCP headers that lie far behind, after all the extension headers that jumbo frames have room for.

use super::{address, eventually, host::Host};
use anyhow::{Context as _, Result, ensure};
use rustix::net::{AddressFamily, SocketType, connect, socket};
use std::{
    io,
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
};
use throttle_tests::{
    needs_root,
    wire::{FAR, FAR_V6, NEAR},
};

/// The longest header of options that Linux sends, in bytes.
const LONGEST: usize = 2_040;
/// An option that whoever does not know it skips (RFC 4727, RFC 8200), and how many of them Linux takes in a header.
const SKIPPED: u8 = 0x1e;
const MOST: usize = 8;

/// A header full of such options; the kernel fills in what follows it.
fn options() -> Vec<u8> {
    let mut header = vec![0, (LONGEST / 8 - 1) as u8];
    for left in (1..=MOST).rev() {
        let length = (LONGEST - header.len()) / left;
        header.extend([SKIPPED, (length - 2) as u8]);
        header.resize(header.len() + length - 2, 0);
    }
    header
}

/// Connects with a header for each hop and one for the destination before TCP's.
fn call(to: SocketAddr) -> io::Result<TcpStream> {
    let (client, header) = (socket(AddressFamily::INET6, SocketType::STREAM, None)?, options());
    for name in [libc::IPV6_HOPOPTS, libc::IPV6_DSTOPTS] {
        let (value, length) = (header.as_ptr().cast(), header.len() as u32);
        // SAFETY: the value lives through the call, whose length is its own.
        if unsafe { libc::setsockopt(client.as_raw_fd(), libc::IPPROTO_IPV6, name, value, length) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    connect(&client, &to)?;
    Ok(client.into())
}

#[test]
fn a_handshake_that_completes_behind_long_extension_headers_takes_its_place() -> Result<()> {
    needs_root!();
    // In the network stack, where frames lie in one piece however long they are.
    let mut host = Host::generic(|wire| {
        for (end, interface) in [(&wire.near, NEAR), (&wire.far, FAR)] {
            end.ip(&["link", "set", interface, "mtu", "9000"])?;
        }
        Ok(())
    })?;
    let listener = host.listen(FAR_V6)?;
    let to = SocketAddr::new(address(FAR_V6), listener.local_addr()?.port());
    host.limit(to.port(), &["concurrent = 1\nsources = 300"])?;
    let client = host.wire.near.enter(|| call(to))?.context("connect behind extension headers")?;
    let accepted = listener.accept()?;
    // What only its socket takes a place for was not asked whether there is one.
    eventually(&(1, 1), || Ok((host.tally(0)?.admitted.packets, host.open(0))))?;
    ensure!(host.tally(0)?.refused.packets == 0);
    drop((client, accepted));
    eventually(&0, || Ok(host.open(0)))
}
