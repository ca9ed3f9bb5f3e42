//! Resets of forwarded connections: only one that the server heeds gives the place back.

use super::{
    eventually,
    router::{Router, Way},
};
use anyhow::{Result, ensure};
use std::ops::Range;
use throttle_agent::datapath::Drift;
use throttle_common::packet::tcp;
use throttle_tests::{
    machine::egresses,
    needs_root,
    stranger::{FIRST, Stranger},
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
        // What is answered after them was seen after them.
        stranger.asks(&(PORTS.end..=PORTS.end))?;
        let all = PORTS.len() as u64;
        ensure!(
            (router.served()?, router.host.open(0)) == (all, all),
            "{egress:?}, {way:?}: {} are open",
            router.host.open(0)
        );
        ensure!(router.host.reconcile()? == Drift::default());
        for port in PORTS {
            stranger.says(port, [FIRST + 1, 0], tcp::RST, 0)?;
        }
        eventually(&(0, 0), || Ok((router.served()?, router.host.open(0))))?;
        ensure!(router.host.reconcile()? == Drift::default() && router.host.connections()? == 0);
    }
    Ok(())
}
