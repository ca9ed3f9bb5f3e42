//! What a packet costs that a limit on open connections looks at, beside the same packet without the limit.
//!
//! A real server has a real request of each of many sources, so the acknowledgement that completes its handshake is found
//! as it would be in traffic. `turn` gives each source's packet to the program once in a round: the SYN, then the
//! acknowledgement, which takes the source's only place, then the same again as a packet of the connection, then another
//! SYN, for which there is no place left.

use super::{
    median,
    report::{Effort, Section},
};
use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, MapData, ProgramArray},
    programs::{SchedClassifier, TcAttachType, TestRun as _, TestRunOptions, Xdp},
};
use std::{fmt::Write as _, fs, io, net::TcpListener, thread, time::Duration};
use throttle_common::packet::tcp;
use throttle_tests::{
    clients::send_raw,
    frames::Frame,
    generator,
    kernel::{self, Order},
    machine,
    netns::Namespace,
    program::{Program, action},
    wire::{FAR, FAR_V4, NEAR, NEAR_MAC, NEAR_V4, Wire},
};

const ROUNDS: usize = 9;
/// Sources, of those that `turn` has: 10.99.0.0 and up. So few that they have spoken before a place is given back whose
/// connection never opens, as none does here.
const SOURCES: u32 = 1 << 14;
const FIRST_SOURCE: u32 = 10 << 24 | 99 << 16;
const SOURCES_NET: &str = "10.99.0.0/16";
const SOURCE_PORT: u16 = 40_000;

/// The packets of a source in the order in which they come, of how many sources, and what becomes of them under the limit.
const PACKETS: [(&str, u8, u32, u32); 5] = [
    ("SYN, admitted", tcp::SYN, SOURCES, action::PASS),
    ("acknowledgement that completes the handshake", tcp::ACK, SOURCES, action::PASS),
    ("packet of an established connection", tcp::ACK, SOURCES, action::PASS),
    ("the same, one connection", tcp::ACK, 1, action::PASS),
    ("SYN, refused", tcp::SYN, SOURCES, action::DROP),
];

/// Measures, and gives the table.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    let mut server = Server::new()?;
    server.ask()?;
    let service =
        format!("mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [{}]\n", server.port);
    let limited = format!(
        "{service}[[limit]]\nname = \"open\"\nservice = \"web\"\nunit = \"connections\"\nconcurrent = 1\nsources = 786432\n"
    );
    let without = Program::live(&service)?;
    let mut with = Program::live(&limited)?;
    let mut cells = [const { [const { Vec::new() }; 2] }; PACKETS.len()];
    let rounds = effort.rounds(ROUNDS);
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for ((name, flags, sources, wanted), [plain, counted]) in PACKETS.into_iter().zip(&mut cells) {
            plain.push(server.measure(&without, flags, sources, action::PASS)?);
            counted.push(server.measure(&with, flags, sources, wanted).context(name)?);
        }
        let tally = with.limit("open")?;
        let each = tally.admitted.packets.min(tally.refused.packets);
        ensure!(
            each > u64::from(SOURCES) / 100 * 99,
            "of {SOURCES} sources not all were admitted, then refused: {tally:?}"
        );
        // The limit goes, and with it all places; then it is there again.
        with.apply(&service)?;
        server.wire.far.enter(|| with.datapath.reconcile_connections())??;
        with.apply(&limited)?;
    }
    let mut text = format!(
        "Nanoseconds a packet of a service with a limit on open connections, `BPF_PROG_TEST_RUN`, median of {rounds} \
         interleaved rounds of {SOURCES} packets, each of another source unless it says otherwise, with a request of each at a real server; a tail \
         call is in every row.\n\n| packet | without the limit | with it |\n|---|---:|---:|\n"
    );
    for ((name, ..), [plain, counted]) in PACKETS.iter().zip(cells) {
        writeln!(text, "| {name} | {} | {} |", median(plain), median(counted))?;
    }
    Ok(text.into())
}

/// A server that many sources have asked for a connection.
struct Server {
    wire: Wire,
    port: u16,
    /// `note` at the far end, and `turn`.
    object: Ebpf,
    _listener: TcpListener,
}

impl Server {
    fn new() -> Result<Self> {
        let wire = Wire::new()?;
        let mut object = kernel::load(64)?;
        kernel::xdp(&mut object, "turn")?;
        let note: &mut SchedClassifier = object.program_mut("note").context("no program note")?.try_into()?;
        note.load().context("load note")?;
        wire.far.enter(|| generator::attach(note, FAR, TcAttachType::Egress))?.context("attach note")?;
        // `note` keeps what the server sends from the wire: nobody there has these addresses.
        let mac = NEAR_MAC.map(|byte| format!("{byte:02x}")).join(":");
        wire.far.ip(&["neighbour", "replace", NEAR_V4, "lladdr", &mac, "dev", FAR, "nud", "permanent"])?;
        wire.far.ip(&["route", "add", SOURCES_NET, "via", NEAR_V4, "dev", FAR])?;
        let listener = wire.far.enter(|| listen(&wire.far))??;
        let port = listener.local_addr()?.port();
        Ok(Self { wire, port, object, _listener: listener })
    }

    fn frame(&self, source: u32, from: u16, flags: u8) -> Vec<u8> {
        Frame::v4(FIRST_SOURCE | source).to(FAR_V4).tcp(from, self.port, flags).bytes()
    }

    /// Sends the SYN of every source, and returns when every one was answered.
    fn ask(&self) -> Result<()> {
        const TRIES: usize = 20;
        for _ in 0..TRIES {
            let noted = Array::<_, u32>::try_from(self.object.map("ACKNOWLEDGEMENTS").context("no map")?)?;
            let answered = noted.iter().collect::<Result<Vec<_>, _>>()?;
            let unanswered = (0..SOURCES).zip(answered).filter(|(_, noted)| *noted == 0);
            let frames: Vec<_> = unanswered.map(|(source, _)| self.frame(source, SOURCE_PORT, tcp::SYN)).collect();
            if frames.is_empty() {
                return Ok(());
            }
            // On the first CPU, where the requests then have their timers too.
            self.wire.near.enter(|| {
                machine::pin_to(0)?;
                send_raw(NEAR, frames.iter().map(Vec::as_slice))
            })??;
            thread::sleep(Duration::from_millis(50));
        }
        anyhow::bail!("the server does not answer every SYN after {TRIES} tries")
    }

    /// Nanoseconds a packet, where the first so many sources take turns.
    fn measure(&mut self, program: &Program, flags: u8, sources: u32, wanted: u32) -> Result<u32> {
        // A SYN from the port of a request would be that request's, sent again.
        let from = if flags == tcp::SYN { SOURCE_PORT + 1 } else { SOURCE_PORT };
        let frame = self.frame(0, from, flags);
        let order = Order { flood: FIRST_SOURCE.into(), random: u64::from(sources - 1), ..Order::SILENT };
        self.array("SPREAD")?.set(0, order, 0)?;
        self.array("TURN")?.set(0, 0_u64, 0)?;
        let measured = self.object.map_mut("MEASURED").context("no map MEASURED")?;
        ProgramArray::try_from(measured)?.set(0, program.datapath.program_fd()?, 0)?;
        let turn: &Xdp = self.object.program("turn").context("no program turn")?.try_into()?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(&frame);
        options.repeat = SOURCES;
        // In the server's namespace, where the program looks for the requests.
        let run = self.wire.far.enter(|| super::seized_here(|| Ok(turn.test_run(options)?)))??;
        ensure!(run.return_value == wanted, "the program ended with {} instead of {wanted}", run.return_value);
        Ok(run.duration.as_nanos() as u32)
    }

    fn array<T: aya::Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, T>> {
        Ok(self.object.map_mut(name).with_context(|| format!("no map {name}"))?.try_into()?)
    }
}

/// Listens, with room for the requests of all sources for as long as the benchmark lasts: with the usual five retries the
/// kernel forgets a request after a minute.
fn listen(host: &Namespace) -> Result<TcpListener> {
    let settings = [
        ("net/core/somaxconn", "1048576"),
        ("net/ipv4/tcp_max_syn_backlog", "1048576"),
        ("net/ipv4/tcp_syncookies", "0"),
        ("net/ipv4/tcp_synack_retries", "15"),
    ];
    for (name, value) in settings {
        let path = format!("/proc/sys/{name}");
        fs::write(&path, value).with_context(|| format!("write {path} on {}", host.name()))?;
    }
    let listener = TcpListener::bind((FAR_V4, 0)).context("listen")?;
    rustix::net::listen(&listener, 1 << 20).map_err(io::Error::from)?;
    Ok(listener)
}
