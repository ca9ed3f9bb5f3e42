//! Blocks by command: a hundred thousand at once, enforced, and their end.

use super::{count_of, ends_with};
use anyhow::{Result, ensure};
use std::{fmt::Write as _, fs, net::Ipv4Addr, time::Instant};
use throttle_tests::{
    agent::{Site, path},
    needs_root, say,
    wire::{FAR, Wire},
};

fn blocked(reason: &str, outcome: &str) -> bool {
    (reason, outcome) == ("blocked", "drop")
}

#[test]
fn a_hundred_thousand_blocks_in_one_command_are_enforced() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.apply("mode = \"enforce\"")?;
    // 60 000 addresses, 20 000 prefixes, 20 000 IPv6 networks.
    let mut list = String::from("# a list as others publish it\n");
    let address = |number: u32| Ipv4Addr::from_bits(0x0a00_0000 + number * 3);
    let network = |number: u32| Ipv4Addr::from_bits(0x6400_0000 + number * 32);
    for number in 0..60_000 {
        writeln!(list, "{}", address(number))?;
    }
    for number in 0..20_000 {
        writeln!(list, "{}/28  # and why", network(number))?;
        writeln!(list, "2001:db8:{number:x}::/48")?;
    }
    let file = site.file("blocks.txt");
    fs::write(&file, list)?;
    let start = Instant::now();
    site.ask(&["block", "add", "--file", &path(&file), "--for", "1h", "--reason", "a list"])?;
    let added = start.elapsed();
    ensure!(site.status()?.blocks == 100_000, "all are counted");
    let inside: Vec<_> =
        (0..500).flat_map(|n| [address(n * 119), Ipv4Addr::from_bits(network(n * 39).to_bits() + 9)]).collect();
    let beside: Vec<_> =
        inside.iter().map(|source| Ipv4Addr::from_bits(source.to_bits() + 16 - (source.to_bits() >> 30))).collect();
    ensure!(count_of(&site, &wire, &inside, blocked)? == 1_000, "all of them are refused");
    let start = Instant::now();
    site.ask(&["block", "delete", "--all"])?;
    say!("100 000 blocks: added in {added:.2?}, removed in {:.2?}", start.elapsed());
    ensure!(count_of(&site, &wire, &beside, blocked)? == 0 && site.status()?.blocks == 0, "none is refused any more");
    ensure!(count_of(&site, &wire, &inside, blocked)? == 0, "none is refused any more");
    Ok(())
}

#[test]
fn blocks_are_all_added_or_none() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    let file = site.file("blocks.txt");
    fs::write(&file, "192.0.2.1\n192.0.2.2\nnonsense\n")?;
    let said = ends_with(&site, 78, &["block", "add", "--file", &path(&file)])?;
    ensure!(said.contains("blocks.txt:3") && said.contains("nonsense"), "the line is named: {said}");
    ensure!(site.status()?.blocks == 0, "nothing was added");
    ends_with(&site, 1, &["block", "delete", "192.0.2.1"])?;
    Ok(())
}

#[test]
fn a_block_ends_by_itself_and_by_command() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let agent = site.start(&["--interface", FAR])?;
    site.apply("mode = \"enforce\"\n[sources]\nallow = [\"192.0.2.3\"]\n")?;
    let sources = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 3)];
    site.ask(&["block", "add", "192.0.2.1", "--for", "4s"])?;
    site.ask(&["block", "add", "192.0.2.0/24", "--reason", "a test"])?;
    ensure!(count_of(&site, &wire, &sources, blocked)? == 2, "the allowed one passes");
    site.ask(&["block", "delete", "192.0.2.0/24"])?;
    ensure!(count_of(&site, &wire, &sources, blocked)? == 1, "one is left");
    // It ends though the agent is dead: the kernel knows when.
    agent.kill()?;
    std::thread::sleep(std::time::Duration::from_secs(5));
    let _agent = site.start(&["--interface", FAR])?;
    ensure!(count_of(&site, &wire, &sources, blocked)? == 0, "its time is over");
    site.until("the agent forgets it", |status| status.blocks == 0)?;
    Ok(())
}
