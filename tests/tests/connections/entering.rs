//! Who completes a handshake and gets no socket: for its place to be given back nobody is needed but the next who comes. No
//! agent holds the count against the sockets here.

use super::{
    eventually,
    host::{Host, sockets},
    policy,
};
use anyhow::{Result, ensure};
use std::ops::Range;
use throttle_agent::datapath::Drift;
use throttle_common::records::Connection;
use throttle_tests::{needs_root, stranger::Stranger, wire::FAR_V4};

const STRANGER: &str = "10.98.77.1";
const PORTS: Range<u16> = 1024..1043;
/// Of the whole service: those of the stranger, and one.
const LIMIT: &str = "concurrent = 20\nper = \"service\"\naction = \"reject\"";
const ALLOWED: u64 = 20;

/// What the stack discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Discarded {
    /// What was damaged on its way.
    Damaged,
    /// What finds no room with those that nobody has accepted.
    Queued,
}

#[test]
fn what_the_stack_discards_makes_room_for_those_who_come_next() -> Result<()> {
    needs_root!();
    for discarded in [Discarded::Damaged, Discarded::Queued] {
        let mut host = Host::new()?;
        let (besieged, free) = (host.listen_deep(FAR_V4)?, host.listen_deep(FAR_V4)?);
        let (at, to) = (besieged.local_addr()?, free.local_addr()?);
        let ports = format!("ports = [{}, {}]", at.port(), to.port());
        host.put(&policy(at.port(), &[LIMIT]).replace(&format!("ports = [{}]", at.port()), &ports))?;
        let open = || {
            Ok::<_, anyhow::Error>(
                sockets(&host.wire.far, at.port(), None)? + sockets(&host.wire.far, to.port(), None)?,
            )
        };
        let served = host.connect(None, to)??;
        let stranger = Stranger::new(&host.wire, STRANGER, at)?;
        let answers = stranger.asks(&PORTS)?;
        if discarded == Discarded::Queued {
            rustix::net::listen(&besieged, 1)?;
        }
        for (port, answer) in answers {
            match discarded {
                Discarded::Damaged => stranger.completes_damaged(port, answer)?,
                Discarded::Queued => stranger.completes(port, answer)?,
            }
        }
        eventually(&ALLOWED, || Ok(host.open(0)))?;
        ensure!(open()? < ALLOWED / 2, "{discarded:?}: {} have a socket", open()?);
        let mut clients = vec![served];
        eventually(&10, || {
            clients.extend(host.connect(None, to)?);
            let (sockets, counted) = (open()?, host.open(0));
            ensure!(sockets <= counted, "{discarded:?}: {counted} are counted, {sockets} are open");
            Ok(clients.len())
        })?;
        ensure!(host.open(0) == open()?, "{discarded:?}: {} are counted, {} are open", host.open(0), open()?);
        ensure!(host.reconcile()? == Drift::default(), "{discarded:?}: the sockets say the same");
    }
    Ok(())
}

#[test]
fn what_is_served_keeps_its_place_though_nobody_saw_it_open() -> Result<()> {
    needs_root!();
    let mut host = Host::new()?;
    let listener = host.listen_deep(FAR_V4)?;
    let to = listener.local_addr()?;
    host.limit(to.port(), &[LIMIT])?;
    let served = (0..3).map(|_| host.connect(None, to)).collect::<Result<Vec<_>>>()?;
    let accepted = (0..3).map(|_| Ok(listener.accept()?.0)).collect::<Result<Vec<_>>>()?;
    eventually(&vec![Connection::OPEN; 3], || host.states())?;
    // As they were when they came in, and before either of those who watch has found them open.
    host.rewrite(|connection| {
        connection.state = Connection::ENTERING;
        connection.since -= 2;
    })?;
    eventually(&false, || {
        drop(host.connect(None, to)??);
        drop(listener.accept()?);
        ensure!(host.open(0) >= 3, "{} are counted", host.open(0));
        Ok(host.states()?.contains(&Connection::ENTERING))
    })?;
    drop((served, accepted));
    Ok(())
}
