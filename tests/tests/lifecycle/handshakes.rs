//! Who completes a handshake with this host is proven; nobody else is.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::Path,
};

use anyhow::{Context, Result};
use throttle_agent::datapath::{Datapath, Options, detach_all};
use throttle_tests::{
    frames::Frame,
    needs_root,
    netns::Namespace,
    pins::Pins,
    program::action,
    wire::{FAR_V4, FAR_V6, NEAR_V4, NEAR_V6, Wire},
};

use super::{apply, options};

/// One set for each family: three ways that anybody may take, one for the proven.
const SCARCE: &str = "[[limit]]\nname = \"scarce\"\nunit = \"packets\"\nrate = \"2/h\"\nsources = 3\n\
                      overflow = \"refuse\"\n";

/// Programs that judge on the far host, with a table in which strangers hold every place that anybody may take.
fn crowded(pins: &Pins, far: &Namespace) -> Result<Datapath> {
    let open = || Datapath::open(&Options { test_clock: false, ..options(pins) });
    let mut datapath = far.enter(open)??;
    apply(&mut datapath, 1, SCARCE)?;
    for host in 1..=9 {
        admitted(&datapath, &format!("192.0.2.{host}"))?;
        admitted(&datapath, &format!("2001:db8:0:{host}::1"))?;
    }
    Ok(datapath)
}

fn admitted(datapath: &Datapath, source: &str) -> Result<bool> {
    Ok(datapath.test_run(&Frame::from(source).bytes(), 1)?.action == action::PASS)
}

/// A connection from one host to a server on another, up to the byte that the client reads.
fn shake_hands(client: &Namespace, server: &Namespace, listen: &str, connect: &str) -> Result<()> {
    let address = |text: &str| text.parse::<IpAddr>().map(|address| SocketAddr::from((address, 0)));
    let listener = server.enter(|| TcpListener::bind(address(listen)?).context("listen"))??;
    let to = SocketAddr::new(connect.parse()?, listener.local_addr()?.port());
    let connected = client.enter(|| TcpStream::connect(to))?.with_context(|| format!("connect to {to}"))?;
    // The far side has its socket once it is accepted.
    listener.accept()?;
    drop(connected);
    Ok(())
}

#[test]
fn a_source_that_completed_a_handshake_finds_a_place_among_strangers() -> Result<()> {
    needs_root!();
    for (listen, connect, source) in
        [(FAR_V4, FAR_V4, NEAR_V4), (FAR_V6, FAR_V6, NEAR_V6), ("::", FAR_V4, NEAR_V4), ("::", FAR_V6, NEAR_V6)]
    {
        let (pins, wire) = (Pins::new()?, Wire::new()?);
        let mut datapath = crowded(&pins, &wire.far)?;
        datapath.watch_sockets()?;
        assert!(!admitted(&datapath, source)?, "{source} is a stranger too");
        shake_hands(&wire.near, &wire.far, listen, connect)?;
        assert!(admitted(&datapath, source)?, "{source} connected to {connect}");
        assert!(!admitted(&datapath, "198.51.100.9")?, "a stranger stays one");
    }
    Ok(())
}

#[test]
fn handshakes_elsewhere_and_those_that_this_host_begins_prove_nobody() -> Result<()> {
    needs_root!();
    let (pins, wire) = (Pins::new()?, Wire::new()?);
    let mut datapath = crowded(&pins, &wire.far)?;
    datapath.watch_sockets()?;
    shake_hands(&wire.near, &wire.near, NEAR_V4, NEAR_V4)?;
    assert!(!admitted(&datapath, NEAR_V4)?, "that was in another network namespace");
    shake_hands(&wire.far, &wire.near, NEAR_V4, NEAR_V4)?;
    assert!(!admitted(&datapath, NEAR_V4)?, "that was this host's own");
    Ok(())
}

#[test]
fn sockets_are_watched_while_no_agent_runs_and_until_it_is_undone() -> Result<()> {
    needs_root!();
    let (pins, wire) = (Pins::new()?, Wire::new()?);
    let pinned = |pins: &Pins| ["sockets", "sockets_again"].map(|link| Path::new(&pins.pin_dir()).join(link).exists());
    let mut datapath = crowded(&pins, &wire.far)?;
    datapath.watch_sockets()?;
    drop(datapath);
    shake_hands(&wire.near, &wire.far, FAR_V4, FAR_V4)?;
    let reopened = || Datapath::open(&Options { test_clock: false, ..options(&pins) });
    let mut datapath = wire.far.enter(reopened)??;
    datapath.watch_sockets().context("beside the program of the agent before")?;
    assert!(admitted(&datapath, NEAR_V4)? && pinned(&pins) == [true; 2]);
    drop(datapath);
    detach_all(&pins.pin_dir())?;
    assert!(pinned(&pins) == [false; 2]);
    Ok(())
}
