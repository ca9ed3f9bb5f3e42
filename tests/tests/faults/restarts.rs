//! Backends that are restarted: once, and again and again.

use super::{HTTP, RUN, here, name, policy, program, story};
use anyhow::{Context as _, Result, ensure};
use std::{
    thread,
    time::{Duration, Instant},
};
use throttle_agent::health::{SECOND, detector::slow_start, whole};
use throttle_tests::{
    agent::Site,
    backends::{Backend, Beats},
    needs_root, say,
    slow::{at, open_at_once},
    standing::{breaker, health, held, level, until},
    wire::{FAR_V4, Wire},
};

#[test]
fn a_new_generation_gets_its_load_little_by_little() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&RUN)?;
    let (socket, every) = (site.file("api.sock"), Duration::from_millis(100));
    let beats = |generation| Beats { socket: &socket, name: "web-1", generation, every };
    let _other = Backend::on(&wire.far, program(), 81)?;
    let first = Backend::beating(&wire.far, program(), 80, &beats(7))?;
    site.apply(&policy(&[(at(FAR_V4, 80), "\"push\"\ninterval = \"500ms\""), (at(FAR_V4, 81), HTTP)]))?;
    until(&site, "it beats and is well", |view| {
        view.backends.len() == 2 && view.backends.iter().all(|it| it.level == "healthy" && it.share >= 1.0)
    })?;
    // It has to be heard of before it can be known again.
    while !site.request("GET", "/v1/heartbeats", "")?.1.contains("\"generation\":7") {
        thread::sleep(Duration::from_millis(20));
    }
    drop(first);
    let _second = Backend::beating(&wire.far, program(), 80, &beats(8))?;
    until(&site, "it is known to be another", |_| {
        story(&site, "web-1", 0).is_ok_and(|story| story.iter().any(|it| it.reason.as_deref() == Some("restarted")))
    })?;
    let well = until(&site, "it is well again", |view| level(view, "web-1") == "healthy")?;
    ensure!(well.share < 1.0, "the service has all of its load: {well:#?}");
    let (start, mut view) = (Instant::now(), well);
    let least = held(&view, "web-1").map(|it| it.share).context("it is known")?;
    loop {
        let it = held(&view, "web-1").context("it is known")?;
        let most = slow_start(whole(it.since_seconds * SECOND as f64));
        ensure!(it.level == "healthy" && it.share <= most + 1e-6, "it may have {most}: {it:#?}");
        if it.share >= 1.0 {
            break;
        }
        ensure!(start.elapsed() < Duration::from_mins(1), "it never gets all of its load: {it:#?}");
        thread::sleep(Duration::from_millis(200));
        view = health(&site, "web")?;
    }
    say!("restarts: a new generation has {least:.2} of its load at first, all of it after {:?}", start.elapsed());

    // What the one before says late is not taken.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let late = serde_json::json!({
        "backend": "web-1", "node": "here", "boot_id": boot, "generation": 7, "sequence": 1_000_000,
        "time": "2026-01-02T03:04:05Z",
    });
    let (status, said) = site.request("POST", "/v1/heartbeats", &late.to_string())?;
    ensure!(status == 409, "{status}: {said}");
    Ok(())
}

#[test]
fn who_comes_and_goes_is_held_out() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&RUN)?;
    let _others = [Backend::on(&wire.far, program(), 80)?, Backend::on(&wire.far, program(), 82)?];
    let mut flapping = Backend::on(&wire.far, program(), 81)?;
    site.apply(&policy(&here(&[80, 81, 82])))?;
    super::all_are_well(&site, 3)?;
    let (backend, start) = (name(1), Instant::now());
    loop {
        ensure!(start.elapsed() < Duration::from_mins(1), "it may come and go as it likes");
        drop(flapping);
        until(&site, "it is dead", |view| level(view, &backend) == "dead")?;
        flapping = Backend::on(&wire.far, program(), 81)?;
        let back = until(&site, "it is back", |view| level(view, &backend) != "dead")?;
        if level(&back, &backend) == "held" {
            break;
        }
        until(&site, "it is well", |view| level(view, &backend) == "healthy")?;
    }
    let deaths = story(&site, &backend, 0)?.iter().filter(|it| it.to == "dead").count();
    say!("restarts: held out after {deaths} deaths in {:?}", start.elapsed());
    ensure!(deaths >= 3, "held out after {deaths} deaths");
    // It answers now, and is left alone all the same.
    thread::sleep(Duration::from_secs(1));
    let view = health(&site, "web")?;
    ensure!(level(&view, &backend) == "held" && breaker(&view, &backend) == "open", "{view:#?}");
    ensure!(held(&view, &backend).is_some_and(|it| it.share <= 0.0), "{view:#?}");
    ensure!(open_at_once(&wire.near, 3, at(FAR_V4, 81))?.is_empty(), "it is let in");
    ensure!(open_at_once(&wire.near, 3, at(FAR_V4, 80))?.len() == 3, "the others are no affair of it");
    Ok(())
}
