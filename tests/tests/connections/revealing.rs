//! Forwarded connections that nobody saw open: they are counted when the source acknowledges what it is served, and refuse
//! others until they are fewer.

use super::{
    eventually,
    fast_sockets::take_fast,
    forwarding::{MOMENTS, reset_on_close},
    router::{Router, Way},
};
use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
};
use throttle_agent::datapath::{Drift, Egress};
use throttle_common::packet::tcp;
use throttle_tests::{
    machine::egresses,
    needs_root,
    stranger::{FIRST, Stranger, damaged},
};

const SOURCE: &str = "10.98.77.1";
const PORTS: Range<u16> = 1024..1032;
/// How many a source may have: fewer than it opens.
const ALLOWED: u64 = 5;

/// How connections open unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// The server keeps no requests, has answered two SYNs on the same ports, and the first answer is acknowledged.
    Twice,
    /// The server's answers are overwritten by others before they are acknowledged.
    Overwritten,
    /// The server has served data before the handshake completes.
    Fast,
}

impl Opening {
    /// Has a stranger open connections; gives the number of what it says next.
    fn open(self, router: &Router, stranger: &Stranger) -> Result<u32> {
        let complete = |answers: BTreeMap<u16, u32>| {
            PORTS.into_iter().try_for_each(|port| stranger.completes(port, answers[&port]))?;
            Ok(FIRST + 1)
        };
        match self {
            Self::Twice => {
                set(router, "tcp_syncookies", "2")?;
                let answers = stranger.asks(&PORTS)?;
                stranger.asks_by(FIRST + 1_000_000, &PORTS)?;
                complete(answers)
            }
            Self::Overwritten => {
                // It does not answer again.
                set(router, "tcp_syncookies", "2")?;
                let answers = stranger.asks(&PORTS)?;
                router.host.overwrite_answers()?;
                complete(answers)
            }
            Self::Fast => {
                // Without a cookie.
                set(router, "tcp_fastopen", "515")?;
                take_fast(&router.listener, 1000)?;
                PORTS.into_iter().try_for_each(|port| stranger.says(port, [FIRST, 0], tcp::SYN, 1))?;
                Ok(FIRST + 2)
            }
        }
    }
}

/// Sets what the server's kernel does.
pub(super) fn set(router: &Router, name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv4/{name}");
    router.server.enter(|| std::fs::write(&path, value))?.context(path)
}

#[test]
fn what_opens_unseen_is_counted_once_it_is_served_and_others_are_refused_until_it_is_less() -> Result<()> {
    needs_root!();
    for egress in egresses() {
        for opening in [Opening::Twice, Opening::Overwritten, Opening::Fast] {
            opened_unseen(egress, opening).with_context(|| format!("{egress}, {opening:?}"))?;
        }
    }
    Ok(())
}

fn opened_unseen(egress: Egress, opening: Opening) -> Result<()> {
    let Some(mut router) = Router::new(egress, Way::Route)? else { return Ok(()) };
    router.limit(ALLOWED as u32)?;
    let stranger = Stranger::new(&router.host.wire, SOURCE, router.to)?;
    let all = PORTS.len() as u64;
    // Where what a source asks for is doubted, every SYN passes as long as fewer are open than may be.
    stranger.says(9, [FIRST, 0], tcp::SYN, 0)?;
    thread::sleep(MOMENTS);
    let next = opening.open(&router, &stranger)?;
    let accept = || {
        let (server, _) = router.listener.accept()?;
        server.set_nodelay(true).map(|()| server)
    };
    let mut servers = (0..all).map(|_| accept()).collect::<std::io::Result<Vec<_>>>()?;
    ensure!(router.host.open(0) == 0, "{} were seen to open", router.host.open(0));
    let say = |servers: &mut [TcpStream]| servers.iter_mut().try_for_each(|server| server.write_all(b"!"));
    say(&mut servers)?;
    let served = stranger.is_served(&PORTS)?;
    // More is on its way when the source acknowledges this.
    say(&mut servers)?;
    stranger.is_served(&PORTS)?;
    // Who does not know the number has not been served, and who lies ahead of it hides nothing of what it acknowledges then.
    for (port, number) in &served {
        for other in [number.wrapping_sub(1), number.wrapping_add(1 << 20), number.wrapping_add(1 << 30)] {
            stranger.says(*port, [next, other], tcp::ACK, 0)?;
        }
    }
    stranger.asks(&(PORTS.end..=PORTS.end))?;
    ensure!(router.host.open(0) == 0, "{} are counted", router.host.open(0));
    served.iter().try_for_each(|(port, number)| stranger.says(*port, [next, *number], tcp::ACK, 0))?;
    eventually(&(all, all), || Ok((router.served()?, router.host.open(0))))?;
    ensure!(router.host.reconcile()? == Drift::default() && router.host.open(0) == all);
    let refused = router.host.tally(0)?.refused.packets;
    stranger.says(PORTS.end + 1, [FIRST, 0], tcp::SYN, 0)?;
    eventually(&(refused + 1), || Ok(router.host.tally(0)?.refused.packets))?;
    // None of them is refused anything; and what the server says next says what it waits for.
    for (server, port) in servers.iter_mut().zip(PORTS) {
        stranger.says(port, [next, served[&port].wrapping_add(1)], tcp::ACK, 0)?;
        server.write_all(b"?")?;
    }
    stranger.is_served(&PORTS)?;
    let left = PORTS.start + ALLOWED as u16 - 1..PORTS.end;
    left.into_iter().try_for_each(|port| stranger.says(port, [next, 0], tcp::RST, 0))?;
    eventually(&(ALLOWED - 1, ALLOWED - 1), || Ok((router.served()?, router.host.open(0))))?;
    for (port, answer) in stranger.asks(&(PORTS.end..=PORTS.end))? {
        stranger.completes(port, answer)?;
    }
    eventually(&ALLOWED, || Ok(router.host.open(0)))
}

#[test]
fn what_was_open_before_the_limit_is_counted_when_it_is_served_and_nothing_of_it_breaks() -> Result<()> {
    needs_root!();
    for (egress, way) in egresses().into_iter().flat_map(|egress| [Way::Route, Way::RouteV6].map(|way| (egress, way))) {
        open_before(egress, way).with_context(|| format!("{egress}, {way:?}"))?;
    }
    Ok(())
}

fn open_before(egress: Egress, way: Way) -> Result<()> {
    let Some(mut router) = Router::new(egress, way)? else { return Ok(()) };
    let mut open = PORTS.map(|_| router.connect()).collect::<Result<Vec<_>>>()?;
    router.limit(ALLOWED as u32)?;
    ensure!(router.host.open(0) == 0, "nothing was served yet");
    for (count, (client, server)) in (1..).zip(&mut open) {
        client.read_exact(&mut [0])?;
        talk(client, server)?;
        eventually(&count, || Ok(router.host.open(0)))?;
    }
    while open.len() as u64 >= ALLOWED {
        let found = router.host.connect(None, router.to)?.err().map(|error| error.kind());
        ensure!(found == Some(ErrorKind::ConnectionRefused), "one more than {} met {found:?}", open.len());
        open.iter_mut().try_for_each(|(client, server)| talk(client, server))?;
        let (client, mut server) = open.pop().context("several are open")?;
        reset_on_close(&client)?;
        drop(client);
        ensure!(server.read(&mut [0]).is_err(), "it was reset");
        eventually(&(open.len() as u64), || Ok(router.host.open(0)))?;
    }
    ensure!(router.host.reconcile()? == Drift::default());
    let _another = router.connect()?;
    eventually(&ALLOWED, || Ok(router.host.open(0)))
}

/// A word from each end, which the other hears.
pub(super) fn talk(client: &mut TcpStream, server: &mut TcpStream) -> Result<()> {
    client.write_all(b"?")?;
    server.read_exact(&mut [0])?;
    // This acknowledges the other.
    server.write_all(b"!")?;
    Ok(client.read_exact(&mut [0])?)
}

#[test]
fn a_download_that_began_before_the_limit_is_counted_while_it_lasts() -> Result<()> {
    needs_root!();
    for egress in egresses() {
        let Some(mut router) = Router::new(egress, Way::Route)? else { continue };
        let (mut client, mut server) = router.connect()?;
        let (done, read) = (AtomicBool::new(false), AtomicU64::new(0));
        let counted = thread::scope(|scope| {
            scope.spawn(|| {
                let bytes = vec![0; 1 << 20];
                while !done.load(SeqCst) {
                    server.write_all(&bytes)?;
                }
                server.shutdown(Shutdown::Write)
            });
            scope.spawn(|| {
                let mut bytes = vec![0; 1 << 20];
                while let Ok(more @ 1..) = client.read(&mut bytes) {
                    read.fetch_add(more as u64, SeqCst);
                }
            });
            // It is well under way.
            let counted = eventually(&true, || Ok(read.load(SeqCst) > 1 << 24))
                .and_then(|()| router.limit(ALLOWED as u32))
                .and_then(|()| eventually(&1, || Ok(router.host.open(0))));
            done.store(true, SeqCst);
            counted
        });
        counted.with_context(|| egress.to_string())?;
    }
    Ok(())
}

#[test]
fn what_is_sent_again_to_a_source_that_has_closed_holds_no_place() -> Result<()> {
    needs_root!();
    for egress in egresses() {
        let Some(mut router) = Router::new(egress, Way::Route)? else { continue };
        router.limit(ALLOWED as u32)?;
        // What is sent again comes piece by piece, the end behind it.
        set(&router, "tcp_retrans_collapse", "0")?;
        let stranger = Stranger::new(&router.host.wire, SOURCE, router.to)?;
        let ports = PORTS.start..=PORTS.start;
        for (port, answer) in stranger.asks(&ports)? {
            stranger.completes(port, answer)?;
            let mut server = router.listener.accept()?.0;
            eventually(&1, || Ok(router.host.open(0)))?;
            server.write_all(b"!")?;
            let heard = stranger.is_served(&ports)?[&port];
            server.shutdown(Shutdown::Write)?;
            stranger.says(port, [FIRST + 1, answer.wrapping_add(1)], tcp::ACK | tcp::FIN, 0)?;
            server.read_to_end(&mut Vec::new())?;
            // It has heard all, and the server does not hear that.
            let last = stranger.frame(port, [FIRST + 2, heard.wrapping_add(1)], tcp::ACK).bytes();
            stranger.send(&damaged(last.clone()))?;
            eventually(&0, || Ok(router.host.open(0)))?;
            for _ in 0..2 {
                stranger.is_served(&ports).context("sent again")?;
            }
            stranger.send(&last)?;
            // What is answered after it was seen after it.
            stranger.asks(&(PORTS.end..=PORTS.end))?;
            ensure!(router.host.connections()? == 0, "{egress}: a place for nothing");
        }
    }
    Ok(())
}
