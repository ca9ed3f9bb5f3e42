//! Real traffic: raw frames, and clients of a real web server.

use crate::{machine, netns::Namespace, nginx::PASSED_ON};
use anyhow::{Context, Result, ensure};
use std::{
    ffi::CString,
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::Stdio,
    time::Duration,
};

/// Sends frames out of an interface of this thread's namespace, through one packet socket: to close one takes the kernel
/// tens of milliseconds. Where the wire is full, the frame waits.
pub fn send_raw<'f>(interface: &str, frames: impl IntoIterator<Item = &'f [u8]>) -> Result<()> {
    let name = CString::new(interface)?;
    // SAFETY: the name lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index != 0, "no interface {interface}");
    // SAFETY: plain numbers; the result is checked.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    ensure!(socket >= 0, "open a packet socket: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor was just opened, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: zero is a valid value of every field.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index.cast_signed();
    for frame in frames {
        // SAFETY: both pointers are valid for the lengths given.
        let send = || unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        while send() != frame.len().cast_signed() {
            let error = std::io::Error::last_os_error();
            ensure!(error.raw_os_error() == Some(libc::ENOBUFS), "send a frame: {error}");
            std::thread::yield_now();
        }
    }
    Ok(())
}

/// Closes a connection by a reset, which leaves nothing behind at either end.
pub fn reset(client: TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
    drop(client);
    Ok(())
}

/// Connects from an address of our own.
pub fn connect_from(source: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    connect_bound(SocketAddr::new(source, 0), to)
}

/// Connects from a port of our own.
pub fn connect_bound(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None)?;
    bind(&socket, &from)?;
    connect(&socket, &to)?;
    Ok(socket.into())
}

/// The port that the web server listens on.
pub const HTTP: u16 = 80;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With the page.
    Served,
    /// With a refusal that came back at once: a reset, or ICMP.
    Refused,
    /// Without any answer in time.
    Silence,
}

/// Fetches the page over a new connection with curl, from one of the host's addresses.
pub fn fetch(host: &Namespace, from: IpAddr, server: IpAddr, patience: Duration) -> Result<Ending> {
    let url = format!("http://{}/", SocketAddr::new(server, HTTP));
    let mut curl = host.command("curl");
    curl.args(["--silent", "--output", "/dev/null", "--noproxy", "*", "--interface", &from.to_string()]);
    curl.args(["--connect-timeout", &patience.as_secs_f64().to_string(), &url]).env_remove("http_proxy");
    let status = curl.stdin(Stdio::null()).status().context("run curl; is it installed?")?;
    // curl(1): 7 is a failure to connect, 28 a timeout.
    match status.code() {
        Some(0) => Ok(Ending::Served),
        Some(7) => Ok(Ending::Refused),
        Some(28) => Ok(Ending::Silence),
        other => anyhow::bail!("curl ended with {other:?}"),
    }
}

/// Runs wrk for a while over connections that it keeps, at a server that passes requests on.
pub fn wrk_keeping(host: &Namespace, server: IpAddr, tls: bool, span: Duration, connections: u32) -> Result<Requests> {
    let scheme = if tls { "https" } else { "http" };
    let url = format!("{scheme}://{}/", SocketAddr::new(server, PASSED_ON[usize::from(tls)]));
    let mut wrk = host.command("wrk");
    wrk.args(["--threads", "1", "--timeout", "60s", "--connections", &connections.to_string()]);
    wrk.args(["--duration", &format!("{}s", span.as_secs()), &url]);
    let report = machine::run(&mut wrk).context("run wrk; is it installed?")?;
    requests(&report).with_context(|| format!("wrk's report: {report}"))
}

/// What wrk reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Requests that were answered.
    pub served: u64,
    /// Requests that were not, or with an error.
    pub failed: u64,
}

/// Runs wrk for a while with a new connection for each request; gives how many requests were answered.
pub fn wrk(host: &Namespace, server: IpAddr, span: Duration, connections: u32) -> Result<u64> {
    Ok(wrk_within(host, server, span, connections, Duration::from_secs(1))?.served)
}

/// The same, with the time that a request may take; gives also how many failed.
pub fn wrk_within(
    host: &Namespace,
    server: IpAddr,
    span: Duration,
    connections: u32,
    patience: Duration,
) -> Result<Requests> {
    let url = format!("http://{}/", SocketAddr::new(server, HTTP));
    let mut wrk = host.command("wrk");
    wrk.args(["--threads", "1", "--header", "Connection: close", "--timeout", &format!("{}s", patience.as_secs())]);
    wrk.args(["--connections", &connections.to_string(), "--duration", &format!("{}s", span.as_secs()), &url]);
    let report = machine::run(&mut wrk).context("run wrk; is it installed?")?;
    requests(&report).with_context(|| format!("wrk's report: {report}"))
}

fn requests(report: &str) -> Option<Requests> {
    let line = |begins: &str| report.lines().find_map(|line| line.trim().strip_prefix(begins));
    let served = report.lines().find_map(|line| line.trim().split_once(" requests in "))?.0.parse().ok()?;
    // Lines that are there only where something failed: "connect 0, read 7, write 0, timeout 2", and a number.
    let numbers = |text: &str| text.split([',', ' ']).filter_map(|word| word.parse::<u64>().ok()).sum::<u64>();
    let failed = ["Socket errors:", "Non-2xx or 3xx responses:"].into_iter().filter_map(line).map(numbers).sum();
    Some(Requests { served, failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_failed() {
        let report = "  1200 requests in 3.00s, 1.0MB read\n  Socket errors: connect 1, read 7, write 0, timeout 2\n  \
                      Non-2xx or 3xx responses: 5\nRequests/sec: 400.00\n";
        assert_eq!(requests(report), Some(Requests { served: 1200, failed: 15 }));
        assert_eq!(requests("  7 requests in 3.00s, 1.0MB read\n"), Some(Requests { served: 7, failed: 0 }));
        assert_eq!(requests("nothing"), None);
    }
}
