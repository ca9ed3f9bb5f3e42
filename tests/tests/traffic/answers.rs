//! What a refusal by `reject` is to a real client: an error of its socket.

use super::far;
use anyhow::{Context, Result, ensure};
use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};
use throttle_tests::{
    agent::Site,
    generator::Sender,
    needs_root,
    wire::{FAR, FAR_V4, FAR_V6, Wire},
};

/// One packet and one connection from each source, and an answer to every other.
const REJECT: &str = r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[[service]]
name = "names"
protocol = "udp"
ports = [53]
[[limit]]
name = "opens"
service = "web"
unit = "connections"
rate = "1/min"
action = "reject"
[[limit]]
name = "queries"
service = "names"
unit = "packets"
rate = "1/min"
action = "reject"
"#;

/// Long after an answer has come on this wire; a SYN is sent again after a second.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_client_is_told_at_once_by_an_error_of_its_socket() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    // A veth pair delivers what the far driver sends back only to an end with an XDP program; GRO there does not do.
    let _near = Sender::on(&wire)?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR, "--mode=native"])?;
    site.apply(REJECT)?;
    // RFC 792 and RFC 4443 "administratively prohibited", as the kernel tells a socket (icmp(7), net/ipv6/icmp.c).
    for (server, prohibited) in [(far(FAR_V4), libc::EHOSTUNREACH), (far(FAR_V6), libc::EACCES)] {
        let listener = wire.far.enter(|| TcpListener::bind(SocketAddr::new(server, 80)))??;
        let connect = || TcpStream::connect_timeout(&SocketAddr::new(server, 80), PATIENCE);
        let (first, second) = wire.near.enter(|| (connect(), connect()))?;
        first.with_context(|| format!("the first connection to {server}"))?;
        let refused = second.err().map(|error| error.kind());
        ensure!(refused == Some(ErrorKind::ConnectionRefused), "the second connection to {server} met {refused:?}");
        drop(listener);

        let names = wire.far.enter(|| UdpSocket::bind(SocketAddr::new(server, 53)))??;
        names.set_read_timeout(Some(PATIENCE))?;
        let told = wire.near.enter(|| ask_twice(server))??;
        ensure!(names.recv(&mut [0; 16])? == 5, "the first query arrived");
        ensure!(told.raw_os_error() == Some(prohibited), "the second query to {server} met {told}");
    }
    let losses = site.status()?.losses;
    ensure!(losses.answers_withheld == 0 && losses.answers_undue == 0, "{losses:?}");
    Ok(())
}

/// Sends two queries, and waits for what comes of the second.
fn ask_twice(server: IpAddr) -> Result<io::Error> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(SocketAddr::new(server, 53))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"query")?;
    socket.send(b"query")?;
    socket.recv(&mut [0; 16]).err().context("somebody answered the query")
}
