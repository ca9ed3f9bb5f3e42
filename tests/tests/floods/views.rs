//! The same figures where an operator looks: `policy check` before, `status` and the metrics while it lasts.

use crate::{RATES, SAMPLES, cpu, frame, median, near, seconds, woven};
use anyhow::{Context, Result, ensure};
use std::{process::Command, thread, time::Duration};
use throttle_common::packet::Family;
use throttle_tests::{
    agent::{Site, path},
    generator::{Counter, Sender},
    machine, needs_root, say,
    wire::{FAR, Wire},
};

#[test]
fn status_and_metrics_show_what_policy_check_foretold() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let (rate, interval) = RATES[1];
    let policy = format!("mode = \"enforce\"\n[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"{rate}\"\n");
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR, "--mode=native"])?;
    site.apply(&policy)?;
    let order = woven(Family::V4, interval);
    let counter = Counter::on(&wire, order)?;
    let sender = Sender::on(&wire)?;
    let running = sender.start_steady(&wire.near, cpu(), &frame(Family::V4), order)?;
    thread::sleep(Duration::from_secs(seconds()) / 2);
    let before = (machine::monotonic(), site.limit("l")?);
    let (mut in_status, mut in_metrics) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        thread::sleep(Duration::from_secs(seconds()) / 2 / SAMPLES);
        let view = site.limit("l")?;
        in_status.push(view.regions.iter().find(|it| it.family == "ipv4").context("no region for IPv4")?.occupancy);
        let metrics = metrics(&site)?;
        in_metrics.push(metrics("throttle_region_busy_slots")? / metrics("throttle_region_slots")?);
    }
    let (in_status, in_metrics) = (median(in_status), median(in_metrics));
    let after = (machine::monotonic(), site.limit("l")?);
    let overflowed = metrics(&site)?("throttle_limit_overflowed_packets_total")?;
    running.stop()?;
    ensure!(counter.received()?.other > 0, "the flood came through");

    let judged =
        |view: &throttle_agent::api::wire::LimitView| view.tallies.admitted.packets + view.tallies.refused.packets;
    let packets = judged(&after.1) - judged(&before.1);
    let per_second = packets * 1_000_000_000 / (after.0 - before.0);
    let overflow = (after.1.tallies.overflowed.packets - before.1.tallies.overflowed.packets) as f64 / packets as f64;

    let flood = per_second.to_string();
    let file = path(&site.file("policy.toml"));
    let foretold = site.json(&["policy", "check", &file, "--flood", &flood])?;
    let regions = foretold["flood"]["regions"].as_array().context("nothing is foretold")?;
    let foretold = regions.iter().find(|region| region["family"] == "ipv4").context("nothing is foretold for IPv4")?;
    let [busy, without] = ["occupancy", "overflow"].map(|field| foretold[field].as_f64());
    let (busy, without) = (busy.context("no occupancy is foretold")?, without.context("no overflow is foretold")?);
    say!(
        "flood of {:.2} million/s at {rate}: occupancy {in_status:.3} in status, {in_metrics:.3} in metrics, {busy:.3} foretold; \
         overflow {overflow:.4}, {without:.4} foretold",
        per_second as f64 / 1e6,
    );
    ensure!(near(in_status, busy) && near(in_metrics, busy) && near(overflow, without), "they do not agree");
    ensure!(overflowed >= after.1.tallies.overflowed.packets as f64, "the metrics lag behind");
    Ok(())
}

/// The metrics as they are now; gives the value of one for the limit, and for IPv4 where there are families.
fn metrics(site: &Site<'_>) -> Result<impl Fn(&str) -> Result<f64>> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--unix-socket", &path(&site.file("api.sock")), "http://throttle/metrics"]);
    let page = machine::run(&mut curl)?;
    Ok(move |name: &str| {
        let of = |line: &&str| line.starts_with(&format!("{name}{{limit=\"l\"")) && !line.contains("ipv6");
        let line = page.lines().find(of).with_context(|| format!("no {name} in the metrics"))?;
        let value = line.rsplit(' ').next().expect("a split has a last part");
        value.parse().with_context(|| line.to_owned())
    })
}
