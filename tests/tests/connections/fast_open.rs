//! TCP fast open: what a SYN opens takes its place with the SYN, and only where that brings a cookie back.

use super::{
    address, eventually,
    fast_sockets::{call_fast, fast_opens, listen_fast},
    host::{Host, sockets},
};
use anyhow::{Context as _, Result, ensure};
use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    os::fd::AsRawFd,
    process::Command,
    thread,
    time::Duration,
};
use throttle_agent::datapath::{Drift, Mode};
use throttle_common::{
    entrances::ENTERS_WITHIN,
    fast_open::cookie,
    packet::{Family, tcp},
    records::{Address, Connection, Ends},
};
use throttle_tests::{
    machine, needs_root,
    netns::Namespace,
    stranger::{FIRST, Stranger},
    wire::{FAR, FAR_V4, FAR_V6},
};

const SOURCES: [&str; 2] = ["10.98.77.1", "fd98::77:1"];
const PORTS: Range<u16> = 1024..1064;
/// How many a source may have.
const ALLOWED: u64 = 4;
/// The host's key, and as the kernel is told.
const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0x0f1e_2d3c_4b5a_6978];
/// A second cable between the hosts, and the addresses of its far and near end.
const SIDE: &str = "side";
const SIDES: [&str; 2] = ["10.97.0.1", "10.97.0.2"];
/// What the SYN brings besides.
const DATA: usize = 5;

/// How a SYN brings a cookie back.
#[derive(Clone, Copy, Debug)]
enum Claim {
    /// By the option (RFC 7413).
    Option,
    /// By that of experiments (RFC 6994), behind others.
    Experiment,
    /// Behind a wrong one: the last counts.
    BehindWrong,
    /// Before a wrong one.
    BeforeWrong,
    /// Of another source.
    Stolen,
    /// None, but data.
    None,
}

impl Claim {
    fn options(self, own: [u8; 8], others: [u8; 8]) -> Vec<u8> {
        let option = |cookie: [u8; 8]| [&[34, 10][..], &cookie].concat();
        let mut wrong = own;
        wrong[3] ^= 1;
        match self {
            Self::Option => option(own),
            Self::Experiment => [&[2, 4, 5, 180, 1, 1, 254, 12, 0xf9, 0x89][..], &own].concat(),
            Self::BehindWrong => [option(wrong), vec![1], option(own)].concat(),
            Self::BeforeWrong => [option(own), option(wrong)].concat(),
            Self::Stolen => option(others),
            Self::None => Vec::new(),
        }
    }
}

/// A throttled host with a listener that takes fast opens, and a stranger with or without a cookie.
struct Fast {
    host: Host,
    listener: TcpListener,
    stranger: Stranger,
    source: IpAddr,
}

impl Fast {
    fn new(source: &str, ways: &str, queue: libc::c_int, allowed: u64) -> Result<Self> {
        let mut host = Host::new()?;
        let source = address(source);
        let to = address(if source.is_ipv4() { FAR_V4 } else { FAR_V6 });
        let listener = host.wire.far.enter(|| -> Result<_> {
            let words = KEY.map(|half| format!("{:08x}-{:08x}", half as u32, half >> 32));
            std::fs::write("/proc/sys/net/ipv4/tcp_fastopen_key", words.join("-")).context("set the key")?;
            std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", ways)?;
            listen_fast(SocketAddr::new(to, 0), queue)
        })??;
        listener.set_nonblocking(true)?;
        let at = listener.local_addr()?;
        host.limit(at.port(), &[&format!("concurrent = {allowed}\nsources = 300")])?;
        let stranger = Stranger::new(&host.wire, &source.to_string(), at)?;
        Ok(Self { host, listener, stranger, source })
    }

    /// The cookie of a source.
    fn cookie(&self, source: IpAddr) -> Result<[u8; 8]> {
        let number = |address: IpAddr| match address {
            IpAddr::V4(address) => Address::v4(address.to_bits()),
            IpAddr::V6(address) => Address::v6(address.to_bits()),
        };
        let family = if source.is_ipv4() { Family::V4 } else { Family::V6 } as u8;
        let destination = number(self.listener.local_addr()?.ip());
        Ok(cookie(&Ends { source: number(source), destination, family, ..Ends::default() }, KEY).to_le_bytes())
    }

    /// Sends SYNs with data, each twice.
    fn ask(&self, ports: &Range<u16>, claim: Claim, flags: u8) -> Result<()> {
        let other = address(if self.source.is_ipv4() { "10.98.77.2" } else { "fd98::77:2" });
        let options = claim.options(self.cookie(self.source)?, self.cookie(other)?);
        for port in ports.clone().chain(ports.clone()) {
            let syn = self.stranger.frame(port, [FIRST, 0], tcp::SYN | flags).tcp_options(&options);
            self.stranger.send(&syn.payload(DATA).bytes())?;
        }
        Ok(())
    }

    /// Takes in who has been let in, with what each has said.
    fn served(&self) -> Result<Vec<TcpStream>> {
        let mut served = Vec::new();
        loop {
            match self.listener.accept() {
                Ok((mut client, _)) => {
                    let mut said = [0; DATA];
                    client.read_exact(&mut said).context("what came with the SYN")?;
                    served.push(client);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(served),
                Err(error) => return Err(error).context("accept"),
            }
        }
    }

    /// Resets what was opened, as the stranger.
    fn reset(&self, ports: Range<u16>) -> Result<()> {
        for port in ports {
            self.stranger.says(port, [FIRST + 1 + DATA as u32, 0], tcp::RST, 0)?;
        }
        Ok(())
    }
}

#[test]
fn no_more_are_served_by_their_syns_than_a_limit_allows() -> Result<()> {
    needs_root!();
    for (source, claim) in SOURCES
        .into_iter()
        .flat_map(|source| [Claim::Option, Claim::Experiment, Claim::BehindWrong].map(|claim| (source, claim)))
    {
        let fast = Fast::new(source, "3", 1000, ALLOWED)?;
        fast.ask(&PORTS, claim, 0)?;
        eventually(&true, || Ok(fast.host.tally(0)?.refused.packets >= PORTS.len() as u64 - ALLOWED))?;
        let served = fast.served()?;
        let found = (served.len() as u64, fast.host.open(0), fast.host.wire.far.enter(fast_opens)??);
        ensure!(found == (ALLOWED, ALLOWED, ALLOWED), "{source}, {claim:?}: {found:?} served, counted, opened");
        // Nobody completes a handshake. The next who comes finds that they are there all the same, and so does the agent.
        std::thread::sleep(std::time::Duration::from_millis(300));
        fast.ask(&PORTS, claim, 0)?;
        ensure!(fast.host.states()? == vec![Connection::FAST; ALLOWED as usize], "{:?}", fast.host.states()?);
        ensure!(fast.host.reconcile()? == Drift::default() && fast.host.open(0) == ALLOWED);
        fast.reset(PORTS.start..PORTS.start + 1)?;
        eventually(&(ALLOWED - 1), || Ok(fast.host.open(0)))?;
        // The server has said all, and still waits for who never answered.
        for mut client in served {
            _ = client.write_all(b"!");
        }
        let ended = || sockets(&fast.host.wire.far, fast.listener.local_addr()?.port(), None);
        eventually(&(ALLOWED - 1), ended)?;
        ensure!(fast.host.open(0) == ALLOWED - 1 && fast.host.reconcile()? == Drift::default());
        fast.reset(PORTS)?;
        eventually(&(0, 0), || Ok((ended()?, fast.host.open(0))))?;
        ensure!(fast.host.connections()? == 0 && fast.host.reconcile()? == Drift::default());
    }
    Ok(())
}

#[test]
fn those_whose_handshake_is_not_complete_are_counted_by_the_policy_that_comes_next() -> Result<()> {
    needs_root!();
    let mut fast = Fast::new(SOURCES[0], "3", 1000, ALLOWED)?;
    fast.ask(&PORTS, Claim::Option, 0)?;
    eventually(&ALLOWED, || fast.host.wire.far.enter(fast_opens)?)?;
    let served = fast.served()?;
    fast.host.limit(fast.listener.local_addr()?.port(), &["concurrent = 100\nper = \"service\""])?;
    ensure!(fast.host.states()? == vec![Connection::FAST; ALLOWED as usize], "{:?}", fast.host.states()?);
    ensure!(fast.host.open(0) == ALLOWED, "{} are counted", fast.host.open(0));
    drop(served);
    fast.reset(PORTS)?;
    eventually(&0, || Ok(fast.host.open(0)))
}

#[test]
fn a_syn_without_the_sources_own_cookie_takes_no_place() -> Result<()> {
    needs_root!();
    for (source, claim) in SOURCES
        .into_iter()
        .flat_map(|source| [Claim::BeforeWrong, Claim::Stolen, Claim::None].map(|claim| (source, claim)))
    {
        let fast = Fast::new(source, "3", 1000, 1000)?;
        // One that ends too no listener takes.
        fast.ask(&(PORTS.end..PORTS.end + 5), Claim::Option, tcp::FIN)?;
        fast.ask(&PORTS, claim, 0)?;
        let requests = || half_open(&fast.host.wire.far, fast.listener.local_addr()?.port());
        eventually(&PORTS.len(), requests)?;
        let found = (fast.served()?.len(), fast.host.open(0));
        ensure!(found == (0, 0), "{source}, {claim:?}: {found:?} served, counted");
    }
    Ok(())
}

#[test]
fn a_syn_in_fragments_has_its_options_in_the_first_or_opens_nothing() -> Result<()> {
    needs_root!();
    for source in SOURCES {
        let fast = Fast::new(source, "3", 1000, ALLOWED)?;
        let options = Claim::Option.options(fast.cookie(fast.source)?, [0; 8]);
        let ask = |ports: Range<u16>, first: u16| -> Result<()> {
            for port in ports {
                let syn = fast.stranger.frame(port, [FIRST, 0], tcp::SYN).tcp_options(&options).payload(DATA);
                syn.in_two(first).iter().try_for_each(|fragment| fast.stranger.send(fragment))?;
            }
            Ok(())
        };
        // The cookie begins behind 22 bytes and ends with the 30th.
        ask(PORTS, 24)?;
        ask(PORTS.end..PORTS.end + PORTS.len() as u16, 32)?;
        eventually(&true, || Ok(fast.host.tally(0)?.refused.packets >= PORTS.len() as u64 - ALLOWED))?;
        eventually(&ALLOWED, || fast.host.wire.far.enter(fast_opens)?)?;
        let served = fast.served()?;
        let requests = half_open(&fast.host.wire.far, fast.listener.local_addr()?.port())?;
        let found = (served.len() as u64, fast.host.open(0), requests as u64);
        ensure!(found == (ALLOWED, ALLOWED, ALLOWED), "{source}: {found:?} served, counted, half open");
    }
    Ok(())
}

#[test]
fn what_the_listener_has_no_room_for_gives_its_places_back() -> Result<()> {
    needs_root!();
    let fast = Fast::new(SOURCES[0], "3", 2, 1000)?;
    fast.ask(&PORTS, Claim::Option, 0)?;
    eventually(&PORTS.len(), || half_open(&fast.host.wire.far, fast.listener.local_addr()?.port()))?;
    let to = fast.listener.local_addr()?;
    let mut clients = Vec::new();
    // Those who come next are counted too, until the first two that they find overdue are all but given back.
    eventually(&2, || {
        clients.push(fast.host.connect(None, to)??);
        Ok(fast.host.open(0) - clients.len() as u64)
    })?;
    ensure!(fast.host.reconcile()? == Drift::default());
    Ok(())
}

#[test]
fn what_is_served_at_one_interface_keeps_its_place_whoever_comes_by_another() -> Result<()> {
    needs_root!();
    let mut fast = Fast::new(SOURCES[0], "3", 1000, 1000)?;
    bind_to(&fast.listener, FAR)?;
    let (near, far) = (&fast.host.wire.near, &fast.host.wire.far);
    machine::run(Command::new("ip").args(["link", "add", SIDE, "netns", far.name(), "type", "veth"]).args([
        "peer",
        "name",
        SIDE,
        "netns",
        near.name(),
    ]))?;
    for (end, at) in [far, near].into_iter().zip(SIDES) {
        end.ip(&["address", "add", &format!("{at}/16"), "dev", SIDE])?;
        end.ip(&["link", "set", SIDE, "up"])?;
    }
    fast.host.act(|datapath| datapath.attach(SIDE, Mode::Generic))?;
    let to = SocketAddr::new(address(SIDES[0]), fast.listener.local_addr()?.port());
    let _beside = fast.host.wire.far.enter(|| listen_fast(to, 16))??;
    fast.ask(&PORTS, Claim::Option, 0)?;
    let served = fast.served()?;
    let states = fast.host.states()?;
    ensure!(
        served.len() == PORTS.len() && states == vec![Connection::FAST; served.len()],
        "{} are served: {states:?}",
        served.len()
    );
    // Until they are overdue; then more come than it takes to look after each of them.
    thread::sleep(Duration::from_nanos(2 * ENTERS_WITHIN));
    let clients = PORTS.map(|_| fast.host.connect(None, to)?.context("by the side")).collect::<Result<Vec<_>>>()?;
    let all = (served.len() + clients.len()) as u64;
    eventually(&all, || Ok(fast.host.open(0)))?;
    ensure!(fast.host.reconcile()? == Drift::default() && fast.host.open(0) == all);
    fast.reset(PORTS)?;
    eventually(&(clients.len() as u64), || Ok(fast.host.open(0)))
}

/// Binds a socket to an interface.
fn bind_to(socket: &impl AsRawFd, interface: &str) -> Result<()> {
    // SAFETY: the name lives through the call, whose length is its own.
    let set = unsafe {
        let (value, length) = (interface.as_ptr().cast(), interface.len() as u32);
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, value, length)
    };
    ensure!(set == 0, "SO_BINDTODEVICE: {}", io::Error::last_os_error());
    Ok(())
}

#[test]
fn who_may_open_without_a_cookie_takes_a_place_by_a_syn_too() -> Result<()> {
    needs_root!();
    let fast = Fast::new(SOURCES[0], "515", 1000, ALLOWED)?;
    fast.ask(&PORTS, Claim::None, 0)?;
    eventually(&true, || Ok(fast.host.tally(0)?.refused.packets >= PORTS.len() as u64 - ALLOWED))?;
    let found = (fast.served()?.len() as u64, fast.host.open(0));
    ensure!(found == (ALLOWED, ALLOWED), "{found:?} served, counted");
    Ok(())
}

#[test]
fn a_port_that_waits_for_what_is_late_opens_by_a_syn_as_any_other_does() -> Result<()> {
    needs_root!();
    for source in SOURCES {
        let fast = Fast::new(source, "3", 1000, ALLOWED)?;
        // Each has connected before, and the server has closed first.
        for port in PORTS {
            let answer = fast.stranger.asks(&(port..port + 1))?[&port];
            fast.stranger.completes(port, answer)?;
            eventually(&1, || Ok(fast.listener.accept().iter().count()))?;
            eventually(&1, || in_state(&fast.host.wire.far, port, "fin-wait-1"))?;
            fast.stranger.says(port, [FIRST + 1, answer.wrapping_add(2)], tcp::FIN | tcp::ACK, 0)?;
            eventually(&1, || in_state(&fast.host.wire.far, port, "time-wait"))?;
        }
        eventually(&0, || Ok(fast.host.open(0)))?;
        let options = Claim::Option.options(fast.cookie(fast.source)?, [0; 8]);
        for port in PORTS {
            let syn = fast.stranger.frame(port, [FIRST + 100_000, 0], tcp::SYN).tcp_options(&options);
            fast.stranger.send(&syn.payload(DATA).bytes())?;
        }
        eventually(&true, || Ok(fast.host.tally(0)?.refused.packets >= PORTS.len() as u64 - ALLOWED))?;
        let found = (fast.served()?.len() as u64, fast.host.open(0));
        ensure!(found == (ALLOWED, ALLOWED), "{source}: {found:?} served, counted");
    }
    Ok(())
}

/// How many connections from a port are in a state.
fn in_state(host: &Namespace, port: u16, state: &str) -> Result<usize> {
    let mut list = host.command("ss");
    list.args(["-H", "-t", "-n", "state", state, &format!("( dport = :{port} )")]);
    Ok(machine::run(&mut list)?.lines().count())
}

/// How many handshakes with a port are not complete, and have a socket or none.
fn half_open(host: &Namespace, port: u16) -> Result<usize> {
    let mut list = host.command("ss");
    list.args(["-H", "-t", "-n", "state", "syn-recv", &format!("( sport = :{port} )")]);
    Ok(machine::run(&mut list)?.lines().count())
}

#[test]
fn connections_by_fast_open_and_to_listeners_that_share_a_port_are_counted_alike() -> Result<()> {
    needs_root!();
    let mut host = Host::new()?;
    for end in [&host.wire.near, &host.wire.far] {
        end.enter(|| std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3"))??;
    }
    let listeners = host.wire.far.enter(|| -> Result<Vec<TcpListener>> {
        let first = listen_fast(SocketAddr::new(address(FAR_V4), 0), 16)?;
        let second = listen_fast(first.local_addr()?, 16)?;
        Ok(vec![first, second])
    })??;
    let port = listeners[0].local_addr()?.port();
    host.limit(port, &["concurrent = 4\naction = \"reject\"\nsources = 300"])?;
    let to = SocketAddr::new(address(FAR_V4), port);
    let call = || host.wire.near.enter(|| call_fast(to))?;
    // The first brings a cookie home, the others send their data with the SYN.
    let mut open = Vec::new();
    for calls in 1..=4 {
        open.push(call().with_context(|| format!("call {calls}"))?);
        eventually(&calls, || Ok(host.open(0)))?;
    }
    let fast = host.wire.far.enter(fast_opens)??;
    ensure!(fast >= 3, "{fast} connections were opened by their SYN");
    let refused = call().err().and_then(|error| error.downcast::<io::Error>().ok()).map(|error| error.kind());
    ensure!(refused == Some(ErrorKind::ConnectionRefused), "the fifth met {refused:?}");
    drop(open);
    drop(listeners);
    eventually(&0, || Ok(host.open(0)))
}
