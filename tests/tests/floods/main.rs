//! Floods from 2^32 random addresses or 2^64 random /64s at the generator's full speed, with honest sources woven into
//! the same frames: what they keep when they are known or have completed a handshake, what the overflow rule leaves them
//! when they are neither, and how well the forecast was.
//!
//! Each flood lasts five seconds, or ten at full size.

mod bulkheads;
mod compartments;
mod expectation;
mod handshakes;
mod views;

use anyhow::{Context, Result, ensure};
use expectation::{Flood as Assumed, expect};
use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};
use throttle_agent::policy::forecast::{Load, forecast};
use throttle_common::{
    packet::Family,
    records::{Address, Limit, LimitTally},
};
use throttle_tests::{
    frames::Frame,
    generator::{self, Counter, Sender},
    kernel::{Order, Received, Sent},
    machine, needs_root,
    program::{Program, SECOND},
    say,
    wire::Wire,
};

/// A rate as policy writes it, and in nanoseconds between packets.
const RATES: [(&str, u64); 3] = [("1000/s", 1_000_000), ("10/s", 100_000_000), ("50/min", 1_200_000_000)];

fn seconds() -> u64 {
    machine::amount(5, 10)
}

fn policy(rate: &str, known: &[String]) -> String {
    format!(
        "mode = \"enforce\"\n[sources]\nknown = {known:?}\n[[limit]]\nname = \"l\"\nunit = \"packets\"\n\
         rate = \"{rate}\"\n"
    )
}

/// How many honest sources there are: so many that a loss of a few of a hundred packets shows even at 50 a minute.
const HONEST: u64 = 256;

/// Honest sources, each in a /24 or a /48 of its own, that send at 90 % of a limit, in a flood from everywhere.
fn woven(family: Family, interval: u64) -> Order {
    let (honest, turns, random) = match family {
        Family::V4 => (0xc633_0007, 0xff00, u32::MAX.into()),
        Family::V6 => (0x2001_0db8_0000_0007, 0x00ff_0000, u64::MAX),
    };
    let honest_interval = interval * 10 / 9 / HONEST;
    Order { random, flood_interval: 0, honest, turns, honest_interval, clock_every: 8, ..Order::SILENT }
}

fn honest(order: &Order) -> impl Iterator<Item = u64> {
    let order = *order;
    let sources = if order.turns == 0 { 1 } else { HONEST };
    (0..sources).map(move |turn| order.honest_after(turn))
}

fn prefix(family: Family, source: u64) -> String {
    match family {
        Family::V4 => Ipv4Addr::from_bits(source as u32).to_string(),
        Family::V6 => format!("{}/64", Ipv6Addr::from_bits(u128::from(source) << 64)),
    }
}

fn frame(family: Family) -> Vec<u8> {
    match family {
        Family::V4 => Frame::from("198.51.0.7").length(60).bytes(),
        Family::V6 => Frame::from("2001:db8:0:7::1").length(62).bytes(),
    }
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The last CPU: the first is everybody's.
fn cpu() -> usize {
    machine::cpus() - 1
}

/// How long a generator may take to send what is asked for.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often a flood is looked at in each of its halves.
const SAMPLES: u32 = 25;

/// Of a flood that pauses now and then, because other processes want its CPU too, what it is between the pauses.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// The second half of a flood is the steady state that a forecast describes; its pace wavers a little.
fn near(measured: f64, foretold: f64) -> bool {
    (measured - foretold).abs() <= 0.1 * foretold + 0.002
}

/// A flood at one instant.
struct Sample {
    /// On the monotonic clock, in nanoseconds.
    time: u64,
    /// Frames until then: judged, and without a place.
    judged: u64,
    overflowed: u64,
    /// The share of busy slots.
    occupancy: f64,
}

impl Sample {
    fn of(program: &Program, limit: &Limit, family: Family) -> Result<Self> {
        let (time, tally) = (machine::monotonic(), program.limit("l")?);
        let occupancy = program.datapath.occupancy(limit);
        let used = if family == Family::V4 { occupancy.v4 } else { occupancy.v6 };
        let occupancy = used.busy as f64 / used.slots as f64;
        Ok(Self { time, judged: judged(&tally), overflowed: tally.overflowed.packets, occupancy })
    }

    /// Frames per second since another.
    fn pace_since(&self, before: &Self) -> f64 {
        (self.judged - before.judged) as f64 * SECOND as f64 / (self.time - before.time) as f64
    }
}

/// What was seen of a flood.
struct Seen {
    sent: Sent,
    received: Received,
    /// What the limit did in all.
    whole: LimitTally,
    /// The limit as the kernel had it.
    limit: Limit,
    /// From the start to the end.
    samples: Vec<Sample>,
}

impl Seen {
    fn span(&self) -> u64 {
        self.sent.last - self.sent.first
    }

    fn per_second(&self) -> f64 {
        self.sent.flood as f64 * SECOND as f64 / self.span() as f64
    }

    /// How many frames of the flood had come after how many nanoseconds. The samples count all frames.
    fn pace(&self) -> Vec<(u64, u64)> {
        let Sent { first, last, flood, .. } = self.sent;
        let all = judged(&self.whole);
        let of_the_flood = |frames: u64| (u128::from(frames) * u128::from(flood) / u128::from(all)) as u64;
        let within = self.samples.iter().filter(|sample| first < sample.time && sample.time < last);
        let within = within.map(|sample| (sample.time - first, of_the_flood(sample.judged)));
        std::iter::once((0, 0)).chain(within).chain([(last - first, flood)]).collect()
    }

    /// The second half, as it was and as it was foretold for the pace of its frames: how many slots were busy between the
    /// pauses, and how many frames of all found none. A frame keeps its slot busy for an interval in nanoseconds, so that is
    /// how far back a pace counts.
    fn late(&self, family: Family, interval: u64) -> Option<[Load; 2]> {
        let (mut busy, mut frames, mut without) = ([vec![], vec![]], 0.0, [0.0; 2]);
        for index in self.samples.len() / 2..self.samples.len() {
            let (earlier, now) = (&self.samples[..index], &self.samples[index]);
            let before = &earlier[index - 1];
            let begin = earlier.iter().rfind(|sample| now.time - sample.time >= interval).unwrap_or(&earlier[0]);
            let foretold = forecast(&self.limit, family, now.pace_since(begin))?;
            let judged = (now.judged - before.judged) as f64;
            frames += judged;
            without[0] += (now.overflowed - before.overflowed) as f64;
            without[1] += judged * foretold.overflow;
            busy[0].push(now.occupancy);
            busy[1].push(foretold.occupancy);
        }
        let [seen, foretold] = busy.map(median);
        let load = |occupancy, without: f64| Load { occupancy, overflow: without / frames };
        Some([load(seen, without[0]), load(foretold, without[1])])
    }
}

/// Floods a program under a policy from a table of full buckets on, for a time and until so many frames are sent.
fn flood(family: Family, policy: &str, order: Order, frames: u64) -> Result<Seen> {
    flood_program(family, apart(family, policy, &order)?, order, frames)
}

/// Floods once more, a few times at most, where the sender was kept from sending for a twentieth of the time at once: honest
/// sources that are silent meanwhile find another table after it than those that are expected.
fn steady(flood: impl Fn() -> Result<Seen>) -> Result<Seen> {
    let mut seen = flood()?;
    for _ in 0..3 {
        if seen.sent.pause < seen.span() / 20 {
            break;
        }
        say!("the sender was paused for {} ms; once more", seen.sent.pause / 1_000_000);
        seen = flood()?;
    }
    Ok(seen)
}

/// Floods a program.
fn flood_program(family: Family, (mut program, limit): (Program, Limit), order: Order, frames: u64) -> Result<Seen> {
    let wire = Wire::silent()?;
    program.attach(&wire)?;
    let counter = Counter::on(&wire, order)?;
    let sender = Sender::on(&wire)?;
    let running = sender.start_steady(&wire.near, cpu(), &frame(family), order)?;
    let step = Duration::from_secs(seconds()) / 2 / SAMPLES;
    let mut samples = vec![Sample::of(&program, &limit, family)?];
    for _ in 0..2 * SAMPLES {
        thread::sleep(step);
        samples.push(Sample::of(&program, &limit, family)?);
    }
    let patience = Instant::now();
    while judged(&program.limit("l")?) < frames {
        ensure!(patience.elapsed() < PATIENCE, "the generator is too slow: {:?}", program.limit("l")?);
        thread::sleep(Duration::from_millis(100));
    }
    let sent = running.stop()?;
    let whole = program.limit("l")?;
    ensure!(judged(&whole) == sent.flood + sent.honest, "{} frames were judged of {sent:?}", judged(&whole));
    let received = counter.received()?;
    ensure!(received.honest + received.other == whole.admitted.packets, "{received:?} came through of {whole:?}");
    Ok(Seen { sent, received, whole, limit, samples })
}

/// A program in whose table no two honest sources share a set: a set keeps one place for a known source, not two.
fn apart(family: Family, policy: &str, order: &Order) -> Result<(Program, Limit)> {
    for _ in 0..20 {
        let program = Program::live(policy)?;
        let (_, limit) = program.limit_record("l")?;
        let (region, secret) = (limit.region(family), program.control()?.secret);
        let mut sets = HashSet::new();
        let alone = |source: u64| {
            let address = match family {
                Family::V4 => Address { high: 0, low: source },
                Family::V6 => Address { high: source, low: 1 },
            };
            sets.insert(region.set(region.key(address, family, secret), secret))
        };
        if honest(order).all(alone) {
            return Ok((program, limit));
        }
    }
    anyhow::bail!("{HONEST} sources share sets in each of 20 tables")
}

fn judged(tally: &LimitTally) -> u64 {
    tally.admitted.packets + tally.refused.packets
}

#[test]
fn known_sources_lose_nothing_and_the_forecast_holds() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    for family in FAMILIES {
        for (rate, interval) in RATES {
            let order = woven(family, interval);
            let known: Vec<_> = honest(&order).map(|source| prefix(family, source)).collect();
            let seen = flood(family, &policy(rate, &known), order, 0)?;
            let [late, foretold] = seen.late(family, interval).context("the limit has no region")?;
            say!(
                "{family:?} flood of {:.2} million/s at {rate}: known sources {} of {} through; occupancy {:.3} \
                 (foretold {:.3}), overflow {:.4} (foretold {:.4})",
                seen.per_second() / 1e6,
                seen.received.honest,
                seen.sent.honest,
                late.occupancy,
                foretold.occupancy,
                late.overflow,
                foretold.overflow,
            );
            ensure!(seen.sent.honest >= 2 * HONEST, "the honest sources sent too little to tell: {:?}", seen.sent);
            ensure!(seen.received.honest == seen.sent.honest, "known sources lost packets at {rate}");
            ensure!(near(late.occupancy, foretold.occupancy), "occupancy {} at {rate}", late.occupancy);
            ensure!(near(late.overflow, foretold.overflow), "overflow {} at {rate}", late.overflow);
        }
    }
    Ok(())
}

#[test]
fn unproven_sources_get_what_the_overflow_rule_promises() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    for family in FAMILIES {
        for (rate, interval) in RATES {
            let order = woven(family, interval);
            let seen = steady(|| flood(family, &policy(rate, &[]), order, 0))?;
            let interval = order.honest_interval * HONEST;
            let assumed = Assumed { family, pace: &seen.pace(), honest: HONEST, interval };
            let (mean, deviation) = expect(&seen.limit, &assumed);
            let share = seen.received.honest as f64 / seen.sent.honest as f64;
            say!(
                "{family:?} flood of {:.2} million/s at {rate}: unproven sources {} of {} through: {share:.4}, {mean:.4} +- \
                 {deviation:.4} expected; {} of {} frames found no place",
                seen.per_second() / 1e6,
                seen.received.honest,
                seen.sent.honest,
                seen.whole.overflowed.packets,
                seen.sent.flood,
            );
            let slack = 4.0 * deviation + 0.02 * mean;
            ensure!(slack < 0.1, "{slack} would hide a loss");
            ensure!((share - mean).abs() <= slack, "{share} came through, {mean} +- {deviation} expected");
        }
    }
    Ok(())
}

#[test]
fn an_offender_gains_nothing_from_ten_million_others_passing_by() -> Result<()> {
    const OTHERS: usize = 10_000_000;
    needs_root!();
    let _machine = machine::alone()?;
    for (rate, interval) in [RATES[0], RATES[1]] {
        let order = Order {
            random: (1 << 24) - 1,
            flood: 10 << 24,
            turns: 0,
            honest_interval: interval / 100,
            ..woven(Family::V4, interval)
        };
        // So many draws from 2^24 addresses are of 10.7 million different ones.
        let seen = flood(Family::V4, &policy(rate, &[]), order, 17_000_000)?;
        let mut passed_by = vec![false; 1 << 24];
        generator::sources(cpu(), order, seen.sent.flood)
            .for_each(|source| passed_by[source as usize & 0xff_ffff] = true);
        let others = passed_by.iter().filter(|passed| **passed).count();
        let burst = seen.limit.depth / seen.limit.price.cost(1);
        let entitled = burst + seen.span() / interval + 1;
        say!(
            "offender at 100x of {rate} among {others} others: {} of {} through, {entitled} entitled",
            seen.received.honest,
            seen.sent.honest,
        );
        ensure!(others >= OTHERS, "only {others} others passed by");
        ensure!(seen.received.honest <= entitled, "the offender gained {}", seen.received.honest - entitled);
        ensure!(seen.received.honest + 2 >= entitled, "the offender lost {}", entitled - seen.received.honest);
    }
    Ok(())
}
