//! Agents die, programs are rebuilt, interfaces go and come: every packet is judged all the while, and no bucket forgets.

mod back;
mod changes;
mod commits;
mod crashes;
mod endings;
mod kills;
mod leaving;
mod policies;
mod unstored;
mod upgrades;
mod web;

use anyhow::{Result, ensure};
use std::{thread, time::Duration};
use throttle_tests::{
    agent::{Agent, Site},
    frames::Frame,
    generator::{Counter, Flood, Sender},
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
        flood: 10 << 24,
        random: 0xffff,
        flood_interval: SECOND / 200_000,
        honest: u32::from_be_bytes(HONEST).into(),
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

/// What is sent over a wire and counted behind throttle.
struct Traffic {
    flood: Flood,
    counter: Counter,
}

impl Traffic {
    /// Begins now.
    fn on(wire: &Wire, order: Order) -> Result<Self> {
        let counter = Counter::on(wire, order)?;
        let flood = Sender::on(wire)?.start(&wire.near, machine::cpus() - 1, &frame(), order)?;
        Ok(Self { flood, counter })
    }

    /// Ends it: what was sent, and what came through.
    fn stop(self) -> Result<(Sent, Received)> {
        let sent = self.flood.stop()?;
        Ok((sent, self.counter.received()?))
    }

    /// Ends it: every frame was judged and no bucket forgot, as if nothing had happened. Says how many frames that were.
    fn unharmed(self, site: &Site<'_>) -> Result<String> {
        let (sent, received) = self.stop()?;
        all_judged(site, &sent, &received)?;
        nothing_forgotten(&sent, &received)?;
        let frames = sent.flood + sent.honest;
        Ok(format!("all of {frames} frames judged, {} of one source's {} came through", received.honest, sent.honest))
    }
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

/// An agent with [`POLICY`] in force.
fn throttled(site: &Site<'_>) -> Result<Agent> {
    let agent = site.start(&RUN)?;
    site.apply(POLICY)?;
    Ok(agent)
}

#[test]
fn a_rebuilt_program_takes_over_without_a_gap() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let mut agent = throttled(&site)?;
    site.ask(&["block", "add", "203.0.113.9", "--for", "1h"])?;
    let traffic = Traffic::on(&wire, load())?;
    let mut programs = Vec::new();
    for rebuilt in [&["--debug"][..], &[], &["--debug"]] {
        programs.push(program_id(&wire)?);
        ensure!(agent.stop()?.success(), "the agent ends when it is asked to");
        // With its debugging output compiled in, the program is another one.
        agent = site.start(&[&RUN[..], rebuilt].concat())?;
    }
    programs.push(program_id(&wire)?);
    say!("3 replacements: {}", traffic.unharmed(&site)?);
    ensure!(site.status()?.blocks == 1, "the block is still there");
    programs.dedup();
    ensure!(programs.len() == 4, "the program was replaced each time: {programs:?}");
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
    let _agent = throttled(&site)?;
    let burst = || -> Result<(Sent, Received)> {
        let traffic = Traffic::on(&wire, Order { flood_interval: NEVER, ..load() })?;
        thread::sleep(Duration::from_millis(500));
        traffic.stop()
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
    let agent = throttled(&site)?;
    ensure!(site.run(&["detach"])?.status.code() == Some(1), "detach is refused beside a running agent");
    agent.kill()?;
    ensure!(is_attached(&wire)?, "the program outlives the agent");
    site.ask(&["detach"])?;
    ensure!(!is_attached(&wire)?, "no program is left on the interface");
    let left = std::fs::read_dir(site.pin_dir()).map_or(0, Iterator::count);
    ensure!(left == 0, "{left} pins are left");
    // The driver takes frames only where there is a program or GRO; throttle's is gone.
    machine::run(wire.far.command("ethtool").args(["-K", FAR, "gro", "on"]))?;
    let traffic = Traffic::on(&wire, Order { flood_interval: NEVER, ..load() })?;
    thread::sleep(Duration::from_millis(300));
    let (sent, received) = traffic.stop()?;
    ensure!(received.honest == sent.honest && sent.honest > BURST, "{received:?} of {sent:?} came through");
    ensure!(site.run(&["detach"])?.status.success(), "there is nothing left to undo, and that is well");
    let _again = site.start(&RUN)?;
    ensure!(site.status()?.limits.len() == 1, "the policy is kept in the store");
    Ok(())
}
