//! What the agent mends is what was missed, and nothing else.

use super::{
    address, eventually,
    host::{Host, sockets},
};
use anyhow::{Result, ensure};
use std::{
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::Duration,
};
use throttle_agent::datapath::Drift;
use throttle_tests::{
    clients::reset,
    machine, needs_root, policies, say,
    wire::{FAR, FAR_V4, NEAR, NEAR_V4},
};

const CALLERS: u64 = 6;
/// How often each of them calls.
const CALLS: u64 = 1_500;
/// Connections that open at about the same time, and how often, where one more may be open.
const MANY: u64 = 200;
const TIMES: usize = 30;

#[test]
fn connections_that_close_while_they_are_listed_are_not_found_again() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let mut host = Host::new()?;
    let listener = host.listen_deep(FAR_V4)?;
    let port = listener.local_addr()?.port();
    let to = SocketAddr::new(address(FAR_V4), port);
    // Far more than are ever open: of each caller its last ones, whose ends wait on other CPUs than its next call comes by.
    host.limit(port, &["concurrent = 48\naction = \"reject\"\nsources = 300"])?;
    let entries = (0..CALLERS).map(|_| host.wire.near.entry()).collect::<Result<Vec<_>>>()?;
    let (calling, refused) = (AtomicU64::new(CALLERS), AtomicU64::new(0));
    let (mut drift, mut rounds) = (Drift::default(), 0);
    thread::scope(|scope| -> Result<()> {
        let server = scope.spawn(|| hang_up(&listener, &calling));
        let callers = entries.into_iter().map(|entry| {
            scope.spawn({
                let (calling, refused) = (&calling, &refused);
                move || {
                    let called = entry.enter().map(|()| call(to, refused));
                    calling.fetch_sub(1, SeqCst);
                    called
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        while calling.load(SeqCst) > 0 {
            let Drift { closed, open, idle } = host.reconcile()?;
            (drift.closed, drift.open, drift.idle) = (drift.closed + closed, drift.open + open, drift.idle + idle);
            rounds += 1;
        }
        callers.into_iter().try_for_each(|caller| caller.join().expect("no caller panics"))?;
        server.join().expect("the server does not panic")
    })?;
    say!("{} connections while the count was held against the sockets {rounds} times: {drift:?}", CALLERS * CALLS);
    let refused = refused.into_inner();
    ensure!(drift.open == 0 && refused == 0, "{drift:?}, {refused} refused");
    eventually(&0, || sockets(&host.wire.far, port, None))?;
    host.reconcile()?;
    ensure!((host.open(0), host.connections()?) == (0, 0), "{} are counted when all are closed", host.open(0));
    Ok(())
}

#[test]
fn places_given_back_to_a_limit_that_has_gone_are_missing_under_none_that_comes_after() -> Result<()> {
    needs_root!();
    let mut host = Host::new()?;
    let listener = host.listen(FAR_V4)?;
    let to = SocketAddr::new(address(FAR_V4), listener.local_addr()?.port());
    // Most of the sources find no place of their own, and share their aggregate's.
    let few = "concurrent = 100\nsources = 4\noverflow = \"aggregate\"\naction = \"reject\"";
    host.limit(to.port(), &[few])?;
    let mut open = Vec::new();
    for source in (1..=12).map(|number| format!("10.98.1.{number}")) {
        host.wire.near.ip(&["address", "add", &format!("{source}/16"), "dev", NEAR])?;
        open.push((host.connect(Some(&source), to)??, listener.accept()?));
    }
    eventually(&12, || Ok(host.open(0)))?;
    // Its part of the table is cleared, given back to, and then another's.
    for (limit, counted) in [("concurrent = 100\nper = \"service\"", 12), (few, 12)] {
        host.limit(to.port(), &[limit])?;
        ensure!(host.open(0) == counted, "{} of {counted} are counted: {limit}", host.open(0));
    }
    drop(open);
    eventually(&0, || Ok(host.open(0)))?;
    ensure!(host.reconcile()? == Drift::default(), "nothing was left to put right");
    Ok(())
}

#[test]
fn what_a_limit_that_has_gone_counted_is_missing_under_none_that_comes_before_the_next_look() -> Result<()> {
    needs_root!();
    let mut host = Host::new()?;
    let listener = host.listen(FAR_V4)?;
    let to = listener.local_addr()?;
    let [few, all] = ["concurrent = 100\nsources = 4", "concurrent = 100\nper = \"service\""]
        .map(|limit| super::policy(to.port(), &[limit]));
    host.put(&few)?;
    let clients = (0..3).map(|_| host.connect(None, to)?.map_err(Into::into)).collect::<Result<Vec<_>>>()?;
    eventually(&3, || host.connections())?;
    // As where the sockets cannot be listed.
    host.switch(&all)?;
    host.switch(&few)?;
    host.reconcile()?;
    ensure!(host.open(0) == 3, "{} are counted", host.open(0));
    drop((clients, listener));
    eventually(&0, || Ok(host.open(0)))
}

#[test]
fn one_more_than_is_open_is_never_refused_while_the_count_is_mended() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let mut host = Host::new()?;
    let listener = host.listen_deep(FAR_V4)?;
    let to = listener.local_addr()?;
    let limit = format!("concurrent = {}\naction = \"reject\"\nsources = 300", MANY + 1);
    host.limit(to.port(), &[&limit])?;
    let (entry, done) = (host.wire.near.entry()?, AtomicBool::new(false));
    let [refused, missed, rounds] = [(); 3].map(|()| AtomicU64::new(0));
    let host = &host;
    thread::scope(|scope| -> Result<()> {
        let mender = scope.spawn(|| -> Result<()> {
            while !done.load(SeqCst) {
                let looked = host.reconcile();
                done.fetch_or(looked.is_err(), SeqCst);
                missed.fetch_add(looked?.open, SeqCst);
                rounds.fetch_add(1, SeqCst);
            }
            Ok(())
        });
        let caller = scope.spawn(|| -> Result<()> {
            entry.enter()?;
            listener.set_nonblocking(true)?;
            for _ in 0..TIMES {
                // They open while the count is held against the sockets, and one more comes and goes until that is done.
                let until = rounds.load(SeqCst) + 2;
                let connect = || -> Result<_> {
                    let client = TcpStream::connect(to)?;
                    ensure!(is_served(&client, &listener)?, "one was refused where many may be open");
                    Ok(client)
                };
                let many = (0..MANY).map(|_| connect()).collect::<Result<Vec<_>>>()?;
                while rounds.load(SeqCst) < until && !done.load(SeqCst) {
                    let Ok(more) = TcpStream::connect(to) else {
                        refused.fetch_add(1, SeqCst);
                        continue;
                    };
                    refused.fetch_add(u64::from(!is_served(&more, &listener)?), SeqCst);
                    reset(more)?;
                    eventually(&true, || Ok(host.open(0) <= MANY))?;
                }
                many.into_iter().try_for_each(reset)?;
                eventually(&0, || Ok(host.open(0)))?;
            }
            Ok(())
        });
        let outcome = caller.join().expect("the caller does not panic");
        done.store(true, SeqCst);
        outcome.and(mender.join().expect("whoever mends does not panic"))
    })?;
    let [refused, missed, rounds] = [refused, missed, rounds].map(AtomicU64::into_inner);
    say!(
        "{TIMES} times {MANY} connections while the count was held against the sockets {rounds} times, {refused} refused"
    );
    ensure!((refused, missed) == (0, 0), "{refused} were refused, {missed} not counted by the programs");
    Ok(())
}

/// Accepts a client; `false` where it is reset instead.
fn is_served(client: &TcpStream, listener: &TcpListener) -> Result<bool> {
    loop {
        match listener.accept() {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if client.take_error()?.is_some() {
                    return Ok(false);
                }
            }
            accepted => return Ok(accepted.map(|_| true)?),
        }
    }
}

#[test]
fn connections_move_along_when_tenants_divide_the_table() -> Result<()> {
    needs_root!();
    let mut host = Host::new()?;
    let listener = host.listen(FAR_V4)?;
    let to = listener.local_addr()?;
    let limit = super::policy(to.port(), &["concurrent = 3\naction = \"reject\"\nsources = 20000"]);
    let tenant = |number: u32| policies::tenant(number, &format!("\"10.{}.0.0/16\"", 90 + number));
    host.put(&limit)?;
    let clients = (0..3).map(|_| host.connect(None, to)?.map_err(Into::into)).collect::<Result<Vec<_>>>()?;
    // Its source is no tenant's, then one of nine tenants', and then no tenant's again.
    for tenants in [1..=7, 1..=9, 1..=1] {
        host.put(&(limit.clone() + &tenants.map(tenant).collect::<String>()))?;
        let (open, refused) = (host.open(0), host.connect(None, to)?.is_err());
        ensure!(open == 3 && refused, "{open} are counted, and one more was refused: {refused}");
    }
    drop((clients, listener));
    eventually(&0, || Ok(host.open(0)))
}

/// Calls, and waits each time until the server has hung up.
fn call(to: SocketAddr, refused: &AtomicU64) {
    for _ in 0..CALLS {
        refused.fetch_add(u64::from(call_once(to).is_err()), SeqCst);
    }
}

fn call_once(to: SocketAddr) -> std::io::Result<usize> {
    TcpStream::connect(to)?.read_to_end(&mut Vec::new())
}

/// Ends every connection at once, as long as somebody calls.
fn hang_up(listener: &TcpListener, calling: &AtomicU64) -> Result<()> {
    listener.set_nonblocking(true)?;
    while calling.load(SeqCst) > 0 {
        if listener.accept().is_err() {
            thread::sleep(Duration::from_micros(100));
        }
    }
    Ok(())
}

#[test]
fn connections_that_this_host_opens_are_nobodys() -> Result<()> {
    needs_root!();
    let mut host = Host::new()?;
    let there = host.wire.near.enter(|| TcpListener::bind((NEAR_V4, 0)))??;
    let to = there.local_addr()?;
    host.put(
        "mode = \"enforce\"\n[[limit]]\nname = \"open-0\"\nunit = \"connections\"\nconcurrent = 3\nsources = 300\n",
    )?;
    let opened =
        host.wire.far.enter(|| (0..5).map(|_| TcpStream::connect(to)).collect::<std::io::Result<Vec<_>>>())??;
    let drift = host.reconcile()?;
    ensure!((drift, host.open(0)) == (Drift::default(), 0), "{drift:?}, {} are counted", host.open(0));
    // Nor do they stand in the way of those that the other host opens.
    let listener = host.listen(FAR_V4)?;
    let here = listener.local_addr()?;
    let client = host.connect(None, here)??;
    eventually(&1, || Ok(host.open(0)))?;
    drop((opened, client));
    Ok(())
}

#[test]
fn sockets_that_are_bound_to_an_interface_are_found_like_any_others() -> Result<()> {
    needs_root!();
    let link_local = |host: &Host| -> Result<Option<SocketAddr>> {
        let listed = machine::run(
            host.wire.far.command("ip").args(["-6", "-o", "address", "show", "dev", FAR, "scope", "link"]),
        )?;
        let Some(found) = listed.split_whitespace().find_map(|word| word.strip_suffix("/64")) else { return Ok(None) };
        let number = std::ffi::CString::new(NEAR)?;
        // SAFETY: a string that ends in a zero.
        let scope = host.wire.near.enter(|| unsafe { libc::if_nametoindex(number.as_ptr()) })?;
        Ok(Some(std::net::SocketAddrV6::new(found.parse()?, 0, 0, scope).into()))
    };
    for local in [false, true] {
        let mut host = Host::new()?;
        let listener = host.listen(if local { "::" } else { FAR_V4 })?;
        let port = listener.local_addr()?.port();
        let mut to = SocketAddr::new(address(FAR_V4), port);
        if local {
            let Some(found) = link_local(&host)? else {
                say!("skipped {local}: the interface has no address of its link");
                continue;
            };
            to = found;
            to.set_port(port);
        } else {
            bind_to(&listener, FAR)?;
        }
        // Older than the limit: only the list of sockets tells of them.
        let clients = (0..3).map(|_| host.connect(None, to)?.map_err(Into::into)).collect::<Result<Vec<_>>>()?;
        host.limit(port, &["concurrent = 9\nsources = 300"])?;
        eventually(&3, || Ok(host.open(0)))?;
        ensure!(host.reconcile()? == Drift::default(), "they stay counted");
        drop((clients, listener));
        eventually(&0, || {
            host.reconcile()?;
            Ok(host.open(0))
        })?;
    }
    Ok(())
}

fn bind_to(listener: &TcpListener, interface: &str) -> Result<()> {
    let (name, length) = (interface.as_ptr().cast(), interface.len() as libc::socklen_t);
    // SAFETY: so many bytes are there, and the descriptor is the listener's.
    let result =
        unsafe { libc::setsockopt(listener.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name, length) };
    ensure!(result == 0, "bind the listener to {interface}: {}", std::io::Error::last_os_error());
    Ok(())
}
