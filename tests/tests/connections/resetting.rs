//! Resets of forwarded connections: only one that the server heeds gives the place back.

use super::{
    eventually,
    router::{Router, Way},
};
use anyhow::{Context as _, Result, ensure};
use std::ops::Range;
use throttle_agent::datapath::Drift;
use throttle_common::packet::tcp;
use throttle_tests::{
    machine::egresses,
    needs_root,
    stranger::{FIRST, Stranger, damaged},
};

const SOURCE: &str = "10.98.77.1";
const PORTS: Range<u16> = 1024..1034;

/// A stranger with connections through a router, to a server that says nothing.
fn connected(router: &Router) -> Result<Stranger> {
    let stranger = Stranger::new(&router.host.wire, SOURCE, router.to)?;
    for (port, answer) in stranger.asks(&PORTS)? {
        stranger.completes(port, answer)?;
    }
    let all = PORTS.len() as u64;
    eventually(&(all, all), || Ok((router.served()?, router.host.open(0))))?;
    Ok(stranger)
}

/// Makes sure that all connections are open, and all of them hold places, when what was sent before has arrived.
fn holds_all(router: &Router, stranger: &Stranger) -> Result<()> {
    // What is answered after it was seen after it.
    stranger.asks(&(PORTS.end..=PORTS.end))?;
    let (all, found) = (PORTS.len() as u64, (router.served()?, router.host.open(0)));
    ensure!(found == (all, all), "{} are open, {} hold places", found.0, found.1);
    ensure!(router.host.reconcile()? == Drift::default());
    Ok(())
}

#[test]
fn a_reset_that_the_server_ignores_gives_no_place_back_and_the_right_one_does() -> Result<()> {
    needs_root!();
    let ways = [Way::Route, Way::Translate];
    for (egress, way) in egresses().into_iter().flat_map(|egress| ways.map(|way| (egress, way))) {
        let Some(mut router) = Router::new(egress, way)? else { continue };
        router.limit(1000)?;
        let stranger = connected(&router)?;
        for port in PORTS {
            // Old, within the window, and far outside.
            for number in [FIRST, FIRST + 2, FIRST + 1000, FIRST.wrapping_sub(70_000), 0x1234_5678] {
                stranger.says(port, [number, 0], tcp::RST, 0)?;
            }
        }
        // The very byte, by what gets lost on its way or is not taken for a segment at all.
        for port in PORTS {
            let reset = stranger.frame(port, [FIRST + 1, 0], tcp::RST);
            let [sound, mut header, mut group] = [(); 3].map(|()| reset.bytes());
            // The IP header's checksum.
            header[14 + 10] ^= 0x55;
            group[..6].fill(0xff);
            for lost in [damaged(sound), header, group, reset.hops(1).bytes()] {
                stranger.send(&lost)?;
            }
        }
        holds_all(&router, &stranger).with_context(|| format!("{egress:?}, {way:?}"))?;
        // What stands before this byte was acknowledged with the handshake.
        for port in PORTS {
            stranger.says(port, [FIRST + 1, 0], tcp::RST, 0)?;
        }
        eventually(&(0, 0), || Ok((router.served()?, router.host.open(0))))?;
        ensure!(router.host.reconcile()? == Drift::default() && router.host.connections()? == 0);
    }
    Ok(())
}
