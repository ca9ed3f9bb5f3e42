//! Agents die, programs are rebuilt, interfaces go and come: every packet is judged all the while, and no bucket forgets.

mod back;
mod changes;
mod endings;

use anyhow::{Context, Result, ensure};
use std::{
    thread,
    time::{Duration, Instant},
};
use throttle_tests::{
    agent::Site,
    frames::Frame,
    generator::{Counter, Sender},
    kernel::{NEVER, Order, Received, Sent},
    machine, needs_root,
    program::SECOND,
    say,
    wire::{FAR, Wire},
};

const HONEST: [u8; 4] = [198, 51, 100, 7];
const RUN: [&str; 3] = ["--interface", FAR, "--mode=native"];

/// A bucket so slow that a forgotten one shows at once.
const POLICY: &str = r#"
mode = "enforce"
[[limit]]
name = "slow"
unit = "packets"
rate = "50/min"
"#;
const BURST: u64 = 50;
const INTERVAL: u64 = 60 * SECOND / 50;

/// One source at a thousand times its limit, and a flood of others beside it.
fn load() -> Order {
    Order {
        flood: u32::from_be_bytes([10, 0, 0, 0]),
        random: 0xffff,
        flood_interval: SECOND / 200_000,
        honest: u32::from_be_bytes(HONEST),
        honest_interval: SECOND / 1_000,
        ..Order::SILENT
    }
}

fn frame() -> Vec<u8> {
    Frame::v4(HONEST).length(60).bytes()
}

/// All that came through.
fn total(received: &Received) -> u64 {
    received.honest + received.other
}

/// Every frame that was sent was judged, and what came through is what was let through.
fn all_judged(site: &Site<'_>, sent: &Sent, received: &Received) -> Result<()> {
    let judged = site.judged(|_, _| true)?;
    let passed = site.judged(|_, outcome| outcome == "pass" || outcome == "observe")?;
    ensure!(judged == sent.flood + sent.honest, "{judged} frames were judged of {sent:?}");
    ensure!(passed == total(received), "{passed} frames were let through, {received:?} came");
    Ok(())
}

/// The source that was hammered all the time got its burst and its rate, as if nothing had happened.
fn nothing_forgotten(sent: &Sent, received: &Received) -> Result<()> {
    let entitled = BURST + (sent.last - sent.first) / INTERVAL + 1;
    let honest = received.honest;
    ensure!((entitled - 2..=entitled).contains(&honest), "{honest} came through, {entitled} is its right");
    Ok(())
}

#[test]
fn an_agent_killed_every_second_changes_nothing_for_traffic() -> Result<()> {
    const KILLS: u32 = 20;
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let mut agent = site.start(&RUN)?;
    site.apply(POLICY)?;
    let counter = Counter::on(&wire, load().honest)?;
    let flood = Sender::on(&wire)?.start(&wire.near, machine::cpus() - 1, &frame(), load())?;
    let mut dead = Duration::ZERO;
    let start = Instant::now();
    for kill in 1..=KILLS {
        thread::sleep((start + Duration::from_secs(kill.into())).saturating_duration_since(Instant::now()));
        let died = Instant::now();
        agent.kill()?;
        agent = site.start(&RUN).with_context(|| format!("after kill {kill}"))?;
        dead += died.elapsed();
    }
    let sent = flood.stop()?;
    let received = counter.received()?;
    say!(
        "{KILLS} kills: {} frames sent, {} of the hammering source's {} came through; no agent for {dead:.1?} of {:.1?}",
        sent.flood + sent.honest,
        received.honest,
        sent.honest,
        start.elapsed(),
    );
    all_judged(&site, &sent, &received)?;
    nothing_forgotten(&sent, &received)?;
    site.until("nothing is wrong after all kills", |status| status.problems.is_empty())?;
    ensure!(agent.stop()?.success(), "the agent ends when it is asked to");
    Ok(())
}

#[test]
fn a_rebuilt_program_takes_over_without_a_gap() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let mut agent = site.start(&RUN)?;
    site.apply(POLICY)?;
    site.ask(&["block", "add", "203.0.113.9", "--for", "1h"])?;
    let counter = Counter::on(&wire, load().honest)?;
    let flood = Sender::on(&wire)?.start(&wire.near, machine::cpus() - 1, &frame(), load())?;
    let mut programs = Vec::new();
    for rebuilt in [&["--debug"][..], &[], &["--debug"]] {
        programs.push(program_id(&wire)?);
        ensure!(agent.stop()?.success(), "the agent ends when it is asked to");
        // With its debugging output compiled in, the program is another one.
        agent = site.start(&[&RUN[..], rebuilt].concat())?;
    }
    programs.push(program_id(&wire)?);
    let sent = flood.stop()?;
    let received = counter.received()?;
    all_judged(&site, &sent, &received)?;
    nothing_forgotten(&sent, &received)?;
    ensure!(site.status()?.blocks == 1, "the block is still there");
    programs.dedup();
    ensure!(programs.len() == 4, "the program was replaced each time: {programs:?}");
    say!("3 replacements: {} frames sent, all judged", sent.flood + sent.honest);
    Ok(())
}

/// The kernel's number of the XDP program on the far interface; none where there is none.
fn program_id(wire: &Wire) -> Result<Option<u64>> {
    let links: serde_json::Value = serde_json::from_str(&wire.far.ip(&["-json", "link", "show", "dev", FAR])?)?;
    Ok(links[0]["xdp"]["prog"]["id"].as_u64())
}

fn is_attached(wire: &Wire) -> Result<bool> {
    Ok(program_id(wire)?.is_some())
}

#[test]
fn an_interface_that_goes_and_comes_back_is_throttled_again() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&RUN)?;
    site.apply(POLICY)?;
    let burst = || -> Result<(Sent, Received)> {
        let counter = Counter::on(&wire, load().honest)?;
        let order = Order { flood_interval: NEVER, ..load() };
        let flood = Sender::on(&wire)?.start(&wire.near, machine::cpus() - 1, &frame(), order)?;
        thread::sleep(Duration::from_millis(500));
        Ok((flood.stop()?, counter.received()?))
    };
    let (sent, received) = burst()?;
    nothing_forgotten(&sent, &received)?;
    wire.disconnect()?;
    site.until("the interface is missed", |status| {
        status.attachments.iter().any(|it| it.interface == FAR && !it.attached) && !status.problems.is_empty()
    })?;
    ensure!(site.run(&["status"])?.status.code() == Some(4), "status says that it is degraded");
    wire.connect()?;
    site.until("the interface is back", |status| {
        status.attachments.iter().all(|it| it.attached) && status.problems.is_empty()
    })?;
    let (again, received) = burst()?;
    ensure!(received.honest <= 1 + (again.last - sent.first) / INTERVAL, "{received:?}: its bucket was forgotten");
    ensure!(site.judged(|_, _| true)? == sent.honest + again.honest, "a frame was not judged");
    Ok(())
}

#[test]
fn two_interfaces_share_one_bucket() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::silent()?;
    // The second interface is the near end: it belongs to the far host for this test.
    wire.near.ip(&["link", "set", "near", "netns", wire.far.name()])?;
    wire.far.ip(&["link", "set", "near", "up"])?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR, "--interface", "near"])?;
    site.apply(POLICY)?;
    let send = |interface: &str, count: usize| -> Result<()> {
        wire.far.enter(|| throttle_tests::clients::send_raw(interface, std::iter::repeat_n(&frame()[..], count)))?
    };
    send("near", 40)?;
    send(FAR, 40)?;
    let status = site.until("all frames are judged", |status| {
        let judged = |limit: &throttle_agent::api::wire::LimitView| {
            limit.tallies.admitted.packets + limit.tallies.refused.packets >= 80
        };
        status.limits.iter().all(judged)
    })?;
    let tallies = status.limits[0].tallies;
    ensure!(tallies.admitted.packets == BURST && tallies.refused.packets == 30, "{tallies:?}");
    Ok(())
}

#[test]
fn detach_undoes_everything() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let agent = site.start(&RUN)?;
    site.apply(POLICY)?;
    ensure!(site.run(&["detach"])?.status.code() == Some(1), "detach is refused beside a running agent");
    agent.kill()?;
    ensure!(is_attached(&wire)?, "the program outlives the agent");
    site.ask(&["detach"])?;
    ensure!(!is_attached(&wire)?, "no program is left on the interface");
    let left = std::fs::read_dir(site.pin_dir()).map_or(0, Iterator::count);
    ensure!(left == 0, "{left} pins are left");
    let counter = Counter::on(&wire, load().honest)?;
    let order = Order { flood_interval: NEVER, ..load() };
    // The driver takes frames only where there is a program or GRO; throttle's is gone.
    machine::run(wire.far.command("ethtool").args(["-K", FAR, "gro", "on"]))?;
    let flood = Sender::on(&wire)?.start(&wire.near, machine::cpus() - 1, &frame(), order)?;
    thread::sleep(Duration::from_millis(300));
    let sent = flood.stop()?;
    let received = counter.received()?;
    ensure!(received.honest == sent.honest && sent.honest > BURST, "{received:?} of {sent:?} came through");
    ensure!(site.run(&["detach"])?.status.success(), "there is nothing left to undo, and that is well");
    let _again = site.start(&RUN)?;
    ensure!(site.status()?.limits.len() == 1, "the policy is kept in the store");
    Ok(())
}
