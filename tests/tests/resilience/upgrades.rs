//! Changes of layout: the build before this one's layout runs, this one takes over, and nothing is forgotten.

use super::{POLICY, RUN, Traffic, load, program_id};
use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData};
use std::path::Path;
use throttle_common::{
    packet::Family,
    proven,
    records::{self, Address, maps},
};
use throttle_tests::{
    agent::{Agent, Site, path},
    clients::send_raw,
    frames::Frame,
    machine, needs_root,
    previous::{self, previous},
    program::SECOND,
    say,
    wire::{FAR, FAR_V4, NEAR, Wire},
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
    foretold(&site, "migrate", previous::LAYOUT)?;
    agent.kill()?;
    prove_somebody(&site)?;

    // Without the policy there is nothing to change over to.
    let elsewhere = path(&site.file("another-state"));
    let refused = site.refusal(&[&RUN[..], &["--state-dir", &elsewhere]].concat())?;
    ensure!(refused.contains("--state-dir") && program_id(&wire)? == held.0, "the earlier build stays: {refused}");
    let pinned = ["egress", "links", "maps", "sockets", "sockets_again"];
    ensure!(names(&site.pin_dir())? == pinned, "nothing is left of the attempt");

    // Also an agent that is asked for no interface changes over those that are throttled.
    let agent = site.start(&[])?;
    let status = site.status()?;
    ensure!(status.build.layout == records::LAYOUT && status.attachments[0].attached, "{status:?}");
    ensure!(status.problems.iter().all(|problem| problem.contains("run with --interface")), "{status:?}");
    ensure!(program_id(&wire)? != held.0 && site.judged(|_, _| true)? > held.1, "another program counts on");
    ensure!(is_proven(&site)?, "who completed a handshake stays proven");
    foretold(&site, "adopt", records::LAYOUT)?;
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
    ensure!(names(&site.pin_dir())? == pinned, "nothing else is pinned");
    Ok(())
}

/// A source that uses a part of each limit, and what an override alone lets it owe.
const USED: u64 = 30;
const HOUR: u64 = 3_600 * SECOND;
const REMEMBERED: &str = r#"
mode = "enforce"
[[tenant]]
name = "acme"
sources = ["203.0.113.7"]
[[limit]]
name = "fixed"
unit = "packets"
rate = "100/hour"
algorithm = "fixed-window"
[[limit]]
name = "sliding"
unit = "packets"
rate = "100/hour"
algorithm = "sliding-window"
[[limit]]
name = "tenants"
unit = "packets"
rate = "10/hour"
burst = 10
per = "tenant"
[[limit.override]]
tenant = "acme"
burst = 100
"#;

#[test]
fn what_windows_have_counted_and_what_an_override_lets_owe_goes_over_to_a_later_layout() -> Result<()> {
    needs_root!();
    let Some(before) = previous()? else { return Ok(()) };
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    // Of windows, one that turns meanwhile would be another one.
    let left = HOUR - machine::monotonic() % HOUR;
    if left < 60 * SECOND {
        std::thread::sleep(std::time::Duration::from_nanos(left));
    }
    let agent = throttled_by(&site, &before, &RUN, REMEMBERED)?;
    let frame = Frame::from("203.0.113.7").to(FAR_V4).udp(4000, 9).bytes();
    wire.near.enter(|| (0..USED).try_for_each(|_| send_raw(NEAR, [&frame[..]])))??;
    agent.kill()?;
    let _agent = site.start(&RUN)?;
    let walk = site.json(&["explain", "203.0.113.7"])?;
    let limits = walk["walks"][0]["limits"].as_array().context("no limits")?.clone();
    let room: Vec<_> = limits.iter().map(|it| (it["limit"].as_str().unwrap_or("?"), it["room"].as_u64())).collect();
    let rest = Some(100 - USED);
    ensure!(room == [("fixed", rest), ("sliding", rest), ("tenants", rest)], "{room:?} of {walk}");
    Ok(())
}

/// What `upgrade --check` says beforehand: the plan, and on what; little may be lost.
fn foretold(site: &Site<'_>, plan: &str, layout: u64) -> Result<()> {
    let (check, code) = site.check_upgrade()?;
    ensure!(check["plan"] == plan && code == Some(0), "{plan} was expected: {check}");
    ensure!(check["pinned_layout"] == layout && check["running"]["layout"] == layout, "{check}");
    ensure!(check["policy"] == "accepted", "{check}");
    let interface = &check["interfaces"][0];
    ensure!(interface["interface"] == FAR && interface["mode"] == "native" && interface["in_place"] == true, "{check}");
    ensure!(interface["program_tag"] == format!("{:016x}", site.program_tag()?), "{check}");
    for refused in ["sockets_unwatchable", "leaving_unseeable", "connects_unseeable"] {
        ensure!(check.get(refused).is_some_and(serde_json::Value::is_null), "{refused}: {check}");
    }
    ensure!(
        check["sockets_watched"] == true && check["leaving_seen"] == true && check["connects_seen"] == false,
        "{check}"
    );
    let fates = check["fates"].as_array().context("no fates")?;
    let lost = fates.iter().filter(|fate| fate["kept"] == false);
    let lost: Vec<_> = lost.filter_map(|fate| fate["what"].as_str()).collect();
    let anew = ["forwarded connections", "connections without a listener", "fast opens"];
    ensure!(anew.iter().all(|what| lost.contains(what) == (plan != "adopt")), "lost: {lost:?}");
    let may = [&anew[..], &["charges", "events", "budgets"]].concat();
    ensure!(!fates.is_empty() && lost.iter().all(|what| may.contains(what)), "lost: {lost:?}");
    Ok(())
}

/// The pinned lines of the proven, and the claim of a source that sends nothing.
fn proven_lines(site: &Site<'_>) -> Result<(Array<MapData, proven::Line>, proven::Claim)> {
    let open = |name| MapData::from_pin(site.pin_dir().join("maps").join(name)).context("open a pinned map");
    let control: Array<_, records::Control> = Map::Array(open(maps::CONTROL)?).try_into()?;
    let source = Address::v4(u32::from_be_bytes([203, 0, 113, 77]));
    let claim = proven::Claim::of(source, Family::V4, records::PROVEN_LINES, control.get(&0, 0)?.secret);
    Ok((Map::Array(open(maps::PROVEN)?).try_into()?, claim))
}

/// Writes that a source completed a handshake, as the program at the sockets does.
fn prove_somebody(site: &Site<'_>) -> Result<()> {
    let (mut lines, claim) = proven_lines(site)?;
    let mut line = lines.get(&claim.line, 0)?;
    let (cell, value) = claim.remember(&line, machine::monotonic());
    line[cell] = value;
    Ok(lines.set(claim.line, line, 0)?)
}

fn is_proven(site: &Site<'_>) -> Result<bool> {
    let (lines, claim) = proven_lines(site)?;
    Ok(claim.holds(&lines.get(&claim.line, 0)?, machine::monotonic()))
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = entries.collect::<Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}
