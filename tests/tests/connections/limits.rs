//! How many connections a limit lets in.

use super::{address, eventually, host::Host};
use anyhow::{Context as _, Result, bail, ensure};
use std::{io::ErrorKind, net::SocketAddr};
use throttle_common::{connections, packet::tcp, words::Outcome};
use throttle_tests::{
    clients::send_raw,
    frames::Frame,
    needs_root,
    wire::{FAR_V4, FAR_V6, NEAR, NEAR_V4, NEAR_V6},
};

/// Another address of the near host.
const OTHER: &str = "10.98.0.7";

#[test]
fn as_many_connections_are_open_as_a_source_may_have_and_a_closed_one_makes_room() -> Result<()> {
    needs_root!();
    for (listen, to) in [(FAR_V4, FAR_V4), (FAR_V6, FAR_V6), ("::", FAR_V4), ("::", FAR_V6)] {
        let mut host = Host::new()?;
        let listener = host.listen(listen)?;
        let port = listener.local_addr()?.port();
        host.limit(port, &["concurrent = 3\naction = \"reject\"\nsources = 300"])?;
        let to = SocketAddr::new(address(to), port);
        let (mut clients, mut accepted) = (Vec::new(), Vec::new());
        for open in 1..=3 {
            clients.push(host.connect(None, to)??);
            accepted.push(listener.accept()?);
            eventually(&open, || Ok(host.open(0)))?;
        }
        let refused = host.connect(None, to)?.err().map(|error| error.kind());
        ensure!(refused == Some(ErrorKind::ConnectionRefused), "the fourth connection to {to} met {refused:?}");
        ensure!(host.open(0) == 3 && host.connections()? == 3);
        clients.pop();
        accepted.pop();
        eventually(&2, || Ok(host.open(0)))?;
        clients.push(host.connect(None, to)??);
        eventually(&3, || Ok(host.open(0)))?;
        drop((clients, accepted));
        // What nobody has accepted stays open until its listener is closed.
        eventually(&1, || Ok(host.open(0)))?;
        drop(listener);
        eventually(&0, || Ok(host.open(0)))?;
        eventually(&0, || host.connections())?;
    }
    Ok(())
}

#[test]
fn a_service_may_have_so_many_whoever_they_are_and_a_packet_meets_both_limits() -> Result<()> {
    needs_root!();
    let mut host = Host::new()?;
    host.wire.near.ip(&["address", "add", &format!("{OTHER}/16"), "dev", NEAR])?;
    let listener = host.listen("::")?;
    let port = listener.local_addr()?.port();
    let shared = "concurrent = 5\nper = \"service\"\naction = \"reject\"";
    host.limit(port, &["concurrent = 3\naction = \"reject\"\nsources = 300", shared])?;
    let (v4, v6) = (SocketAddr::new(address(FAR_V4), port), SocketAddr::new(address(FAR_V6), port));
    let mut open = Vec::new();
    // Of the first source two, of the second two, and one over IPv6: then the service is full, though no source is.
    for (source, to) in [(NEAR_V4, v4), (NEAR_V4, v4), (OTHER, v4), (OTHER, v4), (NEAR_V6, v6)] {
        open.push((host.connect(Some(source), to)?.context("while there is room")?, listener.accept()?));
    }
    eventually(&(5, 5), || Ok((host.open(0), host.open(1))))?;
    for (source, to) in [(NEAR_V4, v4), (NEAR_V6, v6)] {
        let refused = host.connect(Some(source), to)?.err().map(|error| error.kind());
        ensure!(refused == Some(ErrorKind::ConnectionRefused), "{source} met {refused:?} at a full service");
    }
    // A refusal by one limit costs the other nothing.
    ensure!((host.open(0), host.open(1)) == (5, 5));
    open.pop();
    open.pop();
    eventually(&(3, 3), || Ok((host.open(0), host.open(1))))?;
    open.push((host.connect(Some(NEAR_V4), v4)?.context("the source's third")?, listener.accept()?));
    eventually(&(4, 4), || Ok((host.open(0), host.open(1))))?;
    let refused = host.connect(Some(NEAR_V4), v4)?.err().map(|error| error.kind());
    ensure!(refused == Some(ErrorKind::ConnectionRefused), "the source's fourth met {refused:?}");
    drop((open, listener));
    eventually(&(0, 0), || Ok((host.open(0), host.open(1))))
}

#[test]
fn a_syn_that_is_sent_again_asks_for_nothing_more() -> Result<()> {
    needs_root!();
    let mut host = Host::new()?;
    let listener = host.listen(FAR_V4)?;
    let port = listener.local_addr()?.port();
    host.limit(port, &["concurrent = 1\nsources = 300"])?;
    // Of somebody who is not there, so that nobody answers the SYN-ACK.
    let syn = |from: u16| Frame::from("10.98.77.1").to(FAR_V4).tcp(from, port, tcp::SYN).bytes();
    let send = |from: u16| host.wire.near.enter(|| send_raw(NEAR, [&syn(from)[..]]))?;
    let refused = || Ok(host.tally(0)?.refused.packets);
    for _ in 0..3 {
        send(1024)?;
    }
    ensure!(refused()? == 0, "{} of the same SYNs were refused", refused()?);
    send(1025)?;
    eventually(&1, refused)
}

#[test]
fn observing_counts_what_it_would_refuse_and_what_it_lets_in() -> Result<()> {
    needs_root!();
    let mut host = Host::new()?;
    let listener = host.listen(FAR_V4)?;
    let port = listener.local_addr()?.port();
    host.limit(port, &["concurrent = 2\nmode = \"observe\"\nsources = 300"])?;
    let to = SocketAddr::new(address(FAR_V4), port);
    let mut open = Vec::new();
    for connections in 1..=5 {
        open.push((host.connect(None, to)?.context("observing refuses nobody")?, listener.accept()?));
        eventually(&connections, || Ok(host.open(0)))?;
    }
    let tally = host.tally(0)?;
    // Of each that is too many the SYN would have been refused, and then what completes its handshake.
    ensure!(tally.refused.packets == 0 && tally.observed.packets == 6 && tally.admitted.packets == 2, "{tally:?}");
    drop(open);
    eventually(&0, || Ok(host.open(0)))
}

#[test]
fn who_shares_the_places_of_an_aggregate_does_so_by_the_terms_that_all_have() -> Result<()> {
    needs_root!();
    let mut host = Host::new()?;
    let [few, many] = ["10.98.0.8", "10.98.0.9"];
    // As many as there are places for.
    let others = ["10.98.0.10", "10.98.0.11", "10.98.0.12", "10.98.0.13"];
    for source in others.into_iter().chain([few, many]) {
        host.wire.near.ip(&["address", "add", &format!("{source}/16"), "dev", NEAR])?;
    }
    let listener = host.listen(FAR_V4)?;
    let to = SocketAddr::new(address(FAR_V4), listener.local_addr()?.port());
    let terms = |source, places| format!("[[limit.override]]\nsources = [\"{source}\"]\nconcurrent = {places}\n");
    let limit = format!("concurrent = 3\nsources = 3\naction = \"reject\"\n{}{}", terms(few, 1), terms(many, 5));
    host.limit(to.port(), &[&limit])?;
    let mut open = Vec::new();
    for source in others {
        open.push((host.connect(Some(source), to)?.context("there is a place")?, listener.accept()?));
        eventually(&open.len(), || host.connections())?;
    }
    // What they share has three places, though one may have five and the other but one in a bucket of its own.
    let mut shared = Vec::new();
    for (source, has_room) in [(many, true), (many, true), (few, true), (many, false), (few, false)] {
        let told = host.explain(address(source), to.port())?;
        ensure!(told.limits[0].record.depth == connections::depth(3) && !told.limits[0].overridden, "{told:?}");
        ensure!((told.verdict.outcome == Outcome::Pass) == has_room, "foretold of {source}: {told:?}");
        match host.connect(Some(source), to)? {
            Ok(client) if has_room => shared.push((client, listener.accept()?)),
            Err(error) if !has_room => ensure!(error.kind() == ErrorKind::ConnectionRefused, "{source} met {error}"),
            met => bail!("{source} met {met:?} with {} places taken", shared.len()),
        }
        eventually(&(open.len() + shared.len()), || host.connections())?;
    }
    Ok(())
}
