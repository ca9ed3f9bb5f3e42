//! Sockets of the kernel that open connections by their SYN.

use anyhow::{Context as _, Result, ensure};
use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
};

/// A listener that takes data with the SYN, of so many whose handshakes are not complete, and shares its port.
pub(super) fn listen_fast(at: SocketAddr, queue: libc::c_int) -> Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    bind(&socket, &at)?;
    listen(&socket, 1000)?;
    take_fast(&socket, queue)?;
    Ok(socket.into())
}

/// Has a listener take data with the SYN, of so many whose handshakes are not complete.
pub(super) fn take_fast(listener: &impl AsRawFd, queue: libc::c_int) -> Result<()> {
    // SAFETY: the value lives through the call, whose length is its own.
    let set = unsafe {
        let (value, length) = ((&raw const queue).cast(), size_of_val(&queue) as u32);
        libc::setsockopt(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN, value, length)
    };
    ensure!(set == 0, "TCP_FASTOPEN: {}", io::Error::last_os_error());
    Ok(())
}

/// Connects with data in the SYN, where there is a cookie.
pub(super) fn call_fast(to: SocketAddr) -> Result<TcpStream> {
    use rustix::net::{AddressFamily, SendFlags, SocketType, sendto, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    sendto(&socket, b"hello", SendFlags::from_bits_retain(libc::MSG_FASTOPEN.cast_unsigned()), &to)
        .map_err(io::Error::from)?;
    Ok(socket.into())
}

/// How many connections of this namespace were opened by their SYN.
pub(super) fn fast_opens() -> Result<u64> {
    let counters = std::fs::read_to_string("/proc/thread-self/net/netstat")?;
    let mut lines = counters.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
    let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "TCPFastOpenPassive");
    Ok(found.context("no TCPFastOpenPassive")?.1.parse()?)
}
