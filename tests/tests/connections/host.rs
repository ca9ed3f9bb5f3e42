//! A throttled host with a server, and clients on the other end of the wire.

use super::{PATIENCE, policy};
use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, MapData};
use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
};
use throttle_agent::{
    datapath::{
        Datapath, Drift, Egress, Mode, Options,
        explain::{Explained, packet},
    },
    policy::{self as policies, HeldLimit, sources},
};
use throttle_common::{
    awaited,
    packet::protocol,
    records::{Connection, Ends, LimitTally, maps, name_str},
};
use throttle_tests::{
    clients::connect_from,
    denied::{Denied, denied},
    generator::{Flood, Sender},
    kernel::Order,
    machine,
    netns::Namespace,
    pins::Pins,
    wire::{FAR, Wire},
};

/// The far host of a wire under a policy.
pub(crate) struct Host {
    datapath: Datapath,
    /// By what it sees what leaves.
    egress: Egress,
    /// Where it judges packets.
    mode: Mode,
    // In the order in which they must go.
    near: Option<Sender>,
    pub(crate) wire: Wire,
    pins: Pins,
}

impl Host {
    /// Throttles the far end, with the near end as a veth needs it for answers.
    pub(crate) fn new() -> Result<Self> {
        Self::with(Mode::Native, Egress::Tcx, false, |_| Ok(()))
    }

    /// The same in the network stack, on an interface that was made ready.
    pub(crate) fn generic(ready: impl FnOnce(&Wire) -> Result<()>) -> Result<Self> {
        Self::with(Mode::Generic, Egress::Tcx, false, ready)
    }

    /// The same by a link on what leaves, or by a filter, which every kernel has.
    pub(crate) fn seeing_by(egress: Egress) -> Result<Self> {
        Self::with(Mode::Native, egress, false, |_| Ok(()))
    }

    /// The same with a clock that the test sets.
    pub(crate) fn timed(egress: Egress) -> Result<Self> {
        Self::with(Mode::Native, egress, true, |_| Ok(()))
    }

    /// The same by a filter, on an interface that was made ready.
    pub(crate) fn on(ready: impl FnOnce(&Wire) -> Result<()>) -> Result<Self> {
        Self::with(Mode::Native, Egress::Clsact, false, ready)
    }

    fn with(mode: Mode, egress: Egress, test_clock: bool, ready: impl FnOnce(&Wire) -> Result<()>) -> Result<Self> {
        let (wire, pins) = (Wire::new()?, Pins::new()?);
        ready(&wire)?;
        let near = (mode == Mode::Native).then(|| Sender::on(&wire)).transpose()?;
        let datapath = seeing_by(egress, || open(&wire.far, &pins, mode, test_clock))??;
        Ok(Self { datapath, egress, mode, near, wire, pins })
    }

    /// Has the datapath act on its host.
    pub(crate) fn act<T: Send>(&mut self, act: impl FnOnce(&mut Datapath) -> Result<T> + Send) -> Result<T> {
        let Self { datapath, egress, wire, .. } = self;
        seeing_by(*egress, || wire.far.enter(|| act(datapath)))??
    }

    /// A file of the test's.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.pins.directory().join(name)
    }

    /// Where it pins.
    pub(crate) fn pin_dir(&self) -> PathBuf {
        self.pins.pin_dir()
    }

    /// Interfaces by which packets leave unseen, with the reason.
    pub(crate) fn unseen(&self) -> Vec<(&str, &str)> {
        self.datapath.unseen().collect()
    }

    /// Sets the clock.
    pub(crate) fn set_clock(&mut self, nanos: u64) -> Result<()> {
        self.datapath.set_clock(nanos)
    }

    /// Takes everything off, as `throttle detach` does.
    pub(crate) fn detach(&self) -> Result<()> {
        self.wire.far.enter(|| throttle_agent::datapath::detach_all(&self.pins.pin_dir()))?.map(drop)
    }

    /// Puts limits on the open connections to a port in force.
    pub(crate) fn limit(&mut self, port: u16, limits: &[&str]) -> Result<()> {
        self.put(&policy(port, limits))
    }

    /// Puts a policy in force, and has what is open counted by it.
    pub(crate) fn put(&mut self, policy: &str) -> Result<()> {
        self.switch(policy)?;
        self.reconcile().map(drop)
    }

    /// Puts a policy in force.
    pub(crate) fn switch(&mut self, policy: &str) -> Result<()> {
        let document = policies::parse(policy).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
        let revision = self.datapath.policy().revision + 1;
        let compiled = policies::compile(&document, revision, &self.datapath.layout())
            .map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
        let entries = sources::resolve(sources::stated(&document, &compiled.tenants));
        self.wire.far.enter(|| self.datapath.switch(&compiled, &entries))?
    }

    /// Mends the count by the sockets that there are.
    pub(crate) fn reconcile(&self) -> Result<Drift> {
        self.wire.far.enter(|| self.datapath.reconcile_connections())?
    }

    /// Has every answer that waits to be acknowledged be overwritten, as by a flood of others.
    pub(crate) fn overwrite_answers(&self) -> Result<()> {
        let pinned = MapData::from_pin(self.pins.pin_dir().join("maps").join(maps::SYN_ACKS))?;
        let mut answers = Array::<_, u64>::try_from(aya::maps::Map::Array(pinned))?;
        (0..awaited::CELLS).try_for_each(|cell| Ok(answers.set(cell, 0, 0)?))
    }

    /// The states of those that are written down.
    pub(crate) fn states(&self) -> Result<Vec<u32>> {
        Ok(self.datapath.connections()?.iter().map(|(_, connection)| connection.state).collect())
    }

    /// What is written down of connections.
    pub(crate) fn written(&self) -> Result<Vec<(Ends, Connection)>> {
        self.datapath.connections()
    }

    /// Gives the places of one back that has ended, as it was written down.
    pub(crate) fn close(&self, (ends, connection): &(Ends, Connection)) -> Result<bool> {
        self.datapath.close(ends, connection)
    }

    /// Has every connection be written down otherwise.
    pub(crate) fn rewrite(&self, change: impl Fn(&mut Connection)) -> Result<()> {
        self.written()?.iter_mut().try_for_each(|written| {
            change(&mut written.1);
            self.write(written)
        })
    }

    /// Writes one down.
    pub(crate) fn write(&self, (ends, connection): &(Ends, Connection)) -> Result<()> {
        let pinned = MapData::from_pin(self.pins.pin_dir().join("maps").join(maps::CONNECTIONS))?;
        let mut written = HashMap::<MapData, Ends, Connection>::try_from(aya::maps::Map::HashMap(pinned))?;
        Ok(written.insert(ends, connection, 0)?)
    }

    /// How many places are taken under a limit.
    pub(crate) fn open(&self, limit: usize) -> u64 {
        self.held(limit).map_or(0, |held| self.datapath.open_connections(&held.record))
    }

    /// The same of one by its name in the kernel; 0 where there is none.
    pub(crate) fn open_under(&self, name: &str) -> u64 {
        self.named(name).map_or(0, |held| self.datapath.open_connections(&held.record))
    }

    /// What a limit did.
    pub(crate) fn tally(&self, limit: usize) -> Result<LimitTally> {
        self.datapath.limit_tally(self.held(limit).context("no such limit")?.number)
    }

    fn held(&self, limit: usize) -> Option<HeldLimit> {
        self.named(&format!("open-{limit}"))
    }

    fn named(&self, name: &str) -> Option<HeldLimit> {
        self.datapath.limits().into_iter().find(|held| name_str(&held.record.name) == name)
    }

    /// How many connections hold places.
    pub(crate) fn connections(&self) -> Result<usize> {
        Ok(self.datapath.connections()?.len())
    }

    /// What would become of a source's next connection to a port.
    pub(crate) fn explain(&self, source: IpAddr, port: u16) -> Result<Explained> {
        self.datapath.explain(&packet(source, None, protocol::TCP, port, true), 74, self.datapath.now())
    }

    /// Ends the agent and starts another one.
    pub(crate) fn restart(self, meanwhile: impl FnOnce(&Wire) -> Result<()>) -> Result<Self> {
        let Self { datapath, egress, mode, near, wire, pins } = self;
        drop(datapath);
        meanwhile(&wire)?;
        let datapath = seeing_by(egress, || open(&wire.far, &pins, mode, false))??;
        Ok(Self { datapath, egress, mode, near, wire, pins })
    }

    /// A server on the far host.
    pub(crate) fn listen(&self, at: &str) -> Result<TcpListener> {
        self.wire.far.enter(|| super::listen(at))?
    }

    /// The same, with room for a thousand that nobody has accepted.
    pub(crate) fn listen_deep(&self, at: &str) -> Result<TcpListener> {
        self.listen_with(at, 1000)
    }

    /// The same, with room for so many.
    pub(crate) fn listen_with(&self, at: &str, backlog: i32) -> Result<TcpListener> {
        let listener = self.listen(at)?;
        // Another call sets the length of the queue anew.
        rustix::net::listen(&listener, backlog)?;
        Ok(listener)
    }

    /// Frames from the near host, as fast as one CPU sends them.
    pub(crate) fn flood(&self, frame: &[u8], order: Order) -> Result<Flood> {
        let near = self.near.as_ref().context("the near end sends nothing by itself")?;
        near.start(&self.wire.near, machine::cpus() - 1, frame, order)
    }

    /// A client on the near host.
    pub(crate) fn connect(&self, from: Option<&str>, to: SocketAddr) -> Result<io::Result<TcpStream>> {
        self.wire.near.enter(|| match from {
            Some(source) => connect_from(super::address(source), to),
            None => TcpStream::connect_timeout(&to, PATIENCE),
        })
    }
}

/// Acts on a kernel that has what is asked for, or as if it had no links on what leaves.
fn seeing_by<T: Send>(egress: Egress, act: impl FnOnce() -> T + Send) -> Result<T> {
    match egress {
        Egress::Tcx => Ok(act()),
        Egress::Clsact => denied(Denied::Query, act),
    }
}

fn open(far: &Namespace, pins: &Pins, mode: Mode, test_clock: bool) -> Result<Datapath> {
    far.enter(|| {
        let options = Options { pin_dir: pins.pin_dir(), table_sets: 1 << 14, debug: false, test_clock, adopt: true };
        let mut datapath = Datapath::open(&options)?;
        datapath.watch_sockets()?;
        datapath.attach(FAR, mode).context("attach")?;
        Ok(datapath)
    })?
}

/// Whatever is a socket: what is left of one in TIME-WAIT is none, and a request is none yet.
const OPEN: [&str; 6] = ["established", "fin-wait-1", "fin-wait-2", "close-wait", "last-ack", "closing"];

/// How many connections to a port the kernel says are open on a host; of one source, or of all.
pub(crate) fn sockets(host: &Namespace, port: u16, source: Option<&str>) -> Result<u64> {
    let source = source.map(|source| format!("and dst {source}")).unwrap_or_default();
    list(host, &format!("( sport = :{port} {source} )"), &OPEN)
}

/// How many to a port are in one of these states.
pub(crate) fn in_states(host: &Namespace, port: u16, states: &[&str]) -> Result<u64> {
    list(host, &format!("( sport = :{port} )"), states)
}

fn list(host: &Namespace, filter: &str, states: &[&str]) -> Result<u64> {
    let mut list = host.command("ss");
    list.args(["-H", "-t", "-n", "-o"]);
    list.args(states.iter().flat_map(|state| ["state", state])).arg(filter);
    // What is left of a socket is listed in the state that it was in.
    Ok(machine::run(&mut list)?.lines().filter(|line| !line.contains("timer:(timewait")).count() as u64)
}
