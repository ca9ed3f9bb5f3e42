//! What `status` warns of by itself: real traffic from behind a load balancer, and silence without it.

use super::send_from;
use anyhow::{Result, ensure};
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};
use throttle_tests::{
    agent::Site,
    needs_root,
    wire::{FAR, Wire},
};

const POLICY: &str = "mode = \"enforce\"\n[[limit]]\nname = \"clients\"\nunit = \"packets\"\nrate = \"50/s\"\n";

#[test]
fn a_load_balancer_that_carries_everybody_is_named_with_the_remedy() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.apply(POLICY)?;
    ensure!(site.status()?.warnings.is_empty(), "nothing has happened yet");
    let nodes = [Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2)];
    let start = Instant::now();
    let warnings = loop {
        // Some hundred packets a second, of which each node may send fifty.
        for turn in 0..10 {
            send_from(&wire, nodes.into_iter().cycle().take(40).chain([Ipv4Addr::new(203, 0, 113, turn)]))?;
            std::thread::sleep(Duration::from_millis(50));
        }
        let warnings = site.status()?.warnings;
        if !warnings.is_empty() {
            break warnings;
        }
        ensure!(start.elapsed() < Duration::from_mins(3), "no warning: {:?}", site.status()?);
    };
    let [warning] = warnings.as_slice() else { anyhow::bail!("one is enough: {warnings:?}") };
    ensure!(warning.starts_with("limit `clients`: ") && warning.contains("few sources, 198.51.100."), "{warning}");
    ensure!(warning.contains("198.51.100.1") && warning.contains("198.51.100.2"), "both are named: {warning}");
    ensure!(!warning.contains("203.0.113"), "who hardly sends is not: {warning}");
    // It may be meant, so that monitors stay calm.
    let page = site.ask(&["status"])?;
    ensure!(page.contains("healthy") && page.contains("* limit `clients`: "), "{page}");
    Ok(())
}
