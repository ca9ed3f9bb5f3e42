//! An agent that stands still for a while: its own pause is no silence of the backends.

use super::{Fleet, HTTP, deaths_and_suspicions, policy, program};
use anyhow::{Result, ensure};
use rustix::process::Signal;
use std::{thread, time::Duration};
use throttle_tests::{
    agent::Site,
    backends::{Backend, Beats},
    machine, needs_root, say,
    standing::{changes_within, until},
    upstreams::PORT,
};

/// How long the agent stands still, and how long it then has for a wrong verdict: longer than any takes.
const PAUSE: Duration = Duration::from_secs(3);
const AFTERWARDS: Duration = Duration::from_secs(4);

#[test]
fn an_agent_that_stood_still_blames_nobody() -> Result<()> {
    needs_root!();
    let fleet = Fleet::new(4)?;
    let site = Site::on(&fleet.wire.far)?;
    let agent = fleet.agent(&site, &[])?;
    let _asked = [fleet.backend(0)?, fleet.backend(1)?, fleet.backend(2)?];
    let (socket, every) = (site.file("api.sock"), Duration::from_millis(500));
    let beats = Beats { socket: &socket, name: "web-4", generation: 1, every };
    let _beats = Backend::beating(&fleet.upstreams[3].host, program(), PORT, &beats)?;
    let addresses: Vec<_> = fleet.upstreams.iter().map(throttle_tests::upstreams::Upstream::address).collect();
    // Each at a pace of its own.
    let probes = [HTTP, HTTP, "\"tcp\"\ninterval = \"5s\"", "\"push\"\ninterval = \"500ms\""];
    site.apply(&policy(&addresses.into_iter().zip(probes).collect::<Vec<_>>()))?;
    until(&site, "all are well", |view| {
        view.backends.len() == 4
            && view
                .backends
                .iter()
                .all(|it| it.level == "healthy" && (it.latency_seconds.is_some() || it.backend == "web-4"))
    })?;
    thread::sleep(Duration::from_secs(1));
    machine::signal(agent.process(), Signal::STOP)?;
    thread::sleep(PAUSE);
    machine::signal(agent.process(), Signal::CONT)?;
    let changes = changes_within(&site, "web", AFTERWARDS)?;
    let [dead, suspect] = deaths_and_suspicions(&changes);
    let broken = changes.iter().filter(|it| it.kind == "breaker").count();
    say!("pauses: {PAUSE:?}: {suspect} suspicions, {dead} deaths, {broken} changes of breakers");
    ensure!(dead == 0 && broken == 0, "backends were blamed: {changes:#?}");
    until(&site, "all are well", |view| view.backends.iter().all(|it| it.level == "healthy"))?;
    Ok(())
}
