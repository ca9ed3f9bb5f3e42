//! What ends a connection ends its place, whoever ends it and however.

use super::{
    address, eventually,
    host::{Host, in_states, sockets},
};
use anyhow::{Context as _, Result, ensure};
use std::{
    io::Write as _,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};
use throttle_common::{entrances::ENTERS_WITHIN, packet::tcp};
use throttle_tests::{
    clients::{connect_from, send_raw},
    frames::Frame,
    machine, needs_root, say,
    sockets::Sockets,
    wire::{FAR_V4, NEAR, NEAR_V4, Wire},
};

/// Wide enough for everything here.
const LIMIT: &str = "concurrent = 1000\naction = \"reject\"\nsources = 300";

/// Ends a connection by its client's and its server's end, and lets the count be looked at in between.
type Close = fn(TcpStream, TcpStream, &dyn Fn()) -> Result<()>;

/// A host whose limit counts the connections to a listener, and a few of them.
fn connected(count: usize) -> Result<(Host, TcpListener, Vec<TcpStream>, Vec<TcpStream>)> {
    let mut host = Host::new()?;
    host.wire.receive_in_threads()?;
    let listener = host.listen(FAR_V4)?;
    let port = listener.local_addr()?.port();
    host.limit(port, &[LIMIT])?;
    let to = SocketAddr::new(address(FAR_V4), port);
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for _ in 0..count {
        clients.push(host.connect(None, to)??);
        servers.push(listener.accept()?.0);
    }
    eventually(&(count as u64), || Ok(host.open(0)))?;
    Ok((host, listener, clients, servers))
}

fn reset_on_close(stream: &TcpStream) -> Result<()> {
    Ok(rustix::net::sockopt::set_socket_linger(stream.as_fd(), Some(Duration::ZERO))?)
}

/// Waits until nothing is counted, and nothing had to be mended for it.
fn counts_nothing(host: &Host, port: u16) -> Result<()> {
    eventually(&(0, 0), || Ok((sockets(&host.wire.far, port, None)?, host.open(0))))?;
    let drift = host.reconcile()?;
    ensure!(drift == throttle_agent::datapath::Drift::default() && host.connections()? == 0, "{drift:?}");
    Ok(())
}

/// How much longer than a look at the sockets a count may be too high.
const LOOKS: u32 = 4;
/// How often the count is held against the sockets before something is done, while it is, and after, at the least.
const SAMPLES: u64 = 20;

/// How long what is watched took at most: to look at the sockets, and to count what is in no list no more.
#[derive(Debug, Default)]
struct Longest {
    look: Duration,
    excess: Duration,
}

/// Holds the count against the sockets for as long as something is done, which may wait until that has been done once more.
/// Nothing opens meanwhile. Says how often it was done.
fn throughout(host: &Host, port: u16, act: impl FnOnce(&dyn Fn()) -> Result<()>) -> Result<u64> {
    throughout_within(host, port, Duration::ZERO, act)
}

/// The same where places are looked after only so long after they were taken.
///
/// The sockets are listed before the count is read and after: what is in both lists is counted, and what is in neither is
/// not, some looks later: the kernel takes a socket from its list before it says that it has closed, and may be interrupted
/// there, on the same machine that looks.
fn throughout_within(
    host: &Host,
    port: u16,
    patience: Duration,
    act: impl FnOnce(&dyn Fn()) -> Result<()>,
) -> Result<u64> {
    let list = Sockets::of(&host.wire.far)?;
    let (samples, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let watch = scope.spawn(|| -> Result<Longest> {
            let mut longest = Longest::default();
            while !done.load(SeqCst) {
                let mut exceeds: Option<Instant> = None;
                eventually(&true, || {
                    let start = Instant::now();
                    let (before, open, after) = (list.open(port)?, host.open(0) as usize, list.open(port)?);
                    longest.look = longest.look.max(start.elapsed());
                    let counts = before.intersection(&after).count()..=before.union(&after).count();
                    ensure!(open >= *counts.start(), "{open} are counted, {counts:?} are open");
                    let agrees = open <= *counts.end();
                    match exceeds {
                        Some(since) => longest.excess = longest.excess.max(start - since),
                        None => exceeds = (!agrees).then_some(start),
                    }
                    Ok(agrees)
                })?;
                samples.fetch_add(1, SeqCst);
            }
            Ok(longest)
        });
        let looks = |wanted| {
            let seen = samples.load(SeqCst);
            while samples.load(SeqCst) < seen + wanted && !watch.is_finished() {
                thread::yield_now();
            }
        };
        looks(SAMPLES);
        // One that began before has ended, then one more.
        let acted = act(&|| looks(2));
        looks(SAMPLES);
        done.store(true, SeqCst);
        let longest = watch.join().expect("the watch does not panic")?;
        acted?;
        say!("{longest:?}");
        ensure!(longest.excess <= patience + LOOKS * longest.look, "too many were counted for long: {longest:?}");
        Ok(samples.load(SeqCst))
    })
}

#[test]
fn a_place_is_given_back_however_a_connection_is_closed() -> Result<()> {
    needs_root!();
    let ways: [(&str, Close); 6] = [
        ("the client closes first", |client, server, look| {
            drop(client);
            look();
            drop(server);
            Ok(())
        }),
        ("the server closes first", |client, server, look| {
            drop(server);
            look();
            drop(client);
            Ok(())
        }),
        ("the client has said all", |client, _, look| {
            client.shutdown(Shutdown::Write)?;
            look();
            Ok(())
        }),
        ("the server has said all", |_, server, look| {
            server.shutdown(Shutdown::Write)?;
            look();
            Ok(())
        }),
        ("the client resets", |client, _, _| reset_on_close(&client)),
        ("the server resets", |_, server, _| reset_on_close(&server)),
    ];
    for (way, close) in ways {
        let (host, listener, clients, servers) = connected(20)?;
        let port = listener.local_addr()?.port();
        let samples = throughout(&host, port, |look| {
            for (client, server) in clients.into_iter().zip(servers) {
                close(client, server, look)?;
                look();
            }
            counts_nothing(&host, port)
        });
        say!("{way}: the count was what the sockets were in {} samples", samples.context(way)?);
    }
    Ok(())
}

#[test]
fn a_place_is_given_back_when_the_kernel_is_told_to_kill_the_socket() -> Result<()> {
    needs_root!();
    let (host, listener, mut clients, servers) = connected(3)?;
    let port = listener.local_addr()?.port();
    // Open, left by its client, and left by its server.
    clients[1].shutdown(Shutdown::Write)?;
    servers[2].shutdown(Shutdown::Write)?;
    let all = ["established", "close-wait", "fin-wait-2"];
    for state in all {
        eventually(&1, || in_states(&host.wire.far, port, &[state]))?;
    }
    throughout(&host, port, |look| {
        for state in all {
            let filter = format!("( sport = :{port} )");
            machine::run(host.wire.far.command("ss").args(["-K", "-t", "state", state, &filter]))?;
            look();
        }
        clients.clear();
        counts_nothing(&host, port)
    })
    .map(drop)
}

#[test]
fn a_place_is_given_back_when_the_server_is_killed() -> Result<()> {
    needs_root!();
    let (host, listener, _clients, servers) = connected(3)?;
    // A process of its own that holds the server's ends, and nobody else does.
    for server in &servers {
        rustix::io::fcntl_setfd(server, rustix::io::FdFlags::empty())?;
    }
    let mut process = Command::new("sleep").arg("600").spawn().context("start a process")?;
    drop(servers);
    eventually(&(3, 3), || Ok((sockets(&host.wire.far, listener.local_addr()?.port(), None)?, host.open(0))))?;
    let port = listener.local_addr()?.port();
    throughout(&host, port, |_| {
        process.kill()?;
        process.wait()?;
        counts_nothing(&host, port)
    })
    .map(drop)
}

/// Has a client vanish without a word, and waits until the kernel has given it up, which it does after one try.
fn vanishes(server: fn(&mut TcpStream) -> std::io::Result<()>) -> Result<()> {
    let (host, listener, _clients, mut servers) = connected(3)?;
    host.wire.far.enter(|| std::fs::write("/proc/sys/net/ipv4/tcp_retries2", "1"))??;
    let port = listener.local_addr()?.port();
    throughout(&host, port, |look| {
        host.wire.near.ip(&["link", "set", NEAR, "down"])?;
        servers.iter_mut().try_for_each(server)?;
        look();
        counts_nothing(&host, port)
    })
    .map(drop)
}

#[test]
fn a_place_is_given_back_when_the_client_has_vanished() -> Result<()> {
    needs_root!();
    // While there is something to tell it, while the server only asks whether it is there, and when that has said its end.
    vanishes(|server| server.write_all(b"is anybody there?"))?;
    vanishes(|server| {
        rustix::net::sockopt::set_socket_keepalive(&*server, true)?;
        rustix::net::sockopt::set_tcp_keepidle(&*server, Duration::from_secs(1))?;
        rustix::net::sockopt::set_tcp_keepintvl(&*server, Duration::from_secs(1))?;
        Ok(rustix::net::sockopt::set_tcp_keepcnt(&*server, 1)?)
    })?;
    vanishes(|server| server.shutdown(Shutdown::Write))
}

#[test]
fn a_handshake_that_is_never_completed_takes_no_place() -> Result<()> {
    needs_root!();
    let (host, listener, clients, servers) = connected(1)?;
    let port = listener.local_addr()?.port();
    let frame =
        |source_port: u16, flags: u8| Frame::from("10.98.77.1").to(FAR_V4).tcp(source_port, port, flags).bytes();
    // SYNs of somebody who does not exist, then acknowledgements of numbers that nobody has said.
    let frames: Vec<Vec<u8>> =
        (1..200).map(|n| frame(n, tcp::SYN)).chain((1..200).map(|n| frame(n, tcp::ACK))).collect();
    let before = host.wire.received()?;
    throughout(&host, port, |look| {
        host.wire.near.enter(|| send_raw(NEAR, frames.iter().map(Vec::as_slice)))??;
        eventually(&true, || Ok(host.wire.received()? >= before + frames.len() as u64))?;
        look();
        ensure!((host.open(0), host.connections()?) == (1, 1));
        drop((clients, servers));
        eventually(&0, || Ok(host.open(0)))
    })
    .map(drop)
}

#[test]
fn what_finds_the_accept_queue_full_is_counted_as_the_kernel_counts_it() -> Result<()> {
    needs_root!();
    let mut host = Host::new()?;
    let listener = host.listen_with(FAR_V4, 1)?;
    let port = listener.local_addr()?.port();
    host.limit(port, &[LIMIT])?;
    let to = SocketAddr::new(address(FAR_V4), port);
    let near = host.wire.near.entry()?;
    let connect = || -> Result<Vec<TcpStream>> {
        near.enter()?;
        Ok((0..6).filter_map(|_| TcpStream::connect_timeout(&to, Duration::from_millis(500)).ok()).collect())
    };
    let agreed = || -> Result<bool> {
        host.reconcile()?;
        Ok(sockets(&host.wire.far, port, None)? == host.open(0))
    };
    // Who only believes that it is connected says its end too, and takes a place for as long as a socket may come of that.
    throughout_within(&host, port, 2 * Duration::from_nanos(ENTERS_WITHIN), |look| {
        // Nobody accepts: two find room, and others can at most believe that they are connected.
        let clients = thread::scope(|scope| {
            let connecting = scope.spawn(connect);
            while !connecting.is_finished() {
                host.reconcile()?;
                thread::sleep(Duration::from_millis(20));
            }
            connecting.join().expect("no client panics")
        })?;
        eventually(&true, agreed)?;
        ensure!(host.open(0) == 2, "{} are open", host.open(0));
        drop(clients);
        look();
        drop(listener);
        eventually(&true, || Ok(agreed()? && host.open(0) == 0))
    })
    .map(drop)
}

#[test]
fn sockets_older_than_the_limit_or_the_agent_are_counted_and_no_foreign_ones() -> Result<()> {
    needs_root!();
    let mut host = Host::new()?;
    let listener = host.listen(FAR_V4)?;
    let port = listener.local_addr()?.port();
    let to = SocketAddr::new(address(FAR_V4), port);
    let mut open = vec![(host.connect(None, to)??, listener.accept()?)];
    host.limit(port, &["concurrent = 3\naction = \"reject\"\nsources = 300"])?;
    ensure!(host.open(0) == 1, "the one that was there before the limit");
    // A second pair of hosts with the same addresses and ports.
    let twin = Wire::new()?;
    let foreign = twin.far.enter(|| TcpListener::bind(SocketAddr::new(address(FAR_V4), port)))??;
    let foreigner = twin.near.enter(|| connect_from(address(NEAR_V4), to))??;
    let _accepted = foreign.accept()?;
    ensure!(host.open(0) == 1, "a connection in another namespace");
    // The agent is killed; one connection comes, one goes.
    let mut host = host.restart(|wire| {
        open.push((wire.near.enter(|| connect_from(address(NEAR_V4), to))??, listener.accept()?));
        drop(open.remove(0));
        Ok(())
    })?;
    eventually(&1, || Ok(host.open(0)))?;
    ensure!(host.reconcile()? == throttle_agent::datapath::Drift::default(), "the programs saw both");
    // Other limits come and go, and the count follows.
    host.limit(port, &["concurrent = 2\naction = \"reject\"\nsources = 600"])?;
    ensure!(host.open(0) == 1, "its room has changed");
    host.limit(port, &[])?;
    ensure!(host.connections()? == 0, "nobody counts");
    host.limit(port, &["concurrent = 3\naction = \"reject\"\nsources = 300"])?;
    ensure!(host.open(0) == 1);
    drop((open, foreigner));
    eventually(&0, || Ok(host.open(0)))
}
