//! Changes of layout: the build before this one's layout runs, this one takes over, and nothing is forgotten.

use super::{POLICY, RUN, Traffic, load, program_id};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use throttle_common::records;
use throttle_tests::{
    agent::{Agent, Site},
    machine, needs_root,
    previous::{self, previous},
    say,
    wire::Wire,
};

/// An agent of another build with a policy in force; the commands of this build may be of another version.
pub(crate) fn throttled_by(site: &Site<'_>, binary: &Path, run: &[&str], policy: &str) -> Result<Agent> {
    let agent = site.start_build(binary, run)?;
    let body = serde_json::json!({ "toml": policy }).to_string();
    let (status, answer) = site.request("POST", "/v1/policy/apply", &body)?;
    ensure!(status == 200, "{status}: {answer}");
    Ok(agent)
}

#[test]
fn an_earlier_layout_is_taken_over_under_load_and_nothing_is_forgotten() -> Result<()> {
    needs_root!();
    let Some(before) = previous()? else { return Ok(()) };
    let _machine = machine::alone()?;
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let agent = throttled_by(&site, &before, &RUN, POLICY)?;
    site.ask(&["block", "add", "203.0.113.9", "--for", "1h"])?;
    let traffic = Traffic::on(&wire, load())?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    let held = (program_id(&wire)?, site.judged(|_, _| true)?);
    agent.kill()?;
    let agent = site.start(&RUN)?;
    let status = site.status()?;
    ensure!(status.build.layout == records::LAYOUT && status.problems.is_empty(), "{status:?}");
    ensure!(program_id(&wire)? != held.0 && site.judged(|_, _| true)? > held.1, "another program counts on");
    let log = agent.log();
    let said = log.lines().find(|line| line.contains("changed over from")).context("it says nothing of the change")?;
    say!("layout {} to {}: {}", previous::LAYOUT, records::LAYOUT, said.split(" from=").nth(1).unwrap_or(said));

    // The way back is refused, and nothing is changed by the attempt.
    agent.kill()?;
    let refused = site.refusal_of(&before, &RUN)?;
    ensure!(refused.contains("throttle detach") && refused.contains("layout"), "the remedy is named: {refused}");
    let _agent = site.start(&RUN)?;
    say!("an upgrade from the layout before and an attempt to go back: {}", traffic.unharmed(&site)?);
    ensure!(site.status()?.blocks == 1, "the block is still there");
    ensure!(std::fs::read_dir(site.pin_dir())?.count() == 3, "links, maps and sockets are pinned, nothing else");
    Ok(())
}
