//! Floods from 2^32 random sources at the generator's full speed, with one honest source woven into the same frames:
//! what it keeps when it is known, what the overflow rule leaves it when it is not, and how well the forecast was.
//!
//! Each flood lasts ten seconds, or `THROTTLE_TESTS_FLOOD_SECONDS`.

mod expectation;
mod views;

use anyhow::{Result, ensure};
use expectation::{Flood as Assumed, expect};
use std::{thread, time::Duration};
use throttle_agent::{datapath::Mode, policy::forecast::forecast};
use throttle_common::{packet::Family, records::LimitTally};
use throttle_tests::{
    frames::Frame,
    generator::{Counter, Sender},
    kernel::{Order, Received, Sent},
    machine, needs_root,
    program::{Program, SECOND},
    say,
    wire::{FAR, Wire},
};

const HONEST: [u8; 4] = [198, 51, 100, 7];

/// A rate as policy writes it, and in nanoseconds between packets.
const RATES: [(&str, u64); 3] = [("1000/s", 1_000_000), ("10/s", 100_000_000), ("50/min", 1_200_000_000)];

fn seconds() -> u64 {
    std::env::var("THROTTLE_TESTS_FLOOD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

fn policy(rate: &str, known: bool) -> String {
    let known = if known { "198.51.100.7" } else { "192.0.2.1" };
    format!(
        "mode = \"enforce\"\n[sources]\nknown = [\"{known}\"]\n[[limit]]\nname = \"l\"\nunit = \"packets\"\n\
         rate = \"{rate}\"\n"
    )
}

/// How often a table is looked at in the second half of a flood.
const SAMPLES: u32 = 9;

/// Of a flood that pauses now and then, because other processes want its CPU too, what it is between the pauses.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// The second half of a flood is the steady state that a forecast describes; its pace wavers a little.
fn near(measured: f64, foretold: f64) -> bool {
    (measured - foretold).abs() <= 0.1 * foretold + 0.002
}

/// What was seen of a flood.
struct Seen {
    sent: Sent,
    received: Received,
    /// What the limit did in all, and in the second half alone.
    whole: LimitTally,
    late: LimitTally,
    /// The share of busy slots in the second half.
    occupancy: f64,
}

/// Floods a program under a policy from a full table of full buckets on.
fn flood(policy: &str, order: Order) -> Result<(Seen, Program)> {
    let wire = Wire::silent()?;
    let mut program = Program::live(policy)?;
    wire.far.enter(|| program.datapath.attach(FAR, Mode::Native))??;
    let counter = Counter::on(&wire, order.honest)?;
    let sender = Sender::on(&wire)?;
    let frame = Frame::v4(order.honest).length(60).bytes();
    let running = sender.start(&wire.near, machine::cpus() - 1, &frame, order)?;
    let half = Duration::from_secs(seconds()) / 2;
    thread::sleep(half);
    let middle = program.limit("l")?;
    let (_, limit) = program.limit_record("l")?;
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        thread::sleep(half / SAMPLES);
        let used = program.datapath.occupancy(&limit).v4;
        samples.push(used.busy as f64 / used.slots as f64);
    }
    let end = program.limit("l")?;
    let sent = running.stop()?;
    let whole = program.limit("l")?;
    let judged = whole.admitted.packets + whole.refused.packets;
    ensure!(judged == sent.flood + sent.honest, "{judged} frames were judged of {sent:?}");
    let received = counter.received()?;
    ensure!(received.honest + received.other == whole.admitted.packets, "{received:?} came through of {whole:?}");
    let late = subtract(&end, &middle);
    Ok((Seen { sent, received, whole, late, occupancy: median(samples) }, program))
}

fn subtract(after: &LimitTally, before: &LimitTally) -> LimitTally {
    let mut difference = *after;
    difference.admitted.packets -= before.admitted.packets;
    difference.refused.packets -= before.refused.packets;
    difference.overflowed.packets -= before.overflowed.packets;
    difference
}

fn woven(interval: u64) -> Order {
    Order {
        random: u32::MAX,
        flood_interval: 0,
        honest: u32::from_be_bytes(HONEST),
        // 90 % of the limit.
        honest_interval: interval * 10 / 9,
        clock_every: 8,
        ..Order::SILENT
    }
}

#[test]
fn a_known_source_loses_nothing_and_the_forecast_holds() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    for (rate, interval) in RATES {
        let (seen, program) = flood(&policy(rate, true), woven(interval))?;
        let span = (seen.sent.last - seen.sent.first) as f64 / SECOND as f64;
        let per_second = seen.sent.flood as f64 / span;
        let judged = seen.late.admitted.packets + seen.late.refused.packets;
        let overflow = seen.late.overflowed.packets as f64 / judged as f64;
        let (_, limit) = program.limit_record("l")?;
        let foretold = forecast(&limit, Family::V4, per_second).expect("the limit has a region");
        say!(
            "flood of {:.2} million/s for {span:.0} s at {rate}: known source {} of {} through; occupancy {:.3} \
             (foretold {:.3}), overflow {overflow:.4} (foretold {:.4})",
            per_second / 1e6,
            seen.received.honest,
            seen.sent.honest,
            seen.occupancy,
            foretold.occupancy,
            foretold.overflow,
        );
        ensure!(seen.received.honest == seen.sent.honest, "a known source lost packets at {rate}");
        ensure!(near(seen.occupancy, foretold.occupancy), "occupancy {} at {rate}", seen.occupancy);
        ensure!(near(overflow, foretold.overflow), "overflow {overflow} at {rate}");
    }
    Ok(())
}

#[test]
fn an_unproven_source_gets_what_the_overflow_rule_promises() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    for (rate, interval) in RATES {
        let (seen, program) = flood(&policy(rate, false), woven(interval))?;
        let (_, limit) = program.limit_record("l")?;
        let span = seen.sent.last - seen.sent.first;
        let interval = woven(interval).honest_interval;
        let assumed = Assumed { frames: seen.sent.flood, span, honest: seen.sent.honest, interval };
        let (mean, deviation) = expect(&limit, &assumed);
        say!(
            "flood of {:.2} million/s at {rate}: unproven source {} of {} through, {mean:.1} +- {deviation:.1} expected; \
             {} of {} frames found no place",
            seen.sent.flood as f64 / span as f64 * 1e3,
            seen.received.honest,
            seen.sent.honest,
            seen.whole.overflowed.packets,
            seen.sent.flood,
        );
        let through = seen.received.honest as f64;
        let slack = 4.0 * deviation + 0.02 * mean + 1.0;
        ensure!((through - mean).abs() <= slack, "{through} came through, {mean:.1} +- {deviation:.1} expected");
    }
    Ok(())
}

#[test]
fn an_offender_gains_nothing_from_ten_million_others_passing_by() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    for (rate, interval) in [RATES[0], RATES[1]] {
        let order =
            Order { random: (1 << 24) - 1, flood: 10 << 24, honest_interval: interval / 100, ..woven(interval) };
        let (seen, program) = flood(&policy(rate, false), order)?;
        let span = seen.sent.last - seen.sent.first;
        let others = (1u64 << 24) as f64 * (1.0 - (-(seen.sent.flood as f64) / f64::from(1 << 24)).exp());
        let (_, limit) = program.limit_record("l")?;
        let burst = limit.depth / limit.price.cost(1);
        let entitled = burst + span / interval + 1;
        say!(
            "offender at 100x of {rate} among {:.1} million others: {} of {} through, {entitled} entitled",
            others / 1e6,
            seen.received.honest,
            seen.sent.honest,
        );
        ensure!(seen.received.honest <= entitled, "the offender gained {}", seen.received.honest - entitled);
    }
    Ok(())
}
