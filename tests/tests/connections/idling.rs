//! Forwarded connections whose end nobody saw, and those whose packets nobody sees at all.

use super::{
    eventually,
    host::Host,
    router::{Router, Way},
};
use anyhow::{Context as _, Result, ensure};
use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
};
use throttle_agent::datapath::{Drift, Egress};
use throttle_common::packet::tcp;
use throttle_tests::{
    machine::{self, egresses},
    needs_root,
    program::{SECOND, START},
    stranger::Stranger,
    wire::{FAR, FAR_V4},
};

#[test]
fn a_forwarded_connection_that_nothing_is_heard_of_is_forgotten_and_no_other() -> Result<()> {
    needs_root!();
    egresses().into_iter().try_for_each(|egress| forgotten(egress).with_context(|| egress.to_string()))
}

fn forgotten(egress: Egress) -> Result<()> {
    let mut host = Host::timed(egress)?;
    host.set_clock(START)?;
    let Some(mut router) = Router::of(host, Way::Route)? else { return Ok(()) };
    router.limit(3)?;
    let (mut silent, mut speaking, mut spoken_to) = (router.connect()?, router.connect()?, router.connect()?);
    let at = |router: &mut Router, minutes: u64| -> Result<Drift> {
        router.host.set_clock(START + minutes * 60 * SECOND)?;
        router.host.reconcile()
    };
    ensure!(at(&mut router, 8)? == Drift::default() && router.host.open(0) == 3, "within 10 min nothing is forgotten");
    speaking.0.write_all(b"?")?;
    speaking.1.read_exact(&mut [0])?;
    spoken_to.1.write_all(b"!")?;
    spoken_to.0.read_exact(&mut [0; 2])?;
    let forgotten = at(&mut router, 14)?;
    ensure!(forgotten == Drift { idle: 1, ..Drift::default() }, "{forgotten:?}");
    ensure!(router.host.open(0) == 2 && router.host.connections()? == 2);
    let _another = router.connect()?;
    ensure!(router.host.open(0) == 3);
    let forgotten = at(&mut router, 20)?;
    ensure!(forgotten == Drift { idle: 2, ..Drift::default() } && router.host.open(0) == 1, "{forgotten:?}");
    // Whoever is forgotten and spoken to again is counted, also beyond the limit.
    for (open, (client, server)) in (2..).zip([&mut silent, &mut speaking, &mut spoken_to]) {
        server.write_all(b"?")?;
        eventually(&open, || Ok(router.host.open(0)))?;
        client.write_all(b"?")?;
        server.read_exact(&mut [0])?;
    }
    ensure!(router.host.connect(None, router.to)?.is_err(), "four are open, of three");
    // What of its beginning was not followed may be another's end: it is doubted for a minute.
    [speaking, spoken_to].into_iter().try_for_each(|(client, server)| close(client, server))?;
    ensure!(at(&mut router, 20)? == Drift::default() && router.host.open(0) == 4);
    let forgotten = at(&mut router, 22)?;
    ensure!(forgotten == Drift { idle: 2, ..Drift::default() } && router.host.open(0) == 2, "{forgotten:?}");
    Ok(())
}

#[test]
fn what_the_server_had_no_room_for_is_forgotten_within_two_minutes_and_what_it_serves_then_is_not() -> Result<()> {
    needs_root!();
    egresses().into_iter().try_for_each(|egress| not_accepted(egress).with_context(|| egress.to_string()))
}

fn not_accepted(egress: Egress) -> Result<()> {
    let mut host = Host::timed(egress)?;
    host.set_clock(START)?;
    let Some(mut router) = Router::of(host, Way::Route)? else { return Ok(()) };
    router.limit(4)?;
    let _silent = router.connect()?;
    let stranger = Stranger::new(&router.host.wire, "10.98.77.1", router.to)?;
    let (ports, served) = (1024..1027, 1026..1027);
    let answers = stranger.asks(&ports)?;
    answers.iter().try_for_each(|(port, answer)| stranger.completes_damaged(*port, *answer))?;
    eventually(&4, || Ok(router.host.open(0)))?;
    stranger.hears_of(&ports, tcp::SYN | tcp::ACK)?;
    for port in served.clone() {
        stranger.completes(port, answers[&port])?;
        router.listener.accept()?.0.write_all(b"!")?;
        stranger.is_served(&served)?;
    }
    router.host.set_clock(START + 120 * SECOND)?;
    let forgotten = router.host.reconcile()?;
    ensure!(forgotten == Drift { idle: 2, ..Drift::default() }, "{forgotten:?}");
    ensure!(router.host.open(0) == 2, "{} hold places", router.host.open(0));
    Ok(())
}

/// Ends a connection from both its ends, and waits until each has heard the other's.
fn close(mut client: TcpStream, mut server: TcpStream) -> Result<()> {
    server.shutdown(Shutdown::Write)?;
    client.read_to_end(&mut Vec::new())?;
    client.shutdown(Shutdown::Write)?;
    server.read_to_end(&mut Vec::new()).map(drop).context("the client's end")
}

#[test]
fn where_what_leaves_cannot_be_seen_it_is_said_and_all_else_goes_on() -> Result<()> {
    needs_root!();
    // What has the place of clsact knows nothing of what leaves.
    let ingress = ["qdisc", "add", "dev", FAR, "ingress"];
    let host = Host::on(|wire| machine::run(wire.far.command("tc").args(ingress)).map(drop))?;
    let Some(mut router) = Router::of(host, Way::Route)? else { return Ok(()) };
    let unseen = router.host.unseen();
    ensure!(
        matches!(unseen[..], [(FAR, reason)] if reason.contains("`ingress` has the place of clsact")),
        "{unseen:?}"
    );
    router.limit(1)?;
    let _open = (router.connect()?, router.connect()?);
    ensure!(router.host.open(0) == 0, "what is not seen is neither counted nor refused");
    // This host's own sockets are counted as ever.
    let listener = router.host.listen(FAR_V4)?;
    let to = listener.local_addr()?;
    router.host.limit(to.port(), &["concurrent = 1\naction = \"reject\"\nsources = 300"])?;
    let _own = (router.host.connect(None, to)??, listener.accept()?);
    eventually(&1, || Ok(router.host.open(0)))?;
    ensure!(router.host.connect(None, to)?.is_err(), "the second is refused");
    Ok(())
}
