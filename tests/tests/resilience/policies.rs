//! Policies that change under full load.

use super::{POLICY, Traffic, load, throttled};
use anyhow::{Result, ensure};
use std::{
    thread,
    time::{Duration, Instant},
};
use throttle_tests::{agent::Site, kernel::Order, machine, needs_root, say, wire::Wire};

/// How many policies are put in force.
const POLICIES: u32 = 60;

#[test]
fn policies_change_under_full_load_and_no_bucket_forgets() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let agent = throttled(&site)?;
    let traffic = Traffic::on(&wire, Order { flood_interval: 0, random: u32::MAX.into(), ..load() })?;
    let began = Instant::now();
    for number in 0..POLICIES {
        let body = serde_json::json!({ "toml": policy(number) }).to_string();
        let (status, answer) = site.request("POST", "/v1/policy/apply", &body)?;
        ensure!(status == 200, "policy {number}: {status}: {answer}");
        thread::sleep(Duration::from_millis(20));
    }
    let took = began.elapsed();
    ensure!(site.status()?.revision == u64::from(POLICIES) + 1, "each was a revision");
    say!("{POLICIES} policies in {took:.1?}: {}", traffic.unharmed(&site)?);
    ensure!(agent.stop()?.success(), "the agent ends when it is asked to");
    Ok(())
}

/// The limit whose buckets stay, among others that come, change their rate and their unit, and go; with services,
/// answers and sources that do likewise. None of them touches the hammering source.
fn policy(number: u32) -> String {
    let others = (0..number % 7).map(|other| {
        let (unit, rate) = if (number + other).is_multiple_of(2) { ("packets", "/s") } else { ("bytes", "B/s") };
        let rate = format!("{}{rate}", 900_000_000 + number);
        format!("[[limit]]\nname = \"other-{other}\"\nunit = \"{unit}\"\nrate = \"{rate}\"\nsources = 3000\n")
    });
    let service = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n\
                   [[limit]]\nname = \"opens\"\nservice = \"web\"\nunit = \"connections\"\nrate = \"1/s\"\nsources = 300\n";
    let block = format!("[sources]\nblock = [\"203.0.113.{}\"]\n", number % 256);
    let parts = [POLICY.to_owned(), others.collect(), block, [service, ""][number as usize % 2].to_owned()];
    parts.concat()
}
