//! Offered up to three times over on a veth pair, by the generator.

use crate::{Measured, Offer, SOURCE, SPAN};
use anyhow::{Context, Result, ensure};
use std::{thread, time::Duration};
use throttle_agent::datapath::Mode;
use throttle_tests::{
    generator::{Flood, Sender},
    kernel::{NEVER, Order},
    machine, needs_root,
    program::{Program, SECOND},
    wire::{FAR, Wire},
};

#[test]
fn three_times_the_rate_on_a_wire_admits_the_rate() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::silent()?;
    let mut program = Program::live("")?;
    wire.far.enter(|| program.datapath.attach(FAR, Mode::Native))??;
    let sender = Sender::on(&wire)?;
    for offer in Offer::all() {
        offer.weigh("on a wire", |offer| measure(&wire, &sender, &mut program, offer))?;
    }
    Ok(())
}

/// Makes the offer to a limit whose buckets are full.
fn measure(wire: &Wire, sender: &Sender, program: &mut Program, offer: Offer) -> Result<Measured> {
    program.apply(&offer.policy())?;
    let before = program.limit("l")?;
    let order = Order {
        honest: u32::from_be_bytes(SOURCE).into(),
        honest_interval: SECOND * offer.cpus as u64 / (3 * offer.rate),
        catch_up: SECOND / 10,
        begin: NEVER,
        ..Order::SILENT
    };
    let start = |cpu| sender.start_steady(&wire.near, cpu, &offer.frame(), order);
    let mut floods = offer.cpus().map(start).collect::<Result<Vec<_>>>()?;
    // All are up and wait; they begin and end by the clock, so that none sends while another does not.
    let begin = machine::monotonic() + SECOND / 2;
    let end = begin + SPAN;
    floods.iter_mut().try_for_each(|flood| flood.follow(Order { begin, end, ..order }))?;
    thread::sleep(Duration::from_nanos(end.saturating_sub(machine::monotonic())));
    let sent = Flood::stop_all(floods)?;
    let after = program.limit("l")?;
    program.apply("")?;
    let admitted = after.admitted.packets - before.admitted.packets;
    let judged = admitted + after.refused.packets - before.refused.packets;
    let offered: u64 = sent.iter().map(|sent| sent.honest).sum();
    ensure!(judged == offered, "{offered} frames were sent, {judged} judged");
    let first = sent.iter().map(|sent| sent.first).min().context("a flood ran")?;
    let last = sent.iter().map(|sent| sent.last).max().context("a flood ran")?;
    let pause = sent.iter().map(|sent| sent.pause).max().context("a flood ran")?;
    Ok(Measured { offered, admitted, window: [last - first; 2], pause })
}
