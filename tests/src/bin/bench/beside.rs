//! A limit of 50 open connections of a source, as throttle, nftables and iptables have it, on the same veth: how long a
//! connection takes for which there is room, a packet of one that is open, and how many SYNs a second can be refused for which
//! there is none.
//!
//! Each of 64 sources holds 20 connections, and in turn they open and reset one more: connect, accept and close on one CPU,
//! both hosts' network stacks in it. (One source alone would not do: netfilter looks once in a tick which connections have
//! ended, and refuses meanwhile.) A SYN that is admitted and the acknowledgement that completes its handshake are parts of
//! that: neither can be said again without the other. Apart, with throttle alone, they are in `handshakes`. The generator
//! repeats the last acknowledgement of a client's as fast as it is taken; then that one holds 50, and it sends SYNs in its
//! name.
//! The far end is as the generator needs it, under a bare XDP_PASS where throttle is not; nobody at all is that, and a bare
//! XDP_DROP for the SYNs.

use super::{
    median,
    report::{Effort, Section},
    sockets::{add_sources, allow_files, connect, listen, numbers, reset, source},
};
use anyhow::{Context, Result};
use aya::{Ebpf, programs::XdpMode};
use std::{
    fmt::Write as _,
    io::Write as _,
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use throttle_agent::datapath::{Datapath, Mode, Options};
use throttle_agent::policy;
use throttle_common::packet::tcp;
use throttle_tests::{
    frames::Frame,
    generator::Sender,
    kernel::{self, Order},
    machine,
    netns::Namespace,
    pins::Pins,
    wire::{FAR, FAR_V4, Wire},
};

const ROUNDS: usize = 7;
/// What a source may hold, and what it holds.
const CONCURRENT: u32 = 50;
const HELD: u32 = 20;
const SOURCES: u32 = 64;
/// Connections of a round, after a tenth as many that warm it up.
const CONNECTIONS: u32 = 5_000;
/// How long the generator sends in a round, each time.
const FLOOD: Duration = Duration::from_millis(300);
/// Longer than a tick.
const SETTLED: Duration = Duration::from_millis(50);
const SOURCE_PORT: u16 = 1024;

/// Who limits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rival {
    Nobody,
    Throttle,
    Nftables,
    Iptables,
}

const RIVALS: [(Rival, &str); 4] = [
    (Rival::Nobody, "nobody: bare XDP_PASS, bare XDP_DROP"),
    (Rival::Throttle, "throttle, `concurrent = 50`"),
    (Rival::Nftables, "nftables, `ct count over 50` at input"),
    (Rival::Iptables, "iptables, `connlimit --connlimit-above 50` at INPUT"),
];

/// Measures, and gives the table.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    let mut hosts = RIVALS.map(|(rival, _)| Host::new(rival));
    let mut cells = [const { [const { Vec::new() }; 3] }; RIVALS.len()];
    let rounds = effort.rounds(ROUNDS);
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for (host, [connections, packets, syns]) in hosts.iter_mut().zip(&mut cells) {
            let Ok(host) = host else { continue };
            connections.push(host.connections()?);
            packets.push(host.packets()?);
            syns.push(host.syns()?);
        }
    }
    let mut text = format!(
        "A limit of {CONCURRENT} open connections of a source, on a veth, median of {rounds} interleaved rounds. A \
         connection: connect, accept and reset of one, where {SOURCES} sources hold {HELD} each, all of it on one CPU: the SYN that is \
         admitted and the acknowledgement that completes the handshake are in it (with throttle alone they are in \
         [handshakes](handshakes.md)). A \
         packet: of one of them, through the network stack to its server, and a SYN: refused to a source that holds \
         {CONCURRENT}, both with the generator that sends them on the same CPU.\n\n\
         | who limits | a connection, us | a packet of it, ns | SYNs a second | a SYN, ns |\n|---|---:|---:|---:|---:|\n"
    );
    for (((_, name), host), [connections, packets, syns]) in RIVALS.iter().zip(&hosts).zip(cells) {
        if let Err(error) = host {
            eprintln!("skipped {name}: {error:#}");
            writeln!(text, "| {name} | not on this machine | | | |")?;
            continue;
        }
        let [connection, packet, syn] = [connections, packets, syns].map(median);
        writeln!(text, "| {name} | {:.1} | {packet:.0} | {:.2} million | {syn:.0} |", connection / 1e3, 1e3 / syn)?;
    }
    Ok(text.into())
}

/// A host that one of them guards, with a server on it.
struct Host {
    rival: Rival,
    held: Vec<[TcpStream; 2]>,
    listener: TcpListener,
    /// What lets pass at the far end, where throttle does not judge.
    bare: Option<Ebpf>,
    _datapath: Option<Datapath>,
    sender: Sender,
    wire: Wire,
    _pins: Pins,
}

impl Host {
    fn new(rival: Rival) -> Result<Self> {
        let (wire, pins) = (Wire::new()?, Pins::new()?);
        let sender = Sender::on(&wire)?;
        let listener = listen(&wire.far)?;
        let port = listener.local_addr()?.port();
        let datapath = if rival == Rival::Throttle { Some(throttle(&wire.far, &pins, port)?) } else { None };
        let bare = if datapath.is_none() { Some(bare(&wire.far, "pass")?) } else { None };
        match rival {
            Rival::Nobody | Rival::Throttle => {}
            Rival::Nftables => nftables(&wire.far, port)?,
            Rival::Iptables => iptables(&wire.far, port)?,
        }
        add_sources(&wire, SOURCES)?;
        allow_files(u64::from(SOURCES * HELD * 2 * RIVALS.len() as u32 + 1024))?;
        let open =
            || (0..SOURCES * HELD).map(|number| connect(source(number % SOURCES), &listener)).collect::<Result<_>>();
        let held = wire.near.enter(open)?.context("hold connections")?;
        Ok(Self { rival, held, listener, bare, _datapath: datapath, sender, wire, _pins: pins })
    }

    /// Nanoseconds of a connection, from its SYN until nothing is left of it.
    fn connections(&mut self) -> Result<f64> {
        self.wire.near.enter(|| {
            super::seized_here(|| {
                let mut nanos = 0.0;
                for count in [CONNECTIONS / 10, CONNECTIONS] {
                    let start = Instant::now();
                    for number in 0..count {
                        reset(connect(source(number % SOURCES), &self.listener)?)?;
                    }
                    nanos = start.elapsed().as_nanos() as f64 / f64::from(count);
                }
                Ok(nanos)
            })
        })?
    }

    /// Nanoseconds of a packet of a connection that is open.
    fn packets(&mut self) -> Result<f64> {
        let [client, server] = &self.held[0];
        let [said, heard] = numbers(client)?;
        let (from, to) = (client.local_addr()?.port(), server.local_addr()?.port());
        let frame = Frame::v4(source(0)).to(FAR_V4).tcp(from, to, tcp::ACK).sequence(said).acknowledging(heard);
        self.each_of(&frame.bytes())
    }

    /// Nanoseconds of a SYN that is refused.
    fn syns(&mut self) -> Result<f64> {
        // Netfilter's next look finds what has ended.
        thread::sleep(SETTLED);
        let open = || (HELD..CONCURRENT).map(|_| connect(source(0), &self.listener)).collect::<Result<Vec<_>>>();
        let rest = self.wire.near.enter(open)??;
        if self.rival == Rival::Nobody {
            self.replace_bare("drop")?;
        }
        let port = self.listener.local_addr()?.port();
        let frame = Frame::v4(source(0)).to(FAR_V4).tcp(SOURCE_PORT, port, tcp::SYN).bytes();
        let nanos = self.each_of(&frame)?;
        if self.rival == Rival::Nobody {
            self.replace_bare("pass")?;
        }
        rest.into_iter().try_for_each(reset)?;
        Ok(nanos)
    }

    /// Nanoseconds of each packet that the generator sends in the name of the first source.
    fn each_of(&self, frame: &[u8]) -> Result<f64> {
        let order = Order { flood: source(0).to_bits().into(), flood_interval: 0, clock_every: 64, ..Order::SILENT };
        let lost = self.wire.lost()?;
        let flood = self.sender.start_steady(&self.wire.near, machine::cpus() - 1, frame, order)?;
        thread::sleep(FLOOD);
        let sent = flood.stop()?;
        let lost = self.wire.lost()? - lost;
        Ok((sent.last - sent.first) as f64 / (sent.flood - lost) as f64)
    }

    /// Another program of one line at the far end: one goes before the other comes, for an interface has room for one.
    fn replace_bare(&mut self, program: &str) -> Result<()> {
        self.bare = None;
        self.bare = Some(bare(&self.wire.far, program)?);
        Ok(())
    }
}

/// Puts a program of one line on the far end.
pub(super) fn bare(far: &Namespace, program: &str) -> Result<Ebpf> {
    let mut object = kernel::load(64)?;
    let loaded = kernel::xdp(&mut object, program)?;
    far.enter(|| loaded.attach(FAR, XdpMode::Driver))?.with_context(|| format!("attach {program}"))?;
    Ok(object)
}

fn throttle(far: &Namespace, pins: &Pins, port: u16) -> Result<Datapath> {
    let text = format!(
        "mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [{port}]\n\
         [[limit]]\nname = \"open\"\nservice = \"web\"\nunit = \"connections\"\nconcurrent = {CONCURRENT}\n"
    );
    far.enter(|| {
        let options =
            Options { pin_dir: pins.pin_dir(), table_sets: 1 << 18, debug: false, test_clock: false, adopt: false };
        let mut datapath = Datapath::open(&options)?;
        let document = policy::parse(&text).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
        let compiled = policy::compile(&document, 1, &datapath.layout()).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
        datapath.apply(&compiled)?;
        datapath.watch_sockets()?;
        datapath.attach(FAR, Mode::Native).context("attach throttle")?;
        Ok(datapath)
    })?
}

fn nftables(far: &Namespace, port: u16) -> Result<()> {
    let rules = format!(
        "table ip rival {{
            set open {{ type ipv4_addr; size 65536; flags dynamic; }}
            chain input {{
                type filter hook input priority filter; policy accept;
                tcp dport {port} ct state new add @open {{ ip saddr ct count over {CONCURRENT} }} drop
            }}
        }}"
    );
    nft(far, &rules)
}

/// Has nftables take rules.
pub(super) fn nft(far: &Namespace, rules: &str) -> Result<()> {
    let mut nft = far.command("nft");
    let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("run nft; is nftables installed?")?;
    nft.stdin.take().context("nft has an input")?.write_all(rules.as_bytes())?;
    let status = nft.wait()?;
    anyhow::ensure!(status.success(), "nft ended with {status}: does this kernel have what the rules need?");
    Ok(())
}

fn iptables(far: &Namespace, port: u16) -> Result<()> {
    let mut command: Command = far.command("iptables");
    command.args(["-A", "INPUT", "-p", "tcp", "--syn", "--dport", &port.to_string()]);
    command.args(["-m", "connlimit", "--connlimit-above", &CONCURRENT.to_string(), "-j", "DROP"]);
    machine::run(&mut command).context("is iptables installed, and does this kernel have xt_connlimit?").map(drop)
}
