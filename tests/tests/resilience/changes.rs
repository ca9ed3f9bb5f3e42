//! Changes of build: another one takes over under load; one that would misread the maps is refused.

use super::{RUN, Traffic, is_attached, load, throttled, total};
use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData};
use std::{path::Path, time::Duration};
use throttle_common::records::{Control, LAYOUT, maps};
use throttle_tests::{
    agent::{Site, binary, path},
    machine, needs_root,
    rebuild::rebuild,
    say,
    wire::{FAR, Wire},
};

#[test]
fn another_build_takes_over_from_a_killed_agent_without_a_gap() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let other = site.file("throttle-other");
    rebuild(binary()?, &other)?;
    let mut agent = throttled(&site)?;
    let traffic = Traffic::on(&wire, load())?;
    let mut builds = vec![(site.status()?.build.object_digest, site.program_tag()?)];
    for binary in [&other, binary()?, &other] {
        agent.kill()?;
        agent = site.start_build(binary, &RUN)?;
        builds.push((site.status()?.build.object_digest, site.program_tag()?));
    }
    say!("3 take-overs by another build: {}", traffic.unharmed(&site)?);
    ensure!(builds[0].0 != builds[1].0 && builds[0].1 != builds[1].1, "the builds are the same: {builds:?}");
    ensure!(builds[0] == builds[2] && builds[1] == builds[3], "each put its own program in force: {builds:?}");
    ensure!(agent.stop()?.success(), "the agent ends when it is asked to");
    Ok(())
}

#[test]
fn maps_of_another_layout_are_refused_with_the_remedy_which_helps() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let (check, code) = site.check_upgrade()?;
    ensure!(check["plan"] == "fresh" && code == Some(0), "{check}");
    let agent = throttled(&site)?;
    site.ask(&["block", "add", "203.0.113.9", "--for", "1h"])?;
    agent.stop()?;

    let sizes = site.refusal(&[&RUN[..], &["--table-sets", "4096"]].concat())?;
    ensure!(
        sizes.contains("--table-sets 1048576") && sizes.contains("throttle detach"),
        "the remedy is named: {sizes}"
    );
    set_layout(&site.pin_dir(), LAYOUT + 1)?;
    let layout = site.refusal(&RUN)?;
    ensure!(layout.contains("throttle detach") && layout.contains("layout"), "the remedy is named: {layout}");
    let (check, code) = site.check_upgrade()?;
    let remedy = check["remedy"].as_str().unwrap_or_default();
    ensure!(check["plan"] == "refuse" && code == Some(5) && remedy.contains("throttle detach"), "{check}");
    ensure!(site.program_tag().is_ok(), "what was there goes on enforcing");

    site.ask(&["detach"])?;
    let _agent = site.start(&RUN)?;
    let status = site.status()?;
    ensure!(status.limits.len() == 1 && status.blocks == 1, "policy and blocks are kept in the store: {status:?}");
    Ok(())
}

#[test]
fn an_interrupted_change_of_layout_is_not_begun_anew_by_a_third_build() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    throttled(&site)?.stop()?;
    // As a build of the layout before this one leaves it that died after it named its maps: those before are still there.
    let (elsewhere, state) = (site.pin_dir().with_file_name("elsewhere"), site.file("another-state"));
    site.start(&["--pin-dir", &path(&elsewhere), "--state-dir", &path(&state)])?.stop()?;
    set_layout(&elsewhere, LAYOUT - 2)?;
    set_layout(&site.pin_dir(), LAYOUT - 1)?;
    let old = site.pin_dir().join("maps-old");
    std::fs::rename(elsewhere.join("maps"), &old).context("give it the maps before")?;
    let held = std::fs::read_dir(&old)?.count();

    let (check, code) = site.check_upgrade()?;
    let said = format!("from layout {} to {} was interrupted", LAYOUT - 2, LAYOUT - 1);
    ensure!(check["plan"] == "refuse" && code == Some(5), "{check}");
    ensure!(check["reason"].as_str().is_some_and(|reason| reason.contains(&said)), "{check}");
    ensure!(check["remedy"].as_str().is_some_and(|remedy| remedy.contains("throttle detach")), "{check}");
    let refused = site.refusal(&RUN)?;
    ensure!(refused.contains(&said) && refused.contains("throttle detach"), "the remedy is named: {refused}");
    ensure!(std::fs::read_dir(&old)?.count() == held && site.program_tag().is_ok(), "nothing is lost");

    // So it is between the two names of the maps, too.
    std::fs::rename(site.pin_dir().join("maps"), site.pin_dir().join("maps-new"))?;
    let (check, code) = site.check_upgrade()?;
    ensure!(check["plan"] == "refuse" && code == Some(5), "{check}");
    ensure!(site.refusal(&RUN)?.contains(&said) && std::fs::read_dir(&old)?.count() == held, "nothing is lost");

    site.ask(&["detach"])?;
    let _agent = site.start(&RUN)?;
    ensure!(site.status()?.limits.len() == 1, "the policy is kept in the store");
    Ok(())
}

fn set_layout(pin_dir: &Path, layout: u64) -> Result<()> {
    let control = MapData::from_pin(pin_dir.join("maps").join(maps::CONTROL)).context("open the pinned map")?;
    let mut control: Array<_, Control> = Map::Array(control).try_into()?;
    let held = control.get(&0, 0)?;
    Ok(control.set(0, Control { layout, ..held }, 0)?)
}

#[test]
fn detach_beside_a_running_agent_undoes_everything_when_it_is_forced() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let agent = site.start(&RUN)?;
    site.apply("mode = \"enforce\"\n[sources]\nblock = [\"0.0.0.0/1\", \"128.0.0.0/1\"]\n")?;
    let refused = site.run(&["detach"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(1) && said.contains("--force"), "it would attach again: {said}");
    ensure!(site.program_tag().is_ok(), "nothing was undone");

    site.ask(&["detach", "--force"])?;
    ensure!(!is_attached(&wire)? && !site.pin_dir().exists(), "no program and no pin is left");
    machine::run(wire.far.command("ethtool").args(["-K", FAR, "gro", "on"]))?;
    let traffic = Traffic::on(&wire, load())?;
    std::thread::sleep(Duration::from_millis(200));
    let (sent, received) = traffic.stop()?;
    ensure!(total(&received) == sent.flood + sent.honest, "{received:?} of {sent:?} came through");
    ensure!(agent.stop()?.success(), "the agent ends when it is asked to");
    Ok(())
}
