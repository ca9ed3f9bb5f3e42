//! The same figures where an operator looks: `policy check` before, `status` and the metrics while it lasts.

use crate::{RATES, SAMPLES, cpu, frame, median, near, woven};
use anyhow::{Context, Result, ensure};
use std::{process::Command, thread, time::Duration};
use throttle_agent::api::wire::Tallies;
use throttle_common::packet::Family;
use throttle_tests::{
    agent::{Site, path},
    generator::{Counter, Sender},
    machine, needs_root,
    program::SECOND,
    say,
    wire::{FAR, Wire},
};

/// Long enough for the steady state that was foretold.
const SPAN: Duration = Duration::from_secs(10);

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
    thread::sleep(SPAN / 2);
    let begin = site.limit("l")?.tallies;
    let mut last = (machine::monotonic(), begin);
    let (mut in_status, mut in_metrics, mut paces) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        thread::sleep(SPAN / 2 / SAMPLES);
        let view = site.limit("l")?;
        let now = (machine::monotonic(), view.tallies);
        paces.push((judged(&now.1) - judged(&last.1)) as f64 * SECOND as f64 / (now.0 - last.0) as f64);
        last = now;
        in_status.push(view.regions.iter().find(|it| it.family == "ipv4").context("no region for IPv4")?.occupancy);
        let metrics = metrics(&site)?;
        in_metrics.push(metrics("throttle_region_busy_slots")? / metrics("throttle_region_slots")?);
    }
    let (in_status, in_metrics, pace) = (median(in_status), median(in_metrics), median(paces));
    let end = last.1;
    let overflow = (end.overflowed.packets - begin.overflowed.packets) as f64 / (judged(&end) - judged(&begin)) as f64;
    let overflowed = metrics(&site)?("throttle_limit_overflowed_packets_total")?;
    running.stop()?;
    ensure!(counter.received()?.other > 0, "the flood came through");

    let flood = format!("{pace:.0}");
    let file = path(&site.file("policy.toml"));
    let foretold = site.json(&["policy", "check", &file, "--flood", &flood])?;
    let regions = foretold["flood"]["regions"].as_array().context("nothing is foretold")?;
    let foretold = regions.iter().find(|region| region["family"] == "ipv4").context("nothing is foretold for IPv4")?;
    let [busy, without] = ["occupancy", "overflow"].map(|field| foretold[field].as_f64());
    let (busy, without) = (busy.context("no occupancy is foretold")?, without.context("no overflow is foretold")?);
    say!(
        "flood of {:.2} million/s at {rate}: occupancy {in_status:.3} in status, {in_metrics:.3} in metrics, {busy:.3} foretold; \
         overflow {overflow:.4}, {without:.4} foretold",
        pace / 1e6,
    );
    ensure!(near(in_status, busy) && near(in_metrics, busy) && near(overflow, without), "they do not agree");
    ensure!(overflowed >= end.overflowed.packets as f64, "the metrics lag behind");
    Ok(())
}

fn judged(tallies: &Tallies) -> u64 {
    tallies.admitted.packets + tallies.refused.packets
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
