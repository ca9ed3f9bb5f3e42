//! What `status` warns of by itself: real traffic from behind a load balancer, tables that fill, limits that never bind, and
//! silence without them.

use super::{said, send_from};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};
use throttle_agent::{
    agent::build,
    api::wire::Write,
    control::{Author, Control},
    datapath::{Datapath, Options},
    policy,
    store::Store,
};
use throttle_tests::{
    agent::Site,
    frames::Frame,
    needs_root,
    pins::Pins,
    program::SECOND,
    wire::{FAR, Wire},
};

const HOUR: u64 = 3_600 * SECOND;
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

#[test]
fn a_table_that_fills_is_told_before_new_sources_find_no_place() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    // What one packet owes lasts an hour.
    site.apply("[[limit]]\nname = \"few\"\nunit = \"packets\"\nrate = \"1/hour\"\nburst = 9\nsources = 3000\n")?;
    let region = || -> Result<_> {
        let regions = site.limit("few")?.regions;
        regions.into_iter().find(|region| region.family == "ipv4").context("no region for IPv4")
    };
    let slots = u32::try_from(region()?.slots)?;
    let mut sources = (u32::from(Ipv4Addr::new(198, 18, 0, 0))..).map(Ipv4Addr::from_bits);
    let mut come = |count: u32| send_from(&wire, sources.by_ref().take(count as usize));
    come(slots / 3)?;
    let start = Instant::now();
    let warnings = loop {
        // A part of a hundred every two seconds: it grows with every look, and is not crowded before the fourth.
        come(slots / 100)?;
        std::thread::sleep(Duration::from_secs(2));
        let warnings = site.status()?.warnings;
        if !warnings.is_empty() {
            break warnings;
        }
        ensure!(region()?.occupancy < 0.6 && start.elapsed() < Duration::from_mins(3), "no warning: {:?}", region()?);
    };
    let [warning] = warnings.as_slice() else { bail!("one is enough: {warnings:?}") };
    ensure!(warning.starts_with("limit `few`: ") && warning.contains("% of its ipv4 buckets"), "{warning}");
    ensure!(warning.contains("new sources find no place in") && warning.contains("Raise `sources`"), "{warning}");
    Ok(())
}

#[test]
fn a_limit_that_has_refused_nothing_for_a_day_of_traffic_is_told() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    let (store, _) = Store::open(&pins.directory().join("store.redb"))?;
    // The agent's core by a clock that the test sets: nobody waits for a day.
    let options =
        Options { pin_dir: pins.pin_dir(), table_sets: 1 << 14, debug: false, test_clock: true, adopt: false };
    let mut control = Control::open(Datapath::open(&options)?, store, pins.directory(), build(), None)?;
    let begin = 1_000_000 * SECOND;
    control.datapath().set_clock(begin)?;
    let text = "mode = \"enforce\"\n[[limit]]\nname = \"roomy\"\nunit = \"packets\"\nrate = \"10000/s\"\nburst = 1000000\nsources = 3000\n";
    let document = policy::parse(text).map_err(|wrong| anyhow!("{wrong}"))?;
    let applied = control.apply(document, None, &Write::default(), &Author::new("test", "apply"));
    applied.map_err(|problem| anyhow!("{problem}"))?;
    control.tick();
    control.datapath().test_run(&Frame::v4(Ipv4Addr::new(192, 0, 2, 1)).bytes(), 100_000)?;
    for (at, told) in [(23 * HOUR, 0), (24 * HOUR, 1)] {
        control.datapath().set_clock(begin + at)?;
        // It looks every ten seconds of the real clock.
        std::thread::sleep(Duration::from_secs(11));
        control.tick();
        let warnings = control.status().map_err(|problem| anyhow!("{problem}"))?.warnings;
        let begin = "limit `roomy` has refused nothing in 24 h, and no source owed more than ";
        ensure!(warnings.len() == told && warnings.iter().all(|warning| warning.starts_with(begin)), "{warnings:?}");
    }
    Ok(())
}

/// A service whose backend is at an address.
fn with_backend(address: &str) -> String {
    format!(
        "mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n[service.health]\n\
         mode = \"enforce\"\ncontrol = \"fixed\"\n[[backend]]\nname = \"web-1\"\nservice = \"web\"\n\
         address = \"{address}\"\nprobe = \"push\"\n"
    )
}

#[test]
fn a_backend_at_a_loopback_address_is_told_because_nothing_that_comes_in_meets_its_breaker() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    let begin = "the breaker of web/web-1 keeps nothing away: nothing comes in for 127.0.0.1:80, a loopback address";
    site.apply(&with_backend("127.0.0.1:80"))?;
    let warnings = site.status()?.warnings;
    ensure!(warnings.len() == 1 && warnings[0].starts_with(begin) && warnings[0].contains("--cgroup"), "{warnings:?}");
    let body = serde_json::json!({ "toml": with_backend("127.0.0.1:80") }).to_string();
    let (_, answer) = site.request("POST", "/v1/policy/check", &body)?;
    ensure!(answer.contains(begin), "{answer}");
    let output = site.run(&["breaker", "open", "web/web-1"])?;
    let sentence = "web/web-1: no new connection that comes in for 127.0.0.1:80 passes until ";
    ensure!(String::from_utf8_lossy(&output.stdout).starts_with(sentence), "{output:?}");
    ensure!(output.status.success() && said(&output).contains(begin), "{output:?}");

    site.apply(&with_backend("192.0.2.1:80"))?;
    let output = site.run(&["breaker", "auto", "web/web-1"])?;
    ensure!(output.status.success() && said(&output).is_empty(), "{output:?}");
    ensure!(site.status()?.warnings.is_empty(), "{:?}", site.status()?.warnings);
    Ok(())
}
