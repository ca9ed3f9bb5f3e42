//! What others are told, over the ends of agents: each thing once, and once that it is over.

use super::{
    RUN,
    breaking::{BACKENDS, listen},
    policy,
};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    sync::mpsc::Receiver,
    thread,
    time::{Duration, Instant},
};
use throttle_agent::api::wire::TransitionView;
use throttle_tests::{
    agent::{Agent, Site},
    needs_root,
    slow::SlowServer,
    standing::{breaker, changes, level, until},
    wire::Wire,
};

/// What was told of the second backend, as its kind and what that became.
type Told = Vec<(String, String)>;

/// Listens until that is told.
fn hear(heard: &Receiver<String>, told: &mut Told, kind: &str, to: &str) -> Result<()> {
    while !told.iter().any(|(of, became)| of == kind && became == to) {
        let body = heard.recv_timeout(Duration::from_secs(30)).with_context(|| format!("{kind} {to}: {told:?}"))?;
        let view: TransitionView = serde_json::from_str(&body)?;
        if view.backend.as_deref() == Some("web-2") {
            told.push((view.kind, view.to));
        }
    }
    Ok(())
}

/// Waits until what was told is written down: nothing has been for three seconds.
fn until_kept(site: &Site<'_>) -> Result<()> {
    let written = || -> Result<_> { Ok(fs::metadata(site.file("state").join("store.redb"))?.modified()?) };
    let (mut last, mut since) = (written()?, Instant::now());
    while since.elapsed() < Duration::from_secs(3) {
        thread::sleep(Duration::from_millis(50));
        let now = written()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
}

#[test]
fn what_was_told_before_an_agent_was_killed_is_told_once_and_taken_back_once() -> Result<()> {
    needs_root!();
    for mode in ["enforce", "observe"] {
        let wire = Wire::new()?;
        let site = Site::on(&wire.far)?;
        let (hook, heard) = listen(&wire.far)?;
        let run = [&RUN[..], &["--webhook", &hook]].concat();
        let (_first, second) = (SlowServer::on(&wire.far, 80)?, SlowServer::on(&wire.far, 81)?);
        let mut agent = site.start(&run)?;
        site.apply(&policy(&format!("mode = \"{mode}\""), BACKENDS))?;
        let answered = |view: &throttle_agent::api::wire::ServiceHealthView, count| {
            view.backends.iter().filter(|it| it.latency_seconds.is_some()).count() >= count
        };
        until(&site, "both are well", |view| answered(view, 2))?;
        let mut told = Told::new();
        drop(second);
        hear(&heard, &mut told, "backend", "dead")?;
        hear(&heard, &mut told, "breaker", "open")?;
        for _ in 0..2 {
            until_kept(&site)?;
            agent.kill()?;
            agent = site.start(&run)?;
            until(&site, "it is dead still", |view| level(view, "web-2") == "dead" && answered(view, 1))?;
        }
        let _second = SlowServer::on(&wire.far, 81)?;
        hear(&heard, &mut told, "backend", "healthy")?;
        hear(&heard, &mut told, "breaker", "closed")?;
        until(&site, "all are let in", |view| breaker(view, "web-2") == "closed")?;
        for (kind, to) in [("backend", "dead"), ("breaker", "open"), ("backend", "healthy"), ("breaker", "closed")] {
            let count = told.iter().filter(|(of, became)| of == kind && became == to).count();
            ensure!(count == 1, "{mode}: {kind} {to} was told {count} times: {told:?}");
        }
        agent.kill()?;
    }
    Ok(())
}

/// An agent with a backend that is there, and one that is not.
fn start_beside_one(wire: &Wire, site: &Site<'_>) -> Result<(SlowServer, Agent)> {
    let first = SlowServer::on(&wire.far, 80)?;
    let agent = site.start(&RUN)?;
    site.apply(&policy("mode = \"enforce\"", BACKENDS))?;
    Ok((first, agent))
}

#[test]
fn what_nobody_listened_to_is_told_by_the_next_agent_that_has_a_webhook() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let (_first, agent) = start_beside_one(&wire, &site)?;
    until(&site, "it is dead", |view| level(view, "web-2") == "dead" && breaker(view, "web-2") == "open")?;
    until_kept(&site)?;
    agent.kill()?;
    let (hook, heard) = listen(&wire.far)?;
    let agent = site.start(&[&RUN[..], &["--webhook", &hook]].concat())?;
    hear(&heard, &mut Told::new(), "backend", "dead")?;
    ensure!(agent.stop()?.success());
    Ok(())
}

#[test]
fn switching_breakers_off_closes_the_open_one_and_the_status_has_no_word_of_it() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let (_first, agent) = start_beside_one(&wire, &site)?;
    until(&site, "the breaker opens", |view| breaker(view, "web-2") == "open")?;
    site.apply(&policy("mode = \"enforce\"\nbreaker = false", BACKENDS))?;
    let start = Instant::now();
    loop {
        let off = changes(&site, "web")?.into_iter().filter(|it| it.reason.as_deref() == Some("switched-off"));
        if off.count() == 1 {
            break;
        }
        ensure!(start.elapsed() < Duration::from_secs(30), "it stays open: {:?}", changes(&site, "web")?);
        thread::sleep(Duration::from_millis(50));
    }
    let status = site.status()?;
    ensure!(!status.problems.iter().any(|it| it.contains("breaker")), "{:?}", status.problems);
    agent.kill()
}
