//! Connections that the throttled host only forwards: no socket of its own tells of them, only their packets.

use super::{
    address, egress, eventually,
    host::sockets,
    router::{Router, Way},
};
use anyhow::{Context as _, Result, ensure};
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::Duration,
};
use throttle_agent::datapath::{Drift, Egress};
use throttle_tests::{
    clients::send_raw,
    frames::Frame,
    machine::egresses,
    needs_root, say,
    wire::{FAR_V4, NEAR, NEAR_V4, NEAR_V6},
};

const WAYS: [Way; 3] = [Way::Route, Way::RouteV6, Way::Translate];
/// How many a source may have, and how many it wants at once.
const ALLOWED: u32 = 5;
const WANTED: usize = 20;
const SYN: u8 = 2;
/// Two and a bit of the moments that handshakes are counted in.
pub(super) const MOMENTS: Duration = Duration::from_millis(2_300);

/// Every way of seeing what leaves, with every way to the server.
fn every_way() -> impl Iterator<Item = (Egress, Way)> {
    egresses().into_iter().flat_map(|egress| WAYS.map(|way| (egress, way)))
}

pub(super) fn reset_on_close(stream: &TcpStream) -> Result<()> {
    Ok(rustix::net::sockopt::set_socket_linger(stream.as_fd(), Some(Duration::ZERO))?)
}

/// Waits until nothing is counted, and nothing had to be mended or forgotten for it.
fn counts_nothing(router: &Router) -> Result<()> {
    eventually(&(0, 0), || Ok((router.served()?, router.host.open(0))))?;
    let drift = router.host.reconcile()?;
    ensure!(drift == Drift::default() && router.host.connections()? == 0, "{drift:?}");
    Ok(())
}

#[test]
fn never_are_more_forwarded_than_the_limit_and_the_rest_is_refused() -> Result<()> {
    needs_root!();
    for (egress, way) in every_way() {
        // Where what a source asks for is doubted, every SYN passes, and the completed handshake decides.
        for doubted in [false, true] {
            let Some(mut router) = Router::new(egress, way)? else { continue };
            router.limit(ALLOWED)?;
            // Neighbours have found each other before many call at once.
            drop(router.connect()?);
            eventually(&(0, 0), || Ok((router.served()?, router.host.open(0))))?;
            if doubted {
                doubt(&router, way)?;
            }
            // What was asked for in one moment and completed in the next counts as under way in the first.
            thread::sleep(MOMENTS);
            let (served, refused, most) = storm(&router, doubted)?;
            say!(
                "{egress}, {way:?}, doubted: {doubted}: {served} of {WANTED} served, {refused} refused, at most {most} open"
            );
            ensure!(served == u64::from(ALLOWED) && served + refused == WANTED as u64, "{way:?}: {served}, {refused}");
            ensure!(most <= ALLOWED.into(), "{way:?}: {most} were open at once");
            // What the server still believes in is none, and holds no place.
            eventually(&0, || Ok(router.host.open(0))).with_context(|| format!("{way:?}"))?;
            let _again = router.connect().context("there is room again")?;
        }
    }
    Ok(())
}

/// Leaves a handshake under way, for which the source is doubted when its moments have passed.
fn doubt(router: &Router, way: Way) -> Result<()> {
    let to = router.to.ip().to_string();
    let near = if way == Way::RouteV6 { NEAR_V6 } else { NEAR_V4 };
    let syn = Frame::from(near).to(&to).tcp(9, router.to.port(), SYN).bytes();
    router.host.wire.near.enter(|| send_raw(NEAR, [&*syn]))??;
    Ok(())
}

/// Wants many connections at once; gives how many were served and refused, and how many the server saw open at most.
/// With `late` the server's answers go astray at first, so that no handshake completes before all have begun.
fn storm(router: &Router, late: bool) -> Result<(u64, u64, u64)> {
    if late {
        router.mislead(true)?;
    }
    let (served, refused, most) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let done = AtomicBool::new(false);
    let entries = (0..WANTED).map(|_| router.host.wire.near.entry()).collect::<Result<Vec<_>>>()?;
    router.listener.set_nonblocking(true)?;
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| serve(&router.listener, &done));
        scope.spawn(|| {
            while !done.load(SeqCst) {
                most.fetch_max(router.served().unwrap_or(u64::MAX), SeqCst);
            }
        });
        let (served, refused, done) = (&served, &refused, &done);
        for entry in entries {
            scope.spawn(move || call(&entry, router.to, served, refused, done));
        }
        if late {
            thread::sleep(Duration::from_millis(500));
            router.mislead(false)?;
        }
        let ended = eventually(&(WANTED as u64), || Ok(served.load(SeqCst) + refused.load(SeqCst)));
        let open = router.served();
        done.store(true, SeqCst);
        ended?;
        ensure!(open? == served.load(SeqCst), "the server believes in other connections than were served");
        Ok(())
    })?;
    router.listener.set_nonblocking(false)?;
    Ok((served.into_inner(), refused.into_inner(), most.into_inner()))
}

/// Gives a byte to whoever connects, and keeps the connection until all is done.
fn serve(listener: &TcpListener, done: &AtomicBool) -> Result<()> {
    let mut clients = Vec::new();
    while !done.load(SeqCst) {
        match listener.accept() {
            Ok((mut client, _)) => {
                client.write_all(b"!")?;
                clients.push(client);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Opens a connection, and keeps it until all is done.
fn call(
    entry: &throttle_tests::netns::Entry,
    to: SocketAddr,
    served: &AtomicU64,
    refused: &AtomicU64,
    done: &AtomicBool,
) -> Result<()> {
    entry.enter()?;
    let mut byte = [0];
    let answered = TcpStream::connect_timeout(&to, super::PATIENCE).and_then(|mut client| {
        client.set_read_timeout(Some(super::PATIENCE))?;
        client.read_exact(&mut byte).map(|()| client)
    });
    match answered {
        Ok(_client) => {
            served.fetch_add(1, SeqCst);
            while !done.load(SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
        }
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => {
            refused.fetch_add(1, SeqCst);
        }
        Err(error) => return Err(error).context("neither served nor refused at once"),
    }
    Ok(())
}

/// Ends connections from the ends of their clients and of their servers.
type Close = fn(Vec<TcpStream>, Vec<TcpStream>) -> Result<()>;

#[test]
fn a_forwarded_connection_gives_its_place_back_whoever_closes_it_and_however() -> Result<()> {
    needs_root!();
    let ways: [(&str, Close); 4] = [
        ("the client closes first", |clients, servers| {
            // All that was sent is read, so that an end is an end and no reset.
            for (mut client, mut server) in clients.into_iter().zip(servers) {
                client.read_exact(&mut [0])?;
                client.shutdown(std::net::Shutdown::Write)?;
                server.read_to_end(&mut Vec::new())?;
            }
            Ok(())
        }),
        ("the server closes first", |clients, servers| {
            drop(servers);
            clients.into_iter().try_for_each(|mut client| Ok(client.read_to_end(&mut Vec::new()).map(drop)?))
        }),
        ("the client resets", |clients, servers| {
            clients.iter().try_for_each(reset_on_close)?;
            drop(clients);
            for mut server in servers {
                ensure!(server.read(&mut [0]).is_err(), "it was reset");
            }
            Ok(())
        }),
        ("the server resets", |clients, servers| {
            servers.iter().try_for_each(reset_on_close)?;
            drop(servers);
            for mut client in clients {
                ensure!(client.read_to_end(&mut Vec::new()).is_err(), "it was reset");
            }
            Ok(())
        }),
    ];
    for (egress, way) in every_way() {
        let Some(mut router) = Router::new(egress, way)? else { continue };
        router.limit(1000)?;
        for (how, close) in ways {
            let (clients, servers) = (0..3).map(|_| router.connect()).collect::<Result<Vec<_>>>()?.into_iter().unzip();
            ensure!(router.host.open(0) == 3, "{} of 3 hold places", router.host.open(0));
            let drift = router.host.reconcile()?;
            ensure!(drift == Drift::default() && router.host.open(0) == 3, "taken for leaked: {drift:?}");
            close(clients, servers).with_context(|| format!("{egress}, {way:?}, {how}"))?;
            counts_nothing(&router).with_context(|| format!("{egress}, {way:?}, {how}"))?;
        }
    }
    Ok(())
}

#[test]
fn what_a_limit_only_observes_is_followed_to_its_end() -> Result<()> {
    needs_root!();
    for (egress, way) in every_way() {
        let Some(mut router) = Router::new(egress, way)? else { continue };
        // Of the first connection what follows its handshake is too much, of the others everything; and all of it passes.
        let packets = "[[limit]]\nname = \"packets\"\nservice = \"web\"\nunit = \"packets\"\nrate = \"1/min\"\nburst = 2\nsources = 300\n";
        let policy = router.policy(5).replacen("mode = \"enforce\"", "mode = \"observe\"", 1) + packets;
        router.host.put(&policy)?;
        for _ in 0..3 {
            let connection = router.connect()?;
            eventually(&1, || Ok(router.host.open(0)))?;
            drop(connection);
            counts_nothing(&router).with_context(|| format!("{egress}, {way:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn one_that_is_only_observed_to_be_too_many_ends_when_it_is_closed() -> Result<()> {
    needs_root!();
    for (egress, way) in every_way() {
        let Some(mut router) = Router::new(egress, way)? else { continue };
        router.host.put(&router.policy(2).replacen("mode = \"enforce\"", "mode = \"observe\"", 1))?;
        let mut open = (0..4).map(|_| router.connect()).collect::<Result<Vec<_>>>()?;
        for (client, server) in &mut open {
            client.read_exact(&mut [0])?;
            super::revealing::talk(client, server)?;
        }
        eventually(&4, || router.host.connections()).with_context(|| format!("{egress}, {way:?}"))?;
        ensure!(router.host.reconcile()? == Drift::default() && router.host.open(0) == 4, "{}", router.host.open(0));
        ensure!(router.host.tally(0)?.observed.packets > 0, "{:?}", router.host.tally(0)?);
        drop(open);
        counts_nothing(&router).with_context(|| format!("{egress}, {way:?}"))?;
    }
    Ok(())
}

#[test]
fn what_is_forwarded_is_counted_while_no_agent_runs_and_each_is_seen_once() -> Result<()> {
    needs_root!();
    egresses().into_iter().try_for_each(|egress| counted_without_an_agent(egress).with_context(|| egress.to_string()))
}

fn counted_without_an_agent(egress: Egress) -> Result<()> {
    let Some(mut router) = Router::new(egress, Way::Route)? else { return Ok(()) };
    router.limit(3)?;
    let programs = |router: &Router| egress::programs(&router.host.wire);
    ensure!(programs(&router)? == 1, "one sees what leaves");
    let mut open = vec![router.connect()?];
    let Router { listener, host, server, to } = router;
    // The agent is killed; two connections come, one goes.
    let host = host.restart(|wire| {
        for _ in 0..2 {
            let client = wire.near.enter(|| TcpStream::connect(to))??;
            open.push((client, listener.accept()?.0));
        }
        drop(open.remove(0));
        Ok(())
    })?;
    let mut router = Router { listener, host, server, to };
    eventually(&2, || Ok(router.host.open(0)))?;
    ensure!(router.host.reconcile()? == Drift::default(), "the programs saw all");
    ensure!(programs(&router)? == 1, "this build's is in the place of the other's");
    open.push(router.connect()?);
    let refused = router.host.connect(None, to)?.err().map(|error| error.kind());
    ensure!(refused == Some(ErrorKind::ConnectionRefused), "the fourth met {refused:?}");
    // Another limit comes, and the places follow.
    let policy = router.policy(4).replace("sources = 300", "sources = 600");
    router.host.put(&policy)?;
    ensure!(router.host.open(0) == 3, "{} hold places under the new limit", router.host.open(0));
    drop(open);
    eventually(&0, || Ok(router.host.open(0)))?;
    router.host.detach()?;
    ensure!(programs(&router)? == 0, "nothing of ours is left");
    Ok(())
}

#[test]
fn services_of_this_hosts_own_sockets_are_counted_beside_as_ever() -> Result<()> {
    needs_root!();
    egresses().into_iter().try_for_each(|egress| counted_beside(egress).with_context(|| egress.to_string()))
}

fn counted_beside(egress: Egress) -> Result<()> {
    let Some(mut router) = Router::new(egress, Way::Route)? else { return Ok(()) };
    let own = router.host.listen(FAR_V4)?;
    let port = own.local_addr()?.port();
    let service = |name: &str, port: u16, more: &str| {
        format!("[[service]]\nname = \"{name}\"\nprotocol = \"tcp\"\nports = [{port}]\n{more}\n")
    };
    let limit = |index: usize, service: &str| {
        format!(
            "[[limit]]\nname = \"open-{index}\"\nservice = \"{service}\"\nunit = \"connections\"\n\
             concurrent = 2\naction = \"reject\"\nsources = 300\n"
        )
    };
    let head = "mode = \"enforce\"\n[answers]\nrate = \"1000000/s\"\n";
    let forwarded = service("behind", router.to.port(), "forwarded = true");
    let limits = limit(0, "behind") + &limit(1, "own");
    router.host.put(&(head.to_owned() + &forwarded + &service("own", port, "") + &limits))?;
    let to = SocketAddr::new(address(FAR_V4), port);
    let mut open = Vec::new();
    for count in 1..=2 {
        open.push(router.connect()?);
        open.push((router.host.connect(None, to)??, own.accept()?.0));
        eventually(&(count, count), || Ok((router.host.open(0), router.host.open(1))))?;
    }
    for to in [to, router.to] {
        let refused = router.host.connect(None, to)?.err().map(|error| error.kind());
        ensure!(refused == Some(ErrorKind::ConnectionRefused), "the third to {to} met {refused:?}");
    }
    ensure!(router.host.reconcile()? == Drift::default());
    drop(open);
    eventually(&(0, 0), || Ok((router.host.open(0), router.host.open(1))))?;
    // A socket of this host's is counted by its packets too, once, where its service is.
    router.host.put(&(head.to_owned() + &service("own", port, "forwarded = true") + &limit(0, "own")))?;
    let open = [(router.host.connect(None, to)??, own.accept()?.0), (router.host.connect(None, to)??, own.accept()?.0)];
    eventually(&2, || Ok(router.host.open(0)))?;
    ensure!(router.host.reconcile()? == Drift::default() && router.host.open(0) == 2);
    drop(open);
    eventually(&(0, 0), || Ok((router.host.open(0), sockets(&router.host.wire.far, port, None)?)))
}
