//! Connections by the hundred thousand, with random endings, while agents come and go.

use super::{
    address, eventually,
    host::{Host, sockets},
};
use anyhow::{Context as _, Result, ensure};
use std::{
    io::Read as _,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};
use throttle_tests::{
    clients::connect_from,
    kernel, machine, needs_root, say,
    wire::{FAR_V4, NEAR, Wire},
};

/// Connections, unless `THROTTLE_TESTS_CONNECTIONS` says how many.
const CONNECTIONS: u64 = 60_000;
const CALLERS: u64 = 12;
/// Addresses that they come from.
const SOURCES: u8 = 16;
/// Nobody waits longer for the other end to close first.
const WAIT: Duration = Duration::from_millis(1);

#[test]
fn no_place_is_lost_or_found_in_a_great_many_connections() -> Result<()> {
    needs_root!();
    let _machine = machine::alone();
    let wanted = match std::env::var("THROTTLE_TESTS_CONNECTIONS") {
        Ok(text) => text.parse().context("THROTTLE_TESTS_CONNECTIONS")?,
        Err(_) => CONNECTIONS,
    };
    let mut host = Host::new()?;
    for source in 1..=SOURCES {
        host.wire.near.ip(&["address", "add", &format!("10.98.2.{source}/16"), "dev", NEAR])?;
    }
    for end in [&host.wire.near, &host.wire.far] {
        // Ports must not run out: what is left of closed connections is soon forgotten.
        end.enter(|| std::fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "256"))??;
    }
    let listener = host.listen_deep(FAR_V4)?;
    let port = listener.local_addr()?.port();
    host.limit(port, &["concurrent = 2000\nsources = 3000", "concurrent = 20000\nper = \"service\""])?;
    let to = SocketAddr::new(address(FAR_V4), port);
    let (made, failed, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let near = (0..CALLERS).map(|_| host.wire.near.entry()).collect::<Result<Vec<_>>>()?;
    let host = thread::scope(|scope| -> Result<Host> {
        let servers = [0, 1, 2, 3].map(|seed| {
            scope.spawn({
                let (listener, done) = (&listener, &done);
                move || serve(listener, done, seed)
            })
        });
        let (made, failed) = (&made, &failed);
        let callers: Vec<_> = (0..)
            .zip(near)
            .map(|(caller, near)| {
                scope.spawn(move || {
                    near.enter()?;
                    call(to, caller, wanted / CALLERS, made, failed);
                    anyhow::Ok(())
                })
            })
            .collect();
        // Killed in the middle, and again while nobody counts the sockets from outside.
        let reached =
            |share: u64| move || Ok(made.load(Ordering::SeqCst) + failed.load(Ordering::SeqCst) >= wanted * share / 3);
        let rest = |_: &Wire| {
            thread::sleep(Duration::from_millis(300));
            Ok(())
        };
        super::wait_for(reached(1))?;
        let host = host.restart(rest)?;
        super::wait_for(reached(2))?;
        let host = host.restart(rest)?;
        callers.into_iter().try_for_each(|caller| caller.join().expect("no caller panics"))?;
        done.store(true, Ordering::SeqCst);
        servers.into_iter().try_for_each(|server| server.join().expect("no server panics"))?;
        Ok(host)
    })?;
    drop(listener);
    eventually(&0, || sockets(&host.wire.far, port, None))?;
    let left = || Ok((host.open(0), host.open(1), host.connections()?));
    let (before, drift) = (left()?, host.reconcile()?);
    say!(
        "{} connections, {} more refused: {before:?} places and connections left, mended {drift:?}",
        made.into_inner(),
        failed.into_inner()
    );
    // As the agent does every second: what completed its handshake and got no socket is given its time.
    eventually(&(0, 0, 0), || host.reconcile().and_then(|_| left()))?;
    // A few in 60 000 are missed, where the kernel does not call a program that is running on the same CPU already: that is
    // what mending is for.
    ensure!(drift.closed + drift.open <= wanted / 1_000, "{drift:?}");
    Ok(())
}

/// What an end does to a connection.
fn end(mut stream: TcpStream, dice: u64) {
    let mut rest = [0; 16];
    // Whoever was faster has left an error, which is an ending too.
    let _ = match dice % 4 {
        0 => Ok(()),
        1 => rustix::net::sockopt::set_socket_linger(stream.as_fd(), Some(Duration::ZERO)).map_err(Into::into),
        2 => stream.set_read_timeout(Some(WAIT)).and_then(|()| stream.read(&mut rest).map(drop)),
        _ => stream
            .shutdown(Shutdown::Write)
            .and_then(|()| stream.set_read_timeout(Some(WAIT)))
            .and_then(|()| stream.read(&mut rest).map(drop)),
    };
}

fn call(to: SocketAddr, caller: u64, count: u64, made: &AtomicU64, failed: &AtomicU64) {
    let mut dice = 0x2545_f491_4f6c_dd1d ^ caller;
    for _ in 0..count {
        dice = kernel::xorshift(dice);
        let source = format!("10.98.2.{}", 1 + (dice >> 16) % u64::from(SOURCES));
        match connect_from(address(&source), to) {
            Ok(stream) => {
                end(stream, dice >> 32);
                made.fetch_add(1, Ordering::SeqCst);
            }
            Err(_) => _ = failed.fetch_add(1, Ordering::SeqCst),
        }
    }
}

fn serve(listener: &TcpListener, done: &AtomicBool, seed: u64) -> Result<()> {
    listener.set_nonblocking(true)?;
    let mut dice = 0x9e37_79b9_7f4a_7c15 ^ seed;
    while !done.load(Ordering::SeqCst) {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_micros(200));
            continue;
        };
        dice = kernel::xorshift(dice);
        stream.set_nonblocking(false)?;
        end(stream, dice >> 32);
    }
    Ok(())
}
