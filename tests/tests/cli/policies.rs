//! Policies as a whole: applied, exported, compared, taken back by hand and by themselves; single commands that edit them.

use super::{count_of, ends_with};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs,
    net::Ipv4Addr,
    time::{SystemTime, UNIX_EPOCH},
};
use throttle_agent::api::wire::{Envelope, Written};
use throttle_tests::{
    agent::{Site, path},
    needs_root,
    wire::{FAR, Wire},
};

const OPEN: &str = "mode = \"enforce\"\n";
const TIGHT: &str = "mode = \"enforce\"\n[sources]\nblock = [\"192.0.2.0/24\"]\n";
const SOURCE: [Ipv4Addr; 1] = [Ipv4Addr::new(192, 0, 2, 1)];

fn dropped(_: &str, outcome: &str) -> bool {
    outcome == "drop"
}

#[test]
fn nothing_is_enforced_merely_by_installing() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    ensure!(site.status()?.revision == 0, "there is no policy yet");
    ensure!(count_of(&site, &wire, &SOURCE, dropped)? == 0);
    site.ask(&["limit", "set", "p", "--unit", "packets", "--rate", "1/min"])?;
    site.ask(&["block", "add", "192.0.2.0/24"])?;
    let observed = |_: &str, outcome: &str| outcome == "observe";
    ensure!(count_of(&site, &wire, &[SOURCE[0], SOURCE[0]], observed)? == 2, "it is only counted");
    site.ask(&["mode", "enforce"])?;
    ensure!(count_of(&site, &wire, &SOURCE, dropped)? == 1, "until the operator says so");
    Ok(())
}

/// Has the tight policy wait for its confirmation, does something `meanwhile`, and sees that it is in force until its
/// time is over and not longer. A machine that takes longer than that for the look gets more time, and another try.
fn waits_and_goes_back(site: &Site<'_>, wire: &Wire, mut meanwhile: impl FnMut() -> Result<()>) -> Result<()> {
    for doubled in 0..8 {
        let window = format!("{}s", 3 << doubled);
        let apply = ["policy", "apply", &path(&site.file("tight.toml")), "--confirm-within", &window, "--json"];
        let written: Envelope<Written> = serde_json::from_str(&site.ask(&apply)?)?;
        let deadline = written.body.pending.context("it waits for its confirmation")?.deadline;
        meanwhile()?;
        let refused = count_of(site, wire, &SOURCE, dropped)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis().cast_signed();
        let in_time = now < i128::from(deadline.as_millisecond());
        site.until("it goes back", |status| status.pending.is_none())?;
        ensure!(count_of(site, wire, &SOURCE, dropped)? == 0, "the one before is in force again");
        if in_time {
            ensure!(refused == 1, "it is in force until its time is over");
            return Ok(());
        }
    }
    bail!("the machine is too slow to look at a policy within minutes")
}

#[test]
fn an_unconfirmed_policy_goes_back_by_itself() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let agent = site.start(&["--interface", FAR])?;
    site.apply(OPEN)?;
    let file = site.file("tight.toml");
    fs::write(&file, TIGHT)?;
    waits_and_goes_back(&site, &wire, || Ok(()))?;
    let tighten = |time: &str| site.ask(&["policy", "apply", &path(&file), "--confirm-within", time]);
    tighten("1h")?;
    ensure!(site.status()?.pending.is_some(), "it waits for its confirmation");
    site.ask(&["policy", "confirm"])?;
    ensure!(site.status()?.pending.is_none() && count_of(&site, &wire, &SOURCE, dropped)? == 1, "confirmed, it stays");
    ends_with(&site, 1, &["policy", "confirm"])?;
    site.apply(OPEN)?;
    // A dead agent takes nothing back; the next one does, as soon as it starts.
    tighten("1s")?;
    agent.kill()?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    let mut agent = Some(site.start(&["--interface", FAR])?);
    site.until("it goes back after a crash", |status| status.pending.is_none())?;
    ensure!(count_of(&site, &wire, &SOURCE, dropped)? == 0, "the one before is in force again");
    // One that starts before its time goes on waiting.
    waits_and_goes_back(&site, &wire, || {
        agent.take().context("an agent runs")?.kill()?;
        agent = Some(site.start(&["--interface", FAR])?);
        Ok(())
    })
}

#[test]
fn a_step_back_never_leads_to_what_nobody_confirmed() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let agent = site.start(&["--interface", FAR])?;
    site.apply("[events]\nrate = \"7/s\"\n")?;
    site.apply(OPEN)?;
    let file = site.file("tight.toml");
    fs::write(&file, TIGHT)?;
    site.ask(&["policy", "apply", &path(&file), "--confirm-within", "1s"])?;
    site.until("it goes back", |status| status.pending.is_none())?;
    agent.kill()?;
    let _agent = site.start(&["--interface", FAR])?;
    site.ask(&["policy", "rollback"])?;
    ensure!(site.ask(&["policy", "export"])?.contains("7/s"), "before what is in force now");
    ensure!(count_of(&site, &wire, &SOURCE, dropped)? == 0, "what nobody confirmed stays away");
    site.ask(&["policy", "rollback"])?;
    let said = ends_with(&site, 1, &["policy", "rollback"])?;
    ensure!(said.contains("nothing was in force before"), "{said}");
    // Whoever wants it all the same names it.
    site.ask(&["policy", "rollback", "3"])?;
    ensure!(count_of(&site, &wire, &SOURCE, dropped)? == 1);
    Ok(())
}

#[test]
fn a_policy_is_exported_compared_and_taken_back() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let agent = site.start(&["--interface", FAR])?;
    site.apply(OPEN)?;
    site.apply(TIGHT)?;
    let exported = site.file("exported.toml");
    fs::write(&exported, site.ask(&["policy", "export"])?)?;
    ensure!(!site.ask(&["policy", "diff", &path(&exported)])?.contains(['+', '-', '~']), "it is what was exported");
    let first = site.file("first.toml");
    fs::write(&first, site.ask(&["policy", "export", "--revision", "1"])?)?;
    let diff = site.ask(&["policy", "diff", &path(&first)])?;
    ensure!(diff == "- sources.block 192.0.2.0/24\n", "the difference is named: {diff}");
    let diff = site.json(&["policy", "diff", &path(&first)])?;
    let change = serde_json::json!(
        {"kind": "sources", "name": null, "field": "block", "from": "192.0.2.0/24", "to": null}
    );
    ensure!(diff["changes"] == serde_json::json!([change]), "{diff}");
    site.ask(&["policy", "rollback"])?;
    ensure!(count_of(&site, &wire, &SOURCE, dropped)? == 0, "the first policy is in force again");
    let history = site.json(&["policy", "history"])?;
    ensure!(history["current"] == 3 && history["revisions"].as_array().is_some_and(|all| all.len() == 3), "{history}");
    ends_with(&site, 1, &["policy", "apply", &path(&exported), "--if-revision", "1"])?;
    site.ask(&["policy", "rollback", "2"])?;
    agent.kill()?;
    let _agent = site.start(&["--interface", FAR])?;
    ensure!(site.status()?.revision == 4 && count_of(&site, &wire, &SOURCE, dropped)? == 1, "it survives the agent");
    Ok(())
}

#[test]
fn a_file_that_says_nothing_takes_nothing_away_unless_it_is_meant() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.apply(TIGHT)?;
    let (empty, cut) = (site.file("empty.toml"), site.file("cut.toml"));
    fs::write(&empty, "")?;
    fs::write(&cut, "# the policy of this host\n\n")?;
    for file in [&empty, &cut] {
        let file: &str = &path(file);
        let said = ends_with(&site, 78, &["policy", "apply", file])?;
        ensure!(said.contains(&format!("{file}:1:1: this says nothing")) && said.contains("--empty"), "{said}");
        let checked = ends_with(&site, 78, &["policy", "check", file])?;
        ensure!(checked.lines().last() == said.lines().last(), "check and apply differ: {checked}\n{said}");
    }
    ensure!(site.status()?.revision == 1 && count_of(&site, &wire, &SOURCE, dropped)? == 1, "all is as it was");
    // What would go is shown all the same.
    let diff = site.ask(&["policy", "diff", &path(&empty)])?;
    ensure!(diff.contains("- sources.block 192.0.2.0/24\n"), "{diff}");
    site.ask(&["policy", "apply", &path(&empty), "--empty"])?;
    ensure!(site.status()?.revision == 2 && count_of(&site, &wire, &SOURCE, dropped)? == 0, "it is meant");
    // Who says that the host observes says something.
    site.ask(&["policy", "rollback"])?;
    site.apply("mode = \"observe\"\n")?;
    ensure!(!site.ask(&["policy", "export"])?.contains("192.0.2.0/24"), "defaults are in force");
    Ok(())
}

#[test]
fn single_commands_edit_the_same_policy() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.ask(&["mode", "enforce"])?;
    site.ask(&["service", "set", "discard", "--protocol", "udp", "--port", "9"])?;
    site.ask(&["limit", "set", "few", "--unit", "packets", "--rate", "2/min", "--service", "discard"])?;
    let (one, other) = (SOURCE[0], Ipv4Addr::new(192, 0, 2, 2));
    ensure!(count_of(&site, &wire, &[one, one, one, other], dropped)? == 1, "the third of one source is refused");
    site.ask(&["limit", "set", "few", "--rate", "1000/s"])?;
    let few = site.limit("few")?;
    ensure!(few.limit.service.as_deref() == Some("discard"), "what is not named stays");
    ensure!((few.limit.burst, few.burst) == (None, 1000), "what stands for the burst is shown: {few:?}");
    ensure!(site.ask(&["limit", "show", "few"])?.contains("1000 (by default) at once"));
    site.ask(&["allow", "add", "192.0.2.1"])?;
    site.ask(&["known", "add", "192.0.2.0/25"])?;
    ensure!(site.json(&["allow", "list"])?["prefixes"][0] == "192.0.2.1/32");
    let allowed = |reason: &str, _: &str| reason == "allowed";
    ensure!(count_of(&site, &wire, &[one, other], allowed)? == 1);
    let said = ends_with(&site, 1, &["service", "delete", "discard"])?;
    ensure!(said.contains("few"), "the limit that needs it is named: {said}");
    site.ask(&["limit", "delete", "few"])?;
    site.ask(&["service", "delete", "discard"])?;
    ends_with(&site, 1, &["limit", "delete", "few"])?;
    let policy = site.ask(&["policy", "export"])?;
    ensure!(policy.contains("192.0.2.0/25") && !policy.contains("discard"), "{policy}");
    Ok(())
}
