//! What a limit admits is what it promises: rate x time + burst, by the real clock, on one CPU and on two, offered up to
//! ten times as much. The figures are printed.

use anyhow::{Context, Result, ensure};
use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use throttle_agent::datapath::Mode;
use throttle_tests::{
    frames::Frame,
    generator::{Flood, Sender},
    kernel::Order,
    machine, needs_root,
    program::{Program, SECOND, action},
    say,
    wire::{FAR, Wire},
};

const SOURCE: [u8; 4] = [198, 51, 100, 7];
const RATES: [u64; 4] = [10, 1_000, 100_000, 1_000_000];
/// Bytes of a frame where a limit counts bytes.
const LENGTH: u64 = 1_000;
/// How long each rate is offered.
const SPAN: u64 = 3 * SECOND;

/// A limit under test, in frames.
#[derive(Clone, Copy)]
struct Offer {
    rate: u64,
    bytes: bool,
    cpus: usize,
}

impl Offer {
    fn all() -> impl Iterator<Item = Self> {
        let cpus = 1..=machine::cpus().min(2);
        cpus.flat_map(|cpus| {
            RATES.into_iter().flat_map(move |rate| [false, true].map(|bytes| Self { rate, bytes, cpus }))
        })
    }

    /// What the bucket holds: a fifth of a second, in which a preempted sender loses nothing.
    fn burst(self) -> u64 {
        self.rate / 5
    }

    fn policy(self) -> String {
        let (unit, rate, burst) = if self.bytes {
            ("bytes", format!("{}B/s", self.rate * LENGTH), format!("\"{}B\"", self.burst() * LENGTH))
        } else {
            ("packets", format!("{}/s", self.rate), self.burst().to_string())
        };
        format!("mode = \"enforce\"\n[[limit]]\nname = \"l\"\nunit = \"{unit}\"\nrate = \"{rate}\"\nburst = {burst}\n")
    }

    fn frame(self) -> Vec<u8> {
        Frame::v4(SOURCE).length(if self.bytes { LENGTH as usize } else { 60 }).bytes()
    }

    /// Compares what was admitted with what a window between these lengths, in nanoseconds, entitles to.
    fn weigh(self, how: &str, offered: u64, admitted: u64, shortest: u64, longest: u64) -> Result<()> {
        let entitled = |window: u64| self.burst() as f64 + self.rate as f64 * window as f64 / SECOND as f64;
        let (least, most) = (entitled(shortest), entitled(longest));
        say!(
            "{how}, {} CPU{}: {:>7} {}/s offered {:>4.1}x: admitted {admitted} of {most:.1} ({:+.3} %)",
            self.cpus,
            if self.cpus == 1 { " " } else { "s" },
            self.rate,
            if self.bytes { "kB    " } else { "packets" },
            offered as f64 / (self.rate as f64 * longest as f64 / SECOND as f64),
            (admitted as f64 / most - 1.0) * 100.0,
        );
        ensure!(offered as f64 > most, "only {offered} frames were offered: too few to tell");
        // One cell, of which a part may lie beyond either end; each further CPU may be one charge ahead when the
        // source's slot is taken.
        let slack = (most / 100.0).max(self.cpus as f64 + 0.01);
        ensure!(admitted as f64 <= most + slack, "{admitted} admitted of {most:.1}");
        ensure!(admitted as f64 >= least - slack, "{admitted} admitted of {least:.1}");
        Ok(())
    }
}

#[test]
fn ten_times_the_rate_admits_the_rate() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::silent()?;
    let mut program = Program::live("")?;
    // A program that is attached somewhere is called directly, and a test run need not arrange for that each time.
    wire.far.enter(|| program.datapath.attach(FAR, Mode::Native))??;
    for offer in Offer::all() {
        program.apply(&offer.policy())?;
        let before = program.limit("l")?;
        let [first, last] = run(&program, offer)?;
        let after = program.limit("l")?;
        let admitted = after.admitted.packets - before.admitted.packets;
        let offered = admitted + after.refused.packets - before.refused.packets;
        // The first frame was judged within the first run, the last within the last.
        offer.weigh("test run", offered, admitted, last.0 - first.1, last.1 - first.0)?;
        program.apply("")?;
    }
    Ok(())
}

/// Offers ten times the rate from each CPU's share; gives when the first and the last run began and ended.
fn run(program: &Program, offer: Offer) -> Result<[(u64, u64); 2]> {
    let frame = offer.frame();
    let barrier = Barrier::new(offer.cpus);
    let runs = thread::scope(|scope| {
        let senders: Vec<_> = (0..offer.cpus)
            .map(|cpu| {
                let (barrier, frame) = (&barrier, &frame);
                scope.spawn(move || -> Result<[(u64, u64); 2]> {
                    machine::pin_to(cpu)?;
                    barrier.wait();
                    pace(offer.rate * 10 / offer.cpus as u64, |frames| {
                        program.datapath.test_run(frame, frames).map(drop)
                    })
                })
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().expect("no sender panics")).collect::<Result<Vec<_>>>()
    })?;
    let first = runs.iter().map(|[first, _]| *first).min().context("a sender ran")?;
    let last = runs.iter().map(|[_, last]| *last).max().context("a sender ran")?;
    Ok([first, last])
}

/// Calls `send` with as many frames as are due, for [`SPAN`]; gives when the first and the last call began and ended,
/// each for one frame.
fn pace(per_second: u64, mut send: impl FnMut(u32) -> Result<()>) -> Result<[(u64, u64); 2]> {
    let start = machine::monotonic();
    let mut first = None;
    let mut done = 0;
    loop {
        let elapsed = machine::monotonic() - start;
        if elapsed > SPAN {
            // The window ends with a run of one frame, which says most exactly when.
            return Ok([first.context("the span is longer than nothing")?, timed(&mut send, 1)?]);
        }
        let due = (u128::from(per_second) * u128::from(elapsed) / u128::from(SECOND)) as u64 + 1 - done;
        if due == 0 {
            let next = u128::from(SECOND) * u128::from(done) / u128::from(per_second);
            let wait = (next as u64).saturating_sub(elapsed);
            // Sleeping is for waits that are longer than what it costs to wake up.
            if wait > 200_000 {
                thread::sleep(Duration::from_nanos(wait - 100_000));
            }
            continue;
        }
        let run = timed(&mut send, due as u32)?;
        first = first.or(Some(run));
        done += due;
    }
}

/// When sending that many frames began and ended.
fn timed(send: &mut impl FnMut(u32) -> Result<()>, frames: u32) -> Result<(u64, u64)> {
    let began = machine::monotonic();
    send(frames)?;
    Ok((began, machine::monotonic()))
}

#[test]
fn three_times_the_rate_on_a_wire_admits_the_rate() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::silent()?;
    let mut program = Program::live("")?;
    wire.far.enter(|| program.datapath.attach(FAR, Mode::Native))??;
    let sender = Sender::on(&wire)?;
    for offer in Offer::all() {
        program.apply(&offer.policy())?;
        let before = program.limit("l")?;
        let order = Order {
            honest: u32::from_be_bytes(SOURCE),
            honest_interval: SECOND * offer.cpus as u64 / (3 * offer.rate),
            catch_up: SECOND / 10,
            // By then the senders of all CPUs are ready.
            begin: machine::monotonic() + SECOND / 2,
            ..Order::SILENT
        };
        let start = |cpu| sender.start(&wire.near, cpu, &offer.frame(), order);
        let floods = (0..offer.cpus).map(start).collect::<Result<Vec<_>>>()?;
        thread::sleep(Duration::from_nanos(SPAN));
        let sent = Flood::stop_all(floods)?;
        let after = program.limit("l")?;
        let admitted = after.admitted.packets - before.admitted.packets;
        let refused = after.refused.packets - before.refused.packets;
        let offered: u64 = sent.iter().map(|sent| sent.honest).sum();
        ensure!(admitted + refused == offered, "{offered} frames were sent, {} judged", admitted + refused);
        let first = sent.iter().map(|sent| sent.first).min().context("a flood ran")?;
        let last = sent.iter().map(|sent| sent.last).max().context("a flood ran")?;
        offer.weigh("on a wire", offered, admitted, last - first, last - first)?;
        program.apply("")?;
    }
    Ok(())
}

#[test]
fn more_sources_than_ways_on_two_cpus_stay_within_the_bound() -> Result<()> {
    const SOURCES: usize = 6;
    const PER_SECOND: u64 = 20_000;
    needs_root!();
    let _machine = machine::alone()?;
    let program = Program::live(&format!(
        "mode = \"enforce\"\n[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"{PER_SECOND}/s\"\nburst = 1\n\
         sources = 3\noverflow = \"refuse\"\n"
    ))?;
    ensure!(program.limit_record("l")?.1.v4.sets == 1, "the region is one set");
    let cpus = machine::cpus().min(2);
    let frames: Vec<_> = (0..SOURCES as u8).map(|host| Frame::v4([198, 51, 100, host]).bytes()).collect();
    let admitted: Vec<AtomicU64> = (0..SOURCES).map(|_| AtomicU64::new(0)).collect();
    let (over, barrier) = (AtomicBool::new(false), Barrier::new(cpus + 1));
    let window = thread::scope(|scope| -> Result<u64> {
        let hammers: Vec<_> = (0..cpus)
            .map(|cpu| {
                let (program, frames, admitted, over, barrier) = (&program, &frames, &admitted, &over, &barrier);
                scope.spawn(move || -> Result<()> {
                    machine::pin_to(cpu)?;
                    barrier.wait();
                    while !over.load(Ordering::Relaxed) {
                        for (frame, admitted) in frames.iter().zip(admitted) {
                            if program.act(frame)? == action::PASS {
                                admitted.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        barrier.wait();
        let start = machine::monotonic();
        thread::sleep(Duration::from_nanos(SPAN));
        over.store(true, Ordering::Relaxed);
        hammers.into_iter().try_for_each(|hammer| hammer.join().expect("no hammer panics"))?;
        Ok(machine::monotonic() - start)
    })?;
    let admitted: Vec<u64> = admitted.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    // In the time of one charge a source is charged once in its slot, and once more on each other CPU that takes a slot
    // over for it at that moment.
    let charges = 1 + window * PER_SECOND / SECOND;
    let total: u64 = admitted.iter().sum();
    let ways = throttle_common::table::OPEN_WAYS as u64;
    say!(
        "one set, {SOURCES} sources, {cpus} CPUs: {total} admitted, {} without any race: {admitted:?}",
        ways * charges
    );
    ensure!(total <= cpus as u64 * ways * charges, "{total} admitted in {ways} slots of {charges} charges each");
    for count in admitted {
        ensure!(count <= cpus as u64 * charges, "a source was admitted {count} times, {charges} is its right");
    }
    Ok(())
}
