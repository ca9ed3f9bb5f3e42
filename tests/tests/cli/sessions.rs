//! Nobody locks themselves out: whoever writes over SSH is warned of what would hit them, and stays allowed
//! unless they ask for the contrary.

use super::{count_of, said};
use anyhow::{Result, ensure};
use std::{fs, net::Ipv4Addr};
use throttle_tests::{
    agent::{Site, path},
    needs_root,
    wire::{FAR, Wire},
};

const OPERATOR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// Runs a command as from the operator's SSH session; it must succeed. Gives all that it says.
fn over_ssh(site: &Site<'_>, arguments: &[&str]) -> Result<String> {
    let mut command = site.command(arguments)?;
    let output = command.env("SSH_CONNECTION", format!("{OPERATOR} 50022 10.98.0.1 22")).output()?;
    let said = said(&output) + &String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "throttle {arguments:?}: {}: {said}", output.status);
    Ok(said)
}

fn dropped(_: &str, outcome: &str) -> bool {
    outcome == "drop"
}

#[test]
fn a_block_warns_the_session_which_stays_allowed_unless_it_asks_not_to() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let agent = site.start(&["--interface", FAR])?;
    site.apply("mode = \"enforce\"")?;
    let said = over_ssh(&site, &["block", "add", "192.0.2.0/24"])?;
    ensure!(said.contains("covers your session from 192.0.2.1") && said.contains("stays allowed"), "{said}");
    ensure!(count_of(&site, &wire, &[OPERATOR, NEIGHBOUR], dropped)? == 1, "only the neighbour is refused");
    agent.kill()?;
    let _agent = site.start(&["--interface", FAR])?;
    ensure!(count_of(&site, &wire, &[OPERATOR, NEIGHBOUR], dropped)? == 1, "it survives the agent");
    over_ssh(&site, &["block", "add", "192.0.2.0/24", "--lock-me-out"])?;
    ensure!(count_of(&site, &wire, &[OPERATOR, NEIGHBOUR], dropped)? == 2, "what is asked for is done");
    Ok(())
}

#[test]
fn a_policy_warns_the_session_which_stays_allowed_unless_it_asks_not_to() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    let file = site.file("tight.toml");
    fs::write(&file, "mode = \"enforce\"\n[[limit]]\nname = \"few\"\nunit = \"packets\"\nrate = \"1/hour\"\n")?;
    let said = over_ssh(&site, &["policy", "apply", &path(&file)])?;
    ensure!(said.contains("`few`") && said.contains("your session from 192.0.2.1"), "{said}");
    let twice = [OPERATOR, OPERATOR, NEIGHBOUR, NEIGHBOUR];
    ensure!(count_of(&site, &wire, &twice, dropped)? == 1, "only the neighbour is refused");
    let page = site.ask(&["status"])?;
    ensure!(page.contains("192.0.2.1 stays allowed"), "status does not say so: {page}");
    over_ssh(&site, &["policy", "apply", &path(&file), "--lock-me-out"])?;
    ensure!(count_of(&site, &wire, &twice, dropped)? == 3, "what is asked for is done");
    Ok(())
}

#[test]
fn a_session_that_nothing_hits_is_not_mentioned() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    let said = over_ssh(&site, &["mode", "enforce"])? + &over_ssh(&site, &["block", "add", "203.0.113.0/24"])?;
    ensure!(!said.contains("session"), "{said}");
    let status = site.status()?;
    ensure!(status.session_allows.is_empty() && status.blocks == 1, "{status:?}");
    Ok(())
}
