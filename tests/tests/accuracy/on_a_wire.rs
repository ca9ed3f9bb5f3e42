//! Offered several times over on a veth pair, by the generator.

use crate::{Measured, Offer, SOURCE, levels::Algorithm};
use anyhow::{Context, Result, ensure};
use std::{thread, time::Duration};
use throttle_tests::{
    generator::{Flood, Sender},
    kernel::{NEVER, Order},
    machine, needs_root,
    program::{Program, SECOND},
    wire::Wire,
};

/// How many times over: of a leaky bucket so many that the next packet comes as soon as it is due.
const TIMES: u64 = 3;
const TIMES_LEAKY: u64 = 1_000;
/// How soon more frames come out of a queue, if there are any.
const GLANCE: Duration = Duration::from_millis(10);

#[test]
fn three_times_the_rate_on_a_wire_admits_the_rate() -> Result<()> {
    weigh(Offer::rates())
}

#[test]
fn every_level_admits_its_rate_from_one_cpu_and_from_two_in_one_queue_and_spread() -> Result<()> {
    weigh(Offer::levels())
}

fn weigh(offers: impl Iterator<Item = Offer>) -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let mut program = Program::live("")?;
    let mut laid: Option<(usize, Wire, Sender)> = None;
    for offer in offers {
        let (_, wire, sender) = match laid.take() {
            Some(laid) if laid.0 == offer.queues => laid,
            before => {
                drop(before);
                let wire = Wire::silent_with(offer.queues)?;
                program.attach(&wire)?;
                let sender = Sender::on(&wire)?;
                (offer.queues, wire, sender)
            }
        };
        offer.weigh("on a wire", |offer| measure(&wire, &sender, &mut program, offer))?;
        laid = Some((offer.queues, wire, sender));
    }
    Ok(())
}

/// Makes the offer to a limit whose buckets are full.
fn measure(wire: &Wire, sender: &Sender, program: &mut Program, offer: Offer) -> Result<Measured> {
    let Offer { limit, cpus, .. } = offer;
    program.apply(&limit.policy())?;
    let (before, dropped, all) = (program.limit(limit.counted())?, wire.lost()?, judged(program)?);
    let times = if limit.algorithm == Algorithm::LeakyBucket { TIMES_LEAKY } else { TIMES };
    let order = Order {
        honest: u64::from(u32::from_be_bytes(SOURCE)) & !limit.level.turns,
        turns: limit.level.turns,
        honest_interval: SECOND * cpus as u64 / (times * limit.rate),
        catch_up: SECOND / 10,
        begin: NEVER,
        ..Order::SILENT
    };
    let start = |cpu| sender.start_steady(&wire.near, cpu, &limit.frame(), order);
    let mut floods = offer.cpus().map(start).collect::<Result<Vec<_>>>()?;
    // All are up and wait; they begin and end by the clock, so that none sends while another does not.
    let mut begin = machine::monotonic() + SECOND / 4;
    if limit.algorithm.counts_windows() {
        begin = begin.next_multiple_of(SECOND);
    }
    let end = begin + offer.span;
    floods.iter_mut().try_for_each(|flood| flood.follow(Order { begin, end, ..order }))?;
    thread::sleep(Duration::from_nanos(end.saturating_sub(machine::monotonic())));
    let sent = Flood::stop_all(floods)?;
    let everything: u64 = sent.iter().map(|sent| sent.honest).sum();
    let offered = settled(program)? - all;
    // Where CPUs share a queue, veth's count of what finds it full is not exact.
    let missing = everything.checked_sub(offered).context("more was judged than sent")?;
    ensure!(offer.queues < cpus || missing == wire.lost()? - dropped, "{everything} were sent, {offered} judged");
    let admitted = program.limit(limit.counted())?.admitted.packets - before.admitted.packets;
    program.apply("")?;
    let first = sent.iter().map(|sent| sent.first).min().context("a flood ran")?;
    let last = sent.iter().map(|sent| sent.last).max().context("a flood ran")?;
    let pause = sent.iter().map(|sent| sent.pause).max().context("a flood ran")?;
    Ok(Measured { offered, admitted, window: [last - first; 2], pause })
}

/// Frames that the program has judged, whatever became of them, once no more come out of the queue.
fn settled(program: &Program) -> Result<u64> {
    let mut before = None;
    loop {
        let judged = judged(program)?;
        if before.replace(judged) == Some(judged) {
            return Ok(judged);
        }
        thread::sleep(GLANCE);
    }
}

fn judged(program: &Program) -> Result<u64> {
    Ok(program.tallies()?.values().map(|tally| tally.packets).sum())
}
