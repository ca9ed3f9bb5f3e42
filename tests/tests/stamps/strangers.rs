//! Somebody on the way, who has no key: what they record, change and make up changes nothing and is counted.

use super::*;
use std::net::UdpSocket;
use throttle_tests::{machine, needs_root, recorder::Recorder, say};

/// Bytes of a datagram before what is sealed: the format's name, the key's number, a salt, the session and the number.
const KEY: usize = 4;
const SALT: usize = 12;

impl Stamp<'_> {
    /// Records what a host sends to another's port.
    fn record(&self, from: usize, time: Duration) -> Result<Vec<Vec<u8>>> {
        let uplink = self.ground.hosts[from].interface();
        let recorded = Recorder::at(&self.ground.router, &uplink)?.record(PORT, time)?;
        ensure!(recorded.len() > 5, "{} datagrams in {time:?}", recorded.len());
        Ok(recorded)
    }

    /// Sends datagrams to a host, from the router.
    fn send(&self, to: usize, datagrams: &[Vec<u8>]) -> Result<()> {
        let to = self.ground.gossip(to);
        self.ground.router.enter(|| -> Result<()> {
            let socket = UdpSocket::bind(("0.0.0.0", 0))?;
            for datagram in datagrams {
                socket.send_to(datagram, to)?;
                // No more than a socket has room for.
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        })?
    }

    /// Waits until a host has refused at least so many datagrams for a reason.
    fn until_refused(&self, host: usize, reason: &str, least: u64) -> Result<()> {
        self.until(host, reason, |view| {
            view.datagrams.refused.iter().any(|it| it.reason == reason && it.datagrams >= least)
        })?;
        Ok(())
    }
}

#[test]
fn what_is_replayed_forged_or_garbage_changes_nothing_and_is_counted() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let stamp = Stamp::running(&ground)?;
    let before = stamp.changes(0)?;
    // Of what b sends, some is for a and some for c.
    let recorded = stamp.record(1, Duration::from_secs(3))?;
    let count = recorded.len() as u64;
    let longest = recorded.iter().map(Vec::len).max().unwrap_or_default();
    let changed = |at: usize| -> Vec<Vec<u8>> {
        let change = |datagram: &Vec<u8>| {
            let mut datagram = datagram.clone();
            datagram[at] ^= 0x40;
            datagram
        };
        recorded.iter().map(change).collect()
    };
    let tails: Vec<_> = recorded.iter().map(|it| it[..it.len() - 1].to_vec()).collect();
    let garbage: Vec<Vec<u8>> =
        (0..200_u64).map(|n| (0..n * 7).map(|byte| ((byte * n) >> 3) as u8).collect()).collect();
    // What was for a it has had; what was for c is not for it.
    stamp.send(0, &recorded)?;
    stamp.until_refused(0, "replayed", 3)?;
    stamp.until_refused(0, "unaddressed", 3)?;
    stamp.send(0, &changed(KEY))?;
    stamp.until_refused(0, "unknown-key", count)?;
    stamp.send(0, &changed(SALT))?;
    stamp.send(0, &tails)?;
    stamp.until_refused(0, "forged", 2 * count)?;
    stamp.send(0, &garbage)?;
    stamp.until_refused(0, "malformed", garbage.len() as u64)?;
    thread::sleep(Duration::from_secs(1));
    let view = stamp.view(0)?;
    ensure!((0..3).all(|host| is(&view, host, "alive")) && view.warnings.is_empty(), "{view:#?}");
    ensure!(stamp.changes(0)? == before, "{:?} were {before:?}", stamp.changes(0)?);
    let refused: Vec<_> = view.datagrams.refused.iter().map(|it| format!("{} {}", it.datagrams, it.reason)).collect();
    say!("stamps: {} datagrams of somebody else's changed nothing: {}", 4 * count + 200, refused.join(", "));
    say!("stamps: a host of three sends {:.0} datagrams a second, of at most {longest} bytes", count as f64 / 3.0);
    Ok(())
}

#[test]
fn a_recording_of_a_dead_host_does_not_bring_it_back() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let mut stamp = Stamp::running(&ground)?;
    let recorded = stamp.record(2, Duration::from_secs(3))?;
    stamp.take(2)?.kill()?;
    stamp.until(0, "it is dead", |view| is(view, 2, "dead"))?;
    let replay = |stamp: &Stamp<'_>, seen_by: usize| -> Result<()> {
        for _ in 0..5 {
            stamp.send(seen_by, &recorded)?;
            let view = stamp.view(seen_by)?;
            ensure!(!is(&view, 2, "alive") && !is(&view, 2, "suspect"), "{view:#?}");
        }
        Ok(())
    };
    replay(&stamp, 0)?;
    replay(&stamp, 1)?;
    // Not even where nobody remembers what came.
    stamp.take(0)?.kill()?;
    stamp.start(0, &[])?;
    replay(&stamp, 0)?;
    stamp.until_refused(0, "unaddressed", recorded.len() as u64)
}
