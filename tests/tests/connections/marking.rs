//! Whose a connection is that is written down, while it changes and when it ends.

use super::{eventually, host::Host};
use anyhow::{Context as _, Result, ensure};
use std::net::{SocketAddr, TcpListener, TcpStream};
use throttle_agent::datapath::Drift;
use throttle_common::{entrances::ENTERS_WITHIN, records::Connection};
use throttle_tests::{
    clients::{connect_bound, reset},
    needs_root,
    wire::{FAR_V4, NEAR_V4},
};

const LIMIT: &str = "concurrent = 20\nsources = 300";
const PORT: u16 = 2345;

/// A host with one connection open, from [`PORT`].
struct Scene {
    host: Host,
    listener: TcpListener,
    to: SocketAddr,
    client: TcpStream,
}

impl Scene {
    fn new() -> Result<Self> {
        let mut host = Host::new()?;
        let listener = host.listen_deep(FAR_V4)?;
        let to = listener.local_addr()?;
        host.limit(to.port(), &[LIMIT])?;
        let client = connect(&host, to)?;
        eventually(&vec![Connection::OPEN], || host.states())?;
        Ok(Self { host, listener, to, client })
    }
}

fn connect(host: &Host, to: SocketAddr) -> Result<TcpStream> {
    let from = SocketAddr::new(super::address(NEAR_V4), PORT);
    host.wire.near.enter(|| connect_bound(from, to))?.context("connect")
}

#[test]
fn what_is_known_of_a_connection_ends_none_that_came_after_it_between_the_same_ends() -> Result<()> {
    needs_root!();
    let Scene { host, listener, to, client } = Scene::new()?;
    let first = host.written()?.remove(0);
    reset(client)?;
    eventually(&0, || host.connections())?;
    // As if nobody had seen its end.
    host.write(&first)?;
    let second = connect(&host, to)?;
    eventually(&true, || Ok(host.written()?.iter().any(|it| *it != first)))?;
    ensure!(!host.close(&first)?, "the second one has been ended");
    ensure!(host.connections()? == 1, "it is written down");
    drop((second, listener));
    Ok(())
}

#[test]
fn one_that_enters_is_left_as_it_is_by_whoever_takes_it_for_another() -> Result<()> {
    needs_root!();
    let Scene { host, listener, client, .. } = Scene::new()?;
    host.rewrite(|connection| connection.state = Connection::ENTERING)?;
    let first = host.written()?.remove(0);
    host.rewrite(|connection| connection.since += 1_000)?;
    ensure!(!host.close(&first)? && host.states()? == [Connection::ENTERING], "{:?}", host.states()?);
    drop((client, listener));
    eventually(&0, || Ok(host.open(0)))
}

#[test]
fn an_end_that_somebody_has_marked_and_not_concluded_is_the_agents() -> Result<()> {
    needs_root!();
    for state in [Connection::OPEN, Connection::ENTERING] {
        let Scene { host, listener, client, .. } = Scene::new()?;
        host.rewrite(|connection| {
            connection.state = state;
            connection.since -= 2 * ENTERS_WITHIN;
            connection.since |= Connection::ENDS;
        })?;
        reset(client)?;
        eventually(&0, || super::host::sockets(&host.wire.far, listener.local_addr()?.port(), None))?;
        ensure!(host.open(0) == 1, "somebody else gives its place back");
        let drift = host.reconcile()?;
        ensure!(drift == Drift { closed: 1, ..Drift::default() } && host.open(0) == 0, "{drift:?}, {}", host.open(0));
    }
    Ok(())
}

#[test]
fn one_that_was_left_in_the_middle_of_a_change_is_given_back_when_it_has_ended() -> Result<()> {
    needs_root!();
    let Scene { host, listener, client, .. } = Scene::new()?;
    host.rewrite(|connection| connection.since |= Connection::CHANGES)?;
    reset(client)?;
    eventually(&true, || Ok(host.written()?.iter().all(|(_, it)| it.since & Connection::ENDS != 0)))?;
    ensure!(host.open(0) == 1, "whoever changes it gives its place back");
    let drift = host.reconcile()?;
    ensure!((host.open(0), host.connections()?) == (0, 0), "{} are counted after {drift:?}", host.open(0));
    drop(listener);
    Ok(())
}
