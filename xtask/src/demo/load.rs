//! A round of load: wrk from every web client and a stream of datagrams beside it, counted at both ends.
//!
//! What was offered is counted where it was sent (the client kernel's own SYN counters, the datagrams sent),
//! what was admitted where it arrived (nginx's log, the datagrams received). The throttle is not asked.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::figures::Account;
use crate::playground::{Client, Namespace, Playground, SERVER, Served};
use crate::process::{self, Background};

/// Where the datagrams go.
pub(super) const DATAGRAM_PORT: u16 = 7000;
/// Datagrams offered per second.
const DATAGRAMS_PER_SECOND: u32 = 3_000;
/// Connections that each wrk keeps trying to have at a time: enough to want every token the moment it falls.
const CONNECTIONS: u32 = 64;

/// Lets every client offer what it can for this time: the last sends datagrams, the others run wrk.
pub(super) fn round(playground: &Playground, time: Duration) -> Result<(Vec<Account>, Account)> {
    let (datagrams, web) = playground.clients.split_last().context("the demo has clients")?;
    let served_before = playground.served()?.len();
    let mut running = Vec::new();
    for (index, client) in web.iter().enumerate() {
        running.push(Wrk::start(client, source(client, index), time)?);
    }
    let datagrams = send_datagrams(&playground.server, datagrams, time)?;
    for wrk in &mut running {
        wrk.wait()?;
    }
    let served = &playground.served()?[served_before..];
    let accounts = running.iter().map(|wrk| wrk.account(served)).collect::<Result<_>>()?;
    Ok((accounts, datagrams))
}

/// The address that a web client talks from: every third speaks IPv6.
fn source(client: &Client, index: usize) -> IpAddr {
    let (v4, v6) = client.addresses[0];
    if index % 3 == 2 { v6.into() } else { v4.into() }
}

/// A wrk without keep-alive: every request is a new connection.
struct Wrk<'playground> {
    namespace: &'playground Namespace,
    source: IpAddr,
    syns_before: u64,
    process: Background,
}

impl<'playground> Wrk<'playground> {
    fn start(client: &'playground Client, source: IpAddr, time: Duration) -> Result<Self> {
        let namespace = &client.namespace;
        let syns_before = syns_sent(namespace)?;
        let server: IpAddr = if source.is_ipv4() { SERVER.0.into() } else { SERVER.1.into() };
        let mut wrk = namespace.command("wrk");
        wrk.args(["--threads", "1", "--connections", &CONNECTIONS.to_string()]);
        wrk.args(["--duration", &format!("{}s", time.as_secs()), "--header", "Connection: close"]);
        wrk.arg(format!("http://{}/", SocketAddr::from((server, 80))));
        let process = Background(process::spawn(wrk.stdin(Stdio::null()).stdout(Stdio::null()))?);
        Ok(Self { namespace, source, syns_before, process })
    }

    fn wait(&mut self) -> Result<()> {
        let status = process::wait(&mut self.process.0)?;
        process::ensure_wanted()?;
        ensure!(status.success(), "wrk from {} failed: {status}", self.source);
        Ok(())
    }

    /// What it sent by its own kernel's count, and what nginx answered it.
    fn account(&self, served: &[Served]) -> Result<Account> {
        let mut times = served.iter().filter(|served| served.source == self.source).map(|served| served.at);
        let first = times.next().with_context(|| format!("nginx served {} nothing at all", self.source))?;
        let (last, others) = times.fold((first, 0), |(last, count), at| (at.max(last), count + 1));
        Ok(Account {
            source: self.source.to_string(),
            offered: syns_sent(self.namespace)? - self.syns_before,
            admitted: 1 + others,
            time: Duration::from_secs_f64(last - first),
        })
    }
}

/// The SYNs that a namespace has sent, repeated ones included.
fn syns_sent(namespace: &Namespace) -> Result<u64> {
    namespace.enter(|| {
        let read = |table: &str| fs::read_to_string(format!("/proc/thread-self/net/{table}"));
        Ok(counter(&read("snmp")?, "Tcp:", "ActiveOpens")? + counter(&read("netstat")?, "TcpExt:", "TCPSynRetrans")?)
    })
}

/// A value of the kernel's tables in which a line of names stands above a line of values.
fn counter(table: &str, row: &str, name: &str) -> Result<u64> {
    let mut lines = table.lines().filter_map(|line| line.strip_prefix(row)).map(str::split_whitespace);
    let (names, values) = (lines.next(), lines.next());
    let value = names.zip(values).and_then(|(names, values)| {
        names.zip(values).find_map(|(found, value)| (found == name).then(|| value.parse().ok())?)
    });
    value.with_context(|| format!("the kernel counts no {row} {name}"))
}

/// Sends at an even pace from the client while a socket of the server counts what arrives.
fn send_datagrams(server: &Namespace, client: &Client, time: Duration) -> Result<Account> {
    let (source, _) = client.addresses[0];
    let receiver = server.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, DATAGRAM_PORT))?;
        // Room for half a minute: what is lost is to be lost by the throttle alone.
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 64 << 20)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(socket)
    })?;
    let sender = client.namespace.enter(|| {
        let socket = UdpSocket::bind((source, 0))?;
        socket.connect((SERVER.0, DATAGRAM_PORT))?;
        Ok(socket)
    })?;
    let sent_all = AtomicBool::new(false);
    thread::scope(|scope| {
        let counting = scope.spawn(|| receive(&receiver, &sent_all));
        let offered = send(&sender, time);
        sent_all.store(true, Ordering::Release);
        let (admitted, time) = counting.join().expect("receiving does not panic")?;
        Ok(Account { source: source.to_string(), offered: offered?, admitted, time })
    })
}

fn send(socket: &UdpSocket, time: Duration) -> Result<u64> {
    let start = Instant::now();
    let mut sent: u32 = 0;
    while start.elapsed() < time {
        process::ensure_wanted()?;
        let due = start.elapsed().as_secs_f64() * f64::from(DATAGRAMS_PER_SECOND);
        while f64::from(sent) < due {
            socket.send(b"demo")?;
            sent += 1;
        }
        thread::sleep(Duration::from_micros(500));
    }
    Ok(sent.into())
}

/// Counts until nothing more comes after all is sent; returns the count and the time from first to last.
fn receive(socket: &UdpSocket, sent_all: &AtomicBool) -> Result<(u64, Duration)> {
    let mut count = 0;
    let mut span: Option<(Instant, Instant)> = None;
    loop {
        match socket.recv(&mut [0; 16]) {
            Ok(_) => {
                count += 1;
                let now = Instant::now();
                span = Some((span.map_or(now, |(first, _)| first), now));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if sent_all.load(Ordering::Acquire) {
                    return Ok((count, span.map_or(Duration::ZERO, |(first, last)| last - first)));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_row_and_name() {
        let table = "Ip: Forwarding TTL\nIp: 1 64\nTcp: MaxConn ActiveOpens PassiveOpens\nTcp: -1 42 7\n";
        assert_eq!(counter(table, "Tcp:", "ActiveOpens").unwrap(), 42);
        let error = counter(table, "Tcp:", "Nonsense").unwrap_err().to_string();
        assert!(error.contains("Tcp: Nonsense"), "{error}");
    }
}
