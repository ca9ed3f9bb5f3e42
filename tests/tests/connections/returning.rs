//! A client that has forgotten its connections and comes back on their ports: what it asks for is not one more.

use super::{
    eventually,
    host::{Host, sockets},
    router::{Router, Way},
};
use anyhow::{Context as _, Result, ensure};
use std::ops::Range;
use throttle_agent::datapath::Drift;
use throttle_common::packet::tcp;
use throttle_tests::{
    machine::egresses,
    needs_root,
    stranger::{FIRST, Stranger},
    wire::FAR_V4,
};

const SOURCE: &str = "10.98.77.1";
const PORTS: Range<u16> = 1024..1029;
/// As many as a source may have.
const ALL: u64 = 5;

#[test]
fn who_comes_back_on_the_ports_of_its_connections_is_asked_whether_it_knows_them() -> Result<()> {
    needs_root!();
    let mut host = Host::new()?;
    let listener = host.listen_deep(FAR_V4)?;
    let to = listener.local_addr()?;
    host.limit(to.port(), &["concurrent = 5\naction = \"reject\"\nsources = 300"])?;
    let stranger = Stranger::new(&host.wire, SOURCE, to)?;
    comes_back(&host, &stranger, || sockets(&host.wire.far, to.port(), None))
}

#[test]
fn so_is_who_comes_back_on_those_of_forwarded_ones() -> Result<()> {
    needs_root!();
    for egress in egresses() {
        let Some(mut router) = Router::new(egress, Way::Route)? else { continue };
        router.limit(5)?;
        let stranger = Stranger::new(&router.host.wire, SOURCE, router.to)?;
        comes_back(&router.host, &stranger, || router.served()).with_context(|| egress.to_string())?;
    }
    Ok(())
}

fn comes_back(host: &Host, stranger: &Stranger, served: impl Fn() -> Result<u64>) -> Result<()> {
    let found = || Ok((served()?, host.open(0)));
    for number in [FIRST, FIRST + 1_000_000] {
        for (port, answer) in stranger.asks_by(number, &PORTS)? {
            stranger.says(port, [number + 1, answer.wrapping_add(1)], tcp::ACK, 0)?;
        }
        eventually(&(ALL, ALL), found)?;
        // Another one is one too many, and these are none.
        stranger.says(PORTS.end, [FIRST, 0], tcp::SYN, 0)?;
        stranger.hears_of(&(PORTS.end..=PORTS.end), tcp::RST | tcp::ACK)?;
        PORTS.into_iter().try_for_each(|port| stranger.says(port, [7, 0], tcp::SYN, 0))?;
        stranger.hears_of(&PORTS, tcp::ACK).context("asked whether it knows them")?;
        ensure!(found()? == (ALL, ALL) && host.reconcile()? == Drift::default());
        PORTS.into_iter().try_for_each(|port| stranger.says(port, [number + 1, 0], tcp::RST, 0))?;
        eventually(&(0, 0), found)?;
    }
    Ok(())
}
