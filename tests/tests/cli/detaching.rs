//! What `detach` takes away and what it leaves, and that the remedies which name it do what they say.

use super::{said, send_from};
use anyhow::{Context, Result, ensure};
use std::{fs, net::Ipv4Addr};
use throttle_tests::{
    agent::{Site, path},
    needs_root,
    wire::{FAR, Wire},
};

const POLICY: &str = "mode = \"enforce\"\n[[limit]]\nname = \"few\"\nunit = \"packets\"\nrate = \"9/hour\"\n";

#[test]
fn an_interface_of_an_earlier_agent_is_given_up_as_its_problem_says_and_counters_are_kept() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let agent = site.start(&["--interface", FAR])?;
    site.apply(POLICY)?;
    send_from(&wire, [Ipv4Addr::new(198, 51, 100, 7); 3])?;
    site.until("all are judged", |status| status.limits[0].tallies.admitted.packets == 3)?;
    agent.stop()?;
    let agent = site.start(&[])?;
    let problems = site.status()?.problems;
    let remedy = "stop the agent and `throttle detach --interface far`, which keeps buckets and counters";
    ensure!(problems.iter().any(|problem| problem.contains(remedy)), "{problems:?}");
    agent.stop()?;
    site.ask(&["detach", "--interface", FAR])?;
    ensure!(site.program_tag().is_err(), "it is on no interface");
    let _agent = site.start(&["--interface", FAR])?;
    ensure!(site.limit("few")?.tallies.admitted.packets == 3, "{:?}", site.limit("few")?);
    Ok(())
}

#[test]
fn detach_leaves_nothing_of_ours_and_names_what_is_not() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let root = site.pin_dir();
    // An agent died between the two names of a program that watches sockets.
    let interrupt = || -> Result<()> {
        site.start(&["--interface", FAR])?.kill()?;
        fs::rename(root.join("sockets"), root.join("sockets-new")).context("as it was until it was renamed")
    };
    interrupt()?;
    let output = site.run(&["detach"])?;
    ensure!(output.status.success() && said(&output).is_empty() && !root.exists(), "{output:?}");

    interrupt()?;
    let stranger = root.join("somebodys");
    fs::create_dir(&stranger)?;
    let output = site.run(&["detach", "--json"])?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(output.status.success() && report["left"] == serde_json::json!([path(&stranger)]), "{output:?}");
    let output = site.run(&["detach"])?;
    ensure!(said(&output).contains(&format!("what is none of ours stays: {}", path(&stranger))), "{output:?}");
    Ok(())
}
