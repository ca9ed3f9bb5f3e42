//! What sees packets leave on a kernel that has no links there outlives its agent like everything else.

use super::RUN;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::path::Path;
use throttle_tests::{
    agent::{Agent, Site, binary},
    denied::{Denied, denied},
    filters::{filters, has_discipline},
    needs_root,
    rebuild::rebuild,
    wire::{FAR, Wire},
};

const FORWARDED: &str = r#"
mode = "enforce"
[[service]]
name = "behind"
protocol = "tcp"
ports = [443]
forwarded = true
[[limit]]
name = "open"
service = "behind"
unit = "connections"
concurrent = 100
"#;

#[test]
fn a_filter_outlives_a_killed_agent_gives_way_to_another_build_and_ends_with_detach() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let other = site.file("throttle-other");
    rebuild(binary()?, &other)?;
    let start = |binary: &Path| -> Result<Agent> { denied(Denied::Query, || site.start_build(binary, &RUN))? };
    let only = || -> Result<Value> {
        let mut filters = filters(&wire.far, FAR, "egress")?;
        ensure!(filters.len() == 1, "{filters:?}");
        filters.pop().context("one")
    };
    let agent = start(binary()?)?;
    site.apply(FORWARDED)?;
    let status = site.status()?;
    ensure!(status.attachments[0].egress.as_deref() == Some("clsact") && status.problems.is_empty(), "{status:?}");
    let page = site.ask(&["status"])?;
    ensure!(page.contains("their packets (clsact) for behind"), "{page}");
    let before = only()?;
    agent.kill()?;
    ensure!(only()? == before, "it goes on");
    let agent = start(&other)?;
    let after = only()?;
    let [name, tag] = ["/options/bpf_name", "/options/prog/tag"].map(|it| [before.pointer(it), after.pointer(it)]);
    ensure!(name[0] == name[1] && tag[0] != tag[1], "another build's is in its place: {before} {after}");
    ensure!(agent.stop()?.success() && only()? == after);
    site.ask(&["detach"])?;
    ensure!(!has_discipline(&wire.far, FAR, "clsact")?, "nothing of it is left");
    Ok(())
}
