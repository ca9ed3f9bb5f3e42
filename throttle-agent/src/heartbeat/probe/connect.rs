//! A connection to a backend, and what is told by its failing.

use std::{io, net::SocketAddr, time::Duration};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt},
};
use tokio::net::TcpStream;

use crate::{
    heartbeat::seen::{Outcome, Silence},
    own_probes,
};

/// Connects, or says why not. What fails before a packet has left is this host's fault and no word of the backend's.
///
/// The last packet of the handshake is held back until there is data for it, and closing resets: a connection that is only
/// to be taken never reaches the application (as with `HAProxy`'s checks), and none stays behind in TIME_WAIT.
pub(super) async fn connect(address: SocketAddr) -> Result<TcpStream, Outcome> {
    let stream = begin(address).map_err(|error| Outcome::Unsent(error.kind()))?;
    stream.writable().await.map_err(|error| Outcome::Unsent(error.kind()))?;
    match stream.take_error() {
        Ok(None) => Ok(stream),
        Ok(Some(error)) => Err(failed(&error)),
        Err(error) => Err(Outcome::Unsent(error.kind())),
    }
}

fn begin(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    match own_probes::mark(&socket) {
        // Who may not do so has attached nothing that could refuse a probe.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        _ => {}
    }
    sockopt::set_tcp_quickack(&socket, false)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => TcpStream::from_std(socket.into()),
        Err(error) => Err(error.into()),
    }
}

/// What the network answered to the first packet.
fn failed(error: &io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::TimedOut => Outcome::Unanswered(Silence::Connecting(Duration::ZERO)),
        io::ErrorKind::ConnectionReset => Outcome::Unanswered(Silence::Closed),
        io::ErrorKind::ConnectionRefused => Outcome::Refused,
        kind => Outcome::Unanswered(Silence::NoWay(kind)),
    }
}
