//! kill -9 at any moment of an agent's life: while it starts, while it puts a policy in force, while it waits.

use super::{POLICY, RUN, Traffic, load, throttled};
use anyhow::{Context, Result, ensure};
use std::{
    thread,
    time::{Duration, Instant},
};
use throttle_tests::{
    agent::{Agent, Site},
    machine, needs_root, say,
    wire::{FAR, Wire},
};

/// How many agents are killed in each of the three ways.
const EACH: u32 = 8;

/// The other policy, which differs in all that a policy has: it takes an agent as long as any to put in force.
const OTHER: &str = r#"
[[limit]]
name = "wide"
unit = "packets"
rate = "10000000/s"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[shapes]
too-many-vlans = "pass"
"#;

#[test]
fn an_agent_killed_at_any_moment_changes_nothing_for_traffic() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    throttled(&site)?.kill()?;
    let began = Instant::now();
    let mut agent = site.start(&RUN)?;
    let start = began.elapsed();
    let apply = typical_apply(&site)?;
    let traffic = Traffic::on(&wire, load())?;
    let (mut starting, mut applying, mut idle) = (0, 0, 0);
    for number in 0..EACH {
        thread::sleep(Duration::from_millis(100));
        agent.kill()?;
        idle += 1;
        starting += u32::from(kill_while_it_starts(&site, start * number / EACH)?);
        agent = restart(&site)?;
        applying += u32::from(kill_while_it_applies(&site, agent, number, apply * number / EACH)?);
        agent = restart(&site)?;
    }
    say!(
        "agents killed: {starting} of {EACH} within {start:.0?} of their start, {applying} of {EACH} within {apply:.1?} of a \
         policy's arrival, {idle} idle: {}",
        traffic.unharmed(&site)?
    );
    ensure!(starting >= EACH / 2 && applying >= EACH / 2, "too few were killed at work");
    site.until("nothing is wrong after all kills", |status| status.problems.is_empty())?;
    ensure!(agent.stop()?.success(), "the agent ends when it is asked to");
    Ok(())
}

fn restart(site: &Site<'_>) -> Result<Agent> {
    site.start(&RUN).with_context(|| format!("after a kill on {FAR}"))
}

/// Kills an agent so long after its start; says whether it had not been ready.
fn kill_while_it_starts(site: &Site<'_>, after: Duration) -> Result<bool> {
    let mut starting = site.spawn(&RUN)?;
    thread::sleep(after);
    let early = !starting.is_ready();
    starting.kill()?;
    Ok(early)
}

/// Kills an agent so long after it was given a policy; says whether it had not answered. Its successor has the policy
/// before or the one after in force, the one after if it had answered.
fn kill_while_it_applies(site: &Site<'_>, agent: Agent, number: u32, after: Duration) -> Result<bool> {
    let other = number.is_multiple_of(2);
    let acknowledged = thread::scope(|scope| {
        let answer = scope.spawn(|| apply(site, other).is_ok());
        thread::sleep(after);
        agent.kill()?;
        anyhow::Ok(answer.join().expect("asking does not panic"))
    })?;
    let successor = restart(site)?;
    let (limits, services) = (site.status()?.limits.len(), site.json(&["service", "list"])?);
    let services = services["services"].as_array().map_or(0, Vec::len);
    let (before, after) = if other { ((1, 0), (2, 1)) } else { ((2, 1), (1, 0)) };
    let found = (limits, services);
    ensure!(found == after || (found == before && !acknowledged), "policy of {found:?}, acknowledged: {acknowledged}");
    // The next one begins where this one was to end.
    apply(site, other)?;
    successor.kill()?;
    Ok(!acknowledged)
}

/// Puts a policy in force by the API itself: what takes time is then the agent alone.
fn apply(site: &Site<'_>, other: bool) -> Result<()> {
    let policy = if other { format!("{POLICY}{OTHER}") } else { POLICY.to_owned() };
    let body = serde_json::json!({ "toml": policy }).to_string();
    let (status, answer) = site.request("POST", "/v1/policy/apply", &body)?;
    ensure!(status == 200, "{status}: {answer}");
    Ok(())
}

/// How long that takes.
fn typical_apply(site: &Site<'_>) -> Result<Duration> {
    let mut spans = Vec::new();
    for other in [true, false, true, false] {
        let began = Instant::now();
        apply(site, other)?;
        spans.push(began.elapsed());
    }
    Ok(spans.iter().sum::<Duration>() / 4)
}
