//! Resets of forwarded connections: only one that the server heeds gives the place back.

use super::{
    eventually,
    revealing::set,
    router::{Router, Way},
};
use anyhow::{Context as _, Result, ensure};
use std::{ops::Range, time::Instant};
use throttle_agent::datapath::Drift;
use throttle_common::packet::tcp;
use throttle_tests::{
    machine::egresses,
    needs_root,
    stranger::{FIRST, Stranger, damaged},
    wire::{FAR, FAR_MAC, mac},
};

const SOURCE: &str = "10.98.77.1";
const PORTS: Range<u16> = 1024..1034;
/// Nobody's link-layer address, until somebody gets it.
const OTHER_STATION: [u8; 6] = [0x02, 0, 0, 0, 0x98, 0x77];

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
            let [sound, mut header, mut group, mut other] = [(); 4].map(|()| reset.bytes());
            // The IP header's checksum.
            header[14 + 10] ^= 0x55;
            group[..6].fill(0xff);
            other[..6].copy_from_slice(&OTHER_STATION);
            for lost in [damaged(sound), header, group, other, reset.hops(1).bytes()] {
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

#[test]
fn a_reset_that_only_answers_a_wrong_segment_gives_no_place_back() -> Result<()> {
    needs_root!();
    let ways = [Way::Route, Way::Translate];
    for (egress, way) in egresses().into_iter().flat_map(|egress| ways.map(|way| (egress, way))) {
        let Some(mut router) = Router::new(egress, way)? else { continue };
        router.limit(1000)?;
        let stranger = Stranger::new(&router.host.wire, SOURCE, router.to)?;
        let answers = stranger.asks(&PORTS)?;
        let (all, each) = (PORTS.len() as u64, || answers.iter().map(|(port, answer)| (*port, answer.wrapping_add(1))));
        answers.iter().try_for_each(|(port, answer)| stranger.completes_damaged(*port, *answer))?;
        eventually(&(0, all), || Ok((router.served()?, router.host.open(0))))?;
        // The server, which still waits for the right acknowledgement, resets a wrong one.
        each().try_for_each(|(port, next)| stranger.says(port, [FIRST + 1, next + 1000], tcp::ACK, 0))?;
        stranger.hears_of(&PORTS, tcp::RST)?;
        answers.iter().try_for_each(|(port, answer)| stranger.completes(*port, *answer))?;
        eventually(&all, || router.served())?;
        holds_all(&router, &stranger).with_context(|| format!("{egress:?}, {way:?}"))?;
        if way == Way::Translate {
            // What lies far outside is not translated: the router itself resets it, by the number that it acknowledges.
            each().try_for_each(|(port, next)| stranger.says(port, [FIRST + (1 << 30), next], tcp::ACK, 0))?;
            stranger.hears_of(&PORTS, tcp::RST)?;
            holds_all(&router, &stranger).with_context(|| format!("{egress:?}, untranslated"))?;
        }
    }
    Ok(())
}

#[test]
fn who_resets_what_the_server_has_not_heard_of_opens_it_with_a_place() -> Result<()> {
    needs_root!();
    for egress in egresses() {
        let Some(mut router) = Router::new(egress, Way::Route)? else { continue };
        router.limit(1000)?;
        // The server keeps no requests: it has nothing that could be reset before a cookie comes back.
        set(&router, "tcp_syncookies", "2")?;
        let stranger = Stranger::new(&router.host.wire, SOURCE, router.to)?;
        let (answers, all) = (stranger.asks(&PORTS)?, PORTS.len() as u64);
        answers.iter().try_for_each(|(port, answer)| stranger.completes_damaged(*port, *answer))?;
        eventually(&(0, all), || Ok((router.served()?, router.host.open(0))))?;
        PORTS.into_iter().try_for_each(|port| stranger.says(port, [FIRST + 1, 0], tcp::RST, 0))?;
        eventually(&(0, 0), || Ok((router.served()?, router.host.open(0))))?;
        answers.iter().try_for_each(|(port, answer)| stranger.completes(*port, *answer))?;
        eventually(&all, || router.served())?;
        holds_all(&router, &stranger).with_context(|| egress.to_string())?;
    }
    Ok(())
}

#[test]
fn what_an_interface_is_called_anew_by_is_heeded_and_its_old_address_is_not() -> Result<()> {
    needs_root!();
    let Some(mut router) = Router::new(egresses()[0], Way::Route)? else { return Ok(()) };
    router.limit(1000)?;
    let stranger = connected(&router)?;
    let send = |ports: Range<u16>, station: [u8; 6]| {
        ports.into_iter().try_for_each(|port| {
            let mut reset = stranger.frame(port, [FIRST + 1, 0], tcp::RST).bytes();
            reset[..6].copy_from_slice(&station);
            stranger.send(&reset)
        })
    };
    router.host.wire.far.ip(&["link", "set", FAR, "address", &mac(OTHER_STATION)])?;
    router.host.act(|datapath| datapath.reattach(Instant::now()))?;
    send(PORTS, FAR_MAC)?;
    let (first, rest) = (PORTS.start..PORTS.start + 1, PORTS.start + 1..PORTS.end);
    for (ports, left) in [(first, rest.len() as u64), (rest, 0)] {
        send(ports, OTHER_STATION)?;
        eventually(&(left, left), || Ok((router.served()?, router.host.open(0))))?;
    }
    Ok(())
}
