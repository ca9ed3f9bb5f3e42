//! Real traffic: raw frames, a real web server, and clients of it.

use crate::{groups::Group, machine, netns::Namespace};
use anyhow::{Context, Result, ensure};
use std::{
    ffi::CString,
    fs, io,
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

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

/// Connects from an address of our own.
pub fn connect_from(source: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::new(source, 0))?;
    connect(&socket, &to)?;
    Ok(socket.into())
}

/// The port that the web server listens on.
pub const HTTP: u16 = 80;

/// What it serves at any path.
const PAGE: &str = "return 200 'hello\\n';";

/// A real nginx, with the one page that it serves at any path, or as a proxy.
#[derive(Debug)]
pub struct Server {
    nginx: Child,
    _directory: TempDir,
}

impl Server {
    /// Starts it on a host; it listens on port [`HTTP`] of both families when this returns.
    pub fn on(host: &Namespace) -> Result<Self> {
        Self::start(host, host.command("nginx"), PAGE)
    }

    /// The same, ahead of ordinary processes: no latency is the time for which it waits for a compiler.
    pub fn ahead_on(host: &Namespace) -> Result<Self> {
        let mut command = host.command("chrt");
        command.args(["--fifo", "2", "nginx"]);
        Self::start(host, command, PAGE)
    }

    /// One on a host, in a control group, that passes each request on to the next of these, whatever became of the one
    /// before, from an address of its own; where one cannot be reached it tries the others.
    pub fn proxy_on(host: &Namespace, group: &Group, from: &str, to: &[SocketAddr]) -> Result<Self> {
        let servers: Vec<_> = to.iter().map(|to| format!("server {to} max_fails=0;")).collect();
        let servers = servers.join(" ");
        let passes = format!(
            "location / {{ proxy_pass http://others; proxy_bind {from}; proxy_connect_timeout 2s; }} }}\n\
             upstream others {{ {servers}"
        );
        Self::start(host, group.command(host, "nginx"), &passes)
    }

    fn start(host: &Namespace, mut command: Command, does: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("throttle-tests-nginx-").tempdir()?;
        let root = directory.path().display();
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {root}/{kind};"))
            .concat();
        let configuration = format!(
            "daemon off; pid {root}/pid; error_log {root}/error.log; worker_processes 1; user root;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; {paths}\n\
             server {{ listen {HTTP} backlog=4096; listen [::]:{HTTP} backlog=4096; {does} }} }}\n"
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, configuration)?;
        command.arg("-c").arg(&file).arg("-e").arg(directory.path().join("error.log")).arg("-p").arg(directory.path());
        let nginx = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut server = Self { nginx: nginx.context("start nginx; is it installed?")?, _directory: directory };
        let start = Instant::now();
        let listens = || host.enter(|| TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], HTTP))).is_ok());
        while !listens()? {
            if let Some(status) = server.nginx.try_wait()? {
                anyhow::bail!("nginx ended, {status}");
            }
            ensure!(start.elapsed() < Duration::from_secs(20), "nginx does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The master takes its workers along when it is asked to end, not when it is killed.
        let asked = machine::run(Command::new("kill").arg(self.nginx.id().to_string()));
        if asked.is_err() || self.nginx.wait().is_err() {
            machine::print("left behind: an nginx");
        }
    }
}

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
