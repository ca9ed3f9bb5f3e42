//! The window of a service that slows down.

use super::{RUN, breaking::listen, policy};
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::time::{Duration, Instant};
use throttle_agent::{api::wire::TransitionView, datapath::LEASE};
use throttle_tests::{
    agent::{Agent, Site},
    machine, needs_root, say,
    slow::{Askers, SlowServer, at, open_at_once},
    standing::{health, until},
    wire::{FAR_V4, Wire},
};

/// The window alone: of a service that fails, the breaker keeps most away too, also with the agent dead.
const ENFORCE: &str = "mode = \"enforce\"\nbreaker = false";
/// Clients that ask at once.
const CLIENTS: usize = 40;
const QUICK: Duration = Duration::from_millis(2);
const SLOW: Duration = Duration::from_millis(400);
/// So slow that clients wait too long, and yet get their answers.
const LATE: Duration = Duration::from_millis(80);

/// A server that is quick, an agent that follows it by a policy, and clients that ask until what is usual is known.
fn asked(wire: &Wire, site: &Site<'_>, policy: &str) -> Result<(SlowServer, Agent, Askers)> {
    asked_beside(wire, site, policy, &[])
}

/// The same, of an agent that is told something more.
fn asked_beside(wire: &Wire, site: &Site<'_>, policy: &str, run: &[&str]) -> Result<(SlowServer, Agent, Askers)> {
    let (server, agent) = (SlowServer::on(&wire.far, 80)?, site.start(&[&RUN[..], run].concat())?);
    server.take(QUICK);
    site.apply(policy)?;
    let askers = Askers::on(&wire.near, CLIENTS, at(FAR_V4, 80))?;
    until(site, "the time to first byte is known", |view| view.signal == "latency" && view.usual_seconds.is_some())?;
    std::thread::sleep(Duration::from_secs(2));
    Ok((server, agent, askers))
}

#[test]
fn sinks_when_the_server_slows_down_and_comes_back_with_it() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let (server, agent, askers) = asked(&wire, &site, &policy(ENFORCE, ""))?;
    let before = health(&site, "web")?.window.and_then(|it| it.in_force).context("a window is in force")?;
    server.take(SLOW);
    let slow = until(&site, "the window sinks", |view| view.window.is_some_and(|it| it.in_force <= Some(before / 3)))?;
    ensure!(slow.delay_seconds.is_some_and(|delay| delay > slow.target_seconds), "{slow:#?}");
    let refused = site.judged(|reason, outcome| reason == "connection-limit" && outcome == "reject")?;
    server.take(QUICK);
    // As far as there is use for it.
    let sunk = slow.window.and_then(|it| it.in_force);
    until(&site, "it comes back until nobody is refused", |view| {
        view.window.is_some_and(|it| it.in_force > sunk) && view.refused_per_second == 0.0
    })?;
    say!("window: {before} at {QUICK:?}, {:?} at {SLOW:?}, {refused} refused meanwhile", slow.window);

    // With the agent dead all is as policy says when the lease is over.
    server.take(SLOW);
    until(&site, "the window sinks again", |view| view.window.is_some_and(|it| it.in_force <= Some(10)))?;
    let short = open_at_once(&wire.near, 60, at(FAR_V4, 80))?.len();
    ensure!(short < 60, "all of 60 were let in by a window of 10");
    agent.kill()?;
    drop(askers);
    let start = Instant::now();
    let all = || -> Result<bool> { Ok(open_at_once(&wire.near, 60, at(FAR_V4, 80))?.len() == 60) };
    while !all()? {
        ensure!(start.elapsed() < Duration::from_secs(30), "policy's number does not come back with the agent dead");
        std::thread::sleep(Duration::from_millis(200));
    }
    say!("window: {short} of 60 let in while it was small, 60 of 60 with the agent dead for {:?}", start.elapsed());
    Ok(())
}

#[test]
fn the_next_agent_goes_on_from_where_it_is() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let (server, agent, _askers) = asked(&wire, &site, &policy(ENFORCE, ""))?;
    // What is usual is written down now and then.
    std::thread::sleep(Duration::from_secs(11));
    server.take(SLOW);
    let small = |it: &throttle_agent::api::wire::ServiceHealthView| it.window.and_then(|it| it.in_force) <= Some(10);
    until(&site, "the window sinks", small)?;
    agent.kill()?;
    let dead = Instant::now();
    let _agent = site.start(&RUN)?;
    if dead.elapsed() + Duration::from_secs(1) > LEASE {
        say!("skipped the_next_agent_goes_on_from_where_it_is: this machine starts no agent within the lease now");
        return Ok(());
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        let view = health(&site, "web")?;
        ensure!(view.window.is_some_and(|it| it.in_force <= Some(20)), "it jumps: {view:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn an_agent_that_stood_still_for_longer_than_the_lease_brings_no_old_window_back() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let (server, agent, askers) = asked(&wire, &site, &policy(ENFORCE, ""))?;
    server.take(SLOW);
    until(&site, "the window sinks", |view| view.window.is_some_and(|it| it.in_force <= Some(10)))?;
    machine::signal(agent.process(), Signal::STOP)?;
    // Nobody asks meanwhile, so that it cannot grow back by itself at once.
    drop(askers);
    server.take(QUICK);
    std::thread::sleep(LEASE + Duration::from_secs(1));
    machine::signal(agent.process(), Signal::CONT)?;
    let start = Instant::now();
    let mut looks = 0;
    while start.elapsed() < Duration::from_millis(800) {
        let window = health(&site, "web")?.window.context("it has a window")?;
        ensure!(window.in_force.is_none_or(|it| it >= window.policy), "the window of before is back: {window:?}");
        looks += 1;
    }
    say!("window: policy's own after a pause of the agent, in {looks} looks");
    Ok(())
}

#[test]
fn what_is_only_observed_writes_nothing() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let backend = "[[backend]]\nname = \"web-1\"\nservice = \"web\"\naddress = \"10.98.0.1:81\"\n";
    let (server, _agent, _askers) = asked(&wire, &site, &policy("mode = \"observe\"", backend))?;
    server.take(LATE);
    let view = until(&site, "it shows what it would do", |view| {
        view.window.is_some_and(|it| it.decided < it.policy) && view.delay_seconds > Some(view.target_seconds)
    })?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        let view = health(&site, "web")?;
        ensure!(view.window.is_some_and(|it| it.in_force.is_none()), "a window is in force: {view:#?}");
    }
    let speeds = site.json(&["speed"])?;
    ensure!(speeds["speeds"].as_array().is_some_and(|all| all.iter().all(|it| it["speed"] == 1.0)), "{speeds}");
    let refused = site.judged(|reason, outcome| reason != "admitted" && outcome == "reject")?;
    ensure!(refused == 0, "{refused} were refused");
    ensure!(view.summary.contains("only shown"), "{}", view.summary);
    Ok(())
}

#[test]
fn more_workers_are_asked_for_while_clients_are_refused_and_no_more_when_nobody_is() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let (hook, heard) = listen(&wire.far)?;
    let (server, _agent, askers) = asked_beside(&wire, &site, &policy(ENFORCE, ""), &["--webhook", &hook])?;
    server.take(SLOW);
    let wants = |wants: &str| -> Result<()> {
        loop {
            let body = heard.recv_timeout(Duration::from_mins(1)).with_context(|| format!("scale-out: {wants}"))?;
            let told: TransitionView = serde_json::from_str(&body)?;
            if told.kind == "scale-out" {
                ensure!(told.to == wants && told.service == "web" && told.backend.is_none(), "{told:?}");
                return Ok(());
            }
        }
    };
    let figure = |count: u8| -> Result<()> {
        let (_, metrics) = site.request("GET", "/metrics", "")?;
        let figure = format!("throttle_health_needs_workers{{service=\"web\"}} {count}\n");
        ensure!(metrics.contains(&figure), "no {figure} in {metrics}");
        Ok(())
    };
    wants("yes")?;
    ensure!(health(&site, "web")?.needs_workers);
    figure(1)?;
    drop(askers);
    wants("no")?;
    figure(0)
}
