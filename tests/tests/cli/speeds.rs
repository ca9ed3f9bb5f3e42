//! Speeds that are set by hand: shown wherever limits are, bounded, kept by the next agent, and over when they are.

use super::ends_with;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use throttle_tests::{
    agent::Site,
    needs_root,
    wire::{FAR, Wire},
};

const POLICY: &str = r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[[service]]
name = "dns"
protocol = "udp"
ports = [53]
[[limit]]
name = "all"
unit = "packets"
rate = "1000/s"
[[limit]]
name = "requests"
service = "web"
unit = "connections"
rate = "50/s"
"#;

/// The clock of a service as `throttle speed` lists it.
fn clock(site: &Site<'_>, service: &str) -> Result<Value> {
    let speeds = site.json(&["speed"])?;
    let found = speeds["speeds"].as_array().context("a list")?.iter().find(|it| it["service"] == service);
    found.cloned().with_context(|| format!("no clock of {service} in {speeds}"))
}

#[test]
fn a_speed_is_shown_kept_and_reset() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let agent = site.start(&["--interface", FAR])?;
    site.apply(POLICY)?;
    let page = site.ask(&["speed"])?;
    ensure!(page.lines().count() == 4 && page.contains("the host      1") && page.contains("requests"), "{page}");

    let said = site.ask(&["speed", "set", "0.25", "--service", "web"])?;
    ensure!(
        said.starts_with("the clock of web runs at 0.25 until `throttle speed reset`: its limits admit 25 %"),
        "{said}"
    );
    ensure!(site.ask(&["status"])?.contains("* the clock of web runs at 0.25"));
    let explained = site.ask(&["explain", "192.0.2.7", "--port", "80"])?;
    ensure!(explained.contains("its clock runs at 0.25: it admits 25 % of that rate"), "{explained}");
    let [all, requests] = [site.limit("all")?, site.limit("requests")?];
    ensure!((all.speed, requests.speed) == (1.0, 0.25));
    // A bucket that owes a fiftieth of a second does so for four times as long.
    let busy = |view: &throttle_agent::api::wire::LimitView| view.regions[0].forecast.map(|it| it.busy_seconds);
    ensure!(busy(&requests).is_some_and(|seconds| (seconds - 0.08).abs() < 1e-6), "{:?}", busy(&requests));
    let (_, metrics) = site.request("GET", "/metrics", "")?;
    ensure!(metrics.contains("throttle_limit_speed_ratio{limit=\"requests\"} 0.25"), "{metrics}");
    ensure!(metrics.contains("throttle_limit_speed_ratio{limit=\"all\"} 1"), "{metrics}");

    // The next agent goes on with it, and what the clock has read is not lost.
    let before = clock(&site, "web")?["behind_seconds"].as_f64().context("a number")?;
    agent.kill()?;
    let _agent = site.start(&["--interface", FAR])?;
    let held = clock(&site, "web")?;
    ensure!(held["speed"] == 0.25 && !held["author"].is_null() && held["until"].is_null(), "{held}");
    ensure!(held["lease_seconds"].as_f64().is_some_and(|lease| (3.0..=5.1).contains(&lease)), "{held}");
    ensure!(held["behind_seconds"].as_f64().is_some_and(|behind| behind >= before), "{held} after {before}");
    // A change of the policy leaves it alone, as long as there is the service.
    site.ask(&["limit", "set", "requests", "--rate", "60/s"])?;
    site.ask(&["service", "set", "ssh", "--protocol", "tcp", "--port", "22"])?;
    ensure!(clock(&site, "web")?["speed"] == 0.25);
    site.ask(&["speed", "set", "0.5", "--service", "dns"])?;
    site.ask(&["service", "delete", "dns"])?;
    site.ask(&["service", "set", "dns", "--protocol", "udp", "--port", "53"])?;
    let anew = clock(&site, "dns")?;
    ensure!(anew["speed"] == 1.0 && anew["behind_seconds"] == 0.0 && anew["author"].is_null(), "{anew}");

    let said = site.ask(&["speed", "reset", "--service", "web"])?;
    ensure!(said.contains("runs as fast as real time"), "{said}");
    site.until("the clock runs as fast as real time", |status| status.speeds.is_empty())?;
    site.ask(&["speed", "set", "0.0625", "--for", "1s"])?;
    site.until("its time is over", |status| status.speeds.is_empty())?;
    Ok(())
}

#[test]
fn what_is_no_speed_changes_nothing_and_is_told_the_bounds() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.apply(POLICY)?;
    for wrong in ["0", "0.06", "1.5", "-1", "fast"] {
        let said = ends_with(&site, 2, &["speed", "set", wrong])?;
        ensure!(said.contains("from 0.0625 to 1"), "{wrong}: {said}");
    }
    let said = ends_with(&site, 1, &["speed", "set", "0.5", "--service", "wep"])?;
    ensure!(said.contains("no service `wep`") && said.contains("web"), "{said}");
    ends_with(&site, 1, &["speed", "reset", "--service", "nobody"])?;
    let cases = [
        (r#"{"speed": 7}"#, "write 0.0625 to 1"),
        (r#"{"speed": 0.0624999}"#, "write 0.0625 to 1"),
        (r#"{"speed": 0.5, "seconds": 0}"#, "write 1 to 2592000"),
        (r#"{"speed": 0.5, "minutes": 1}"#, "minutes"),
    ];
    for (body, remedy) in cases {
        let (status, said) = site.request("PUT", "/v1/speeds", body)?;
        ensure!((400..500).contains(&status) && said.contains(remedy), "{body}: {status} {said}");
    }
    ensure!(site.status()?.speeds.is_empty(), "nothing has changed");
    Ok(())
}
