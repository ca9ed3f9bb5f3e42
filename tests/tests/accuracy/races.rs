//! All CPUs at once on one set: what the races of a take-over and of a charge cost; and on one bucket that many share. The
//! clock stands still in each round, so that a bucket admits its burst and not one packet more.

use anyhow::{Context as _, Result, ensure};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};
use throttle_agent::datapath::Mode;
use throttle_common::{
    gcra,
    records::maps,
    table::{OPEN_WAYS, WAYS},
};
use throttle_tests::{
    frames::Frame,
    machine, memory, needs_root,
    program::Program,
    say,
    wire::{FAR, Wire},
};

const BURST: u64 = 100;
/// Frames of one source in one call into the kernel, on each CPU: more than its burst, so that they meet in there.
const REPEATED: u32 = 256;
/// How long each law is put to the test, and how often at least: both of that on a busy machine.
const SPAN: Duration = Duration::from_secs(2);
const ROUNDS: u32 = 200;
/// Limits whose buckets sources share, of each way in which a packet is charged: alone, behind another limit, in a window,
/// and in one that slides.
const SHARED: [(&str, &str); 4] = [
    ("host", "per = \"host\""),
    (
        "tenant",
        "per = \"tenant\"\n[[limit]]\nname = \"other\"\nunit = \"packets\"\nrate = \"1/s\"\nburst = 80000\nper = \"host\"",
    ),
    ("fixed window", "algorithm = \"fixed-window\"\nper = \"host\""),
    ("sliding window", "algorithm = \"sliding-window\"\nper = \"host\""),
];

#[test]
fn one_source_on_all_cpus_gets_its_burst_and_at_most_a_charge_for_each_other_cpu() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let most = BURST + others();
    let rounds = hammer(1, "refuse", |admitted| {
        ensure!((BURST..=most).contains(&admitted), "{admitted} were admitted of a burst of {BURST}, at most {most}");
        Ok(())
    })?;
    say!("one source on {} CPUs, {rounds}", machine::cpus());
    Ok(())
}

#[test]
fn more_sources_than_ways_on_all_cpus_stay_within_the_bound() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    // Each way is taken once; at this instant it is never free again.
    let most = OPEN_WAYS as u64 * (BURST + others());
    let least = OPEN_WAYS as u64 * BURST;
    // Where those without a way share a bucket, that has its burst too.
    for (overflow, shared) in [("refuse", 0), ("aggregate", BURST)] {
        let rounds = hammer(2 * OPEN_WAYS, overflow, |admitted| {
            let (least, most) = (least + shared, most + shared);
            ensure!(
                (least..=most).contains(&admitted),
                "{admitted} were admitted by buckets of {least}, at most {most}"
            );
            Ok(())
        })?;
        say!("{} sources in {OPEN_WAYS} ways ({overflow}) on {} CPUs, {rounds}", 2 * OPEN_WAYS, machine::cpus());
    }
    Ok(())
}

#[test]
fn those_who_share_a_bucket_on_all_cpus_get_its_burst_and_not_one_packet_more() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    for (name, rest) in SHARED {
        let rounds = hammer_under(&shared(rest, BURST), &sources(4), BURST, |admitted| {
            ensure!(admitted == BURST, "{name}: {admitted} were admitted of a burst of {BURST}");
            Ok(())
        })?;
        say!("{name}, on {} CPUs, {rounds}", machine::cpus());
    }
    Ok(())
}

/// Somebody else takes of the bucket and gives back without a pause, so that nobody who has looked finds it as it was.
#[test]
fn a_shared_bucket_is_charged_for_all_that_it_admits_however_often_others_change_it() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    for (name, rest) in SHARED {
        be_charged_while_others_charge(rest).context(name)?;
    }
    Ok(())
}

fn be_charged_while_others_charge(rest: &str) -> Result<()> {
    const FRAMES: u32 = 20_000;
    const OTHERS: u64 = 1_000;
    let program = Program::timed(&shared(rest, u64::from(FRAMES) + 2 * OTHERS))?;
    let frame = &sources(1)[0];
    // The first takes the bucket's place, where it has none yet.
    program.datapath.test_run(frame, 1)?;
    let limit = program.limit_record("l")?.1;
    let words = memory::words(&program.map_data(maps::BUCKETS)?)?;
    let now = limit.reading(gcra::ticks(program.now()));
    // A slot is a key and a bucket.
    let (first, count) = (limit.v4.base as usize * 2 * WAYS, limit.v4.extent() as usize * 2 * WAYS);
    let mut buckets = words[first..first + count].iter().skip(1).step_by(2);
    let bucket = buckets.find(|word| word.load(Ordering::SeqCst) != 0).context("nothing is owed")?;
    let (cost, over) = (limit.price.cost(1), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                (0..OTHERS).for_each(|_| _ = bucket.fetch_add(cost, Ordering::SeqCst));
                bucket.fetch_sub(OTHERS * cost, Ordering::SeqCst);
            }
        });
        let judged = program.datapath.test_run(frame, FRAMES);
        over.store(true, Ordering::SeqCst);
        judged
    })?;
    let tally = program.limit("l")?;
    let all = u64::from(FRAMES) + 1;
    ensure!((tally.admitted.packets, tally.refused.packets) == (all, 0), "{tally:?}");
    let owed = gcra::debt(bucket.load(Ordering::SeqCst), now);
    ensure!(owed == all * cost, "it owes {owed} for {all} packets of {cost}");
    Ok(())
}

/// A policy with a limit `l` of so many packets at once, and so slow that the clock brings none while it stands.
fn shared(rest: &str, burst: u64) -> String {
    let due = if rest.contains("window") {
        format!("rate = \"{burst}/day\"")
    } else {
        format!("rate = \"1/s\"\nburst = {burst}")
    };
    format!(
        "mode = \"enforce\"\n[[tenant]]\nname = \"t\"\nsources = [\"198.51.100.0/24\"]\n\
         [[limit]]\nname = \"l\"\nunit = \"packets\"\n{due}\n{rest}\n"
    )
}

/// Frames of so many sources.
fn sources(count: u8) -> Vec<Vec<u8>> {
    (0..count).map(|host| Frame::v4([198, 51, 100, host]).bytes()).collect()
}

/// Other CPUs that may take a slot over for the same source at the same moment.
fn others() -> u64 {
    machine::cpus() as u64 - 1
}

/// Hammers the ways of one set of a limit per source, each source of which has a burst.
fn hammer(count: usize, overflow: &str, check: impl Fn(u64) -> Result<()>) -> Result<String> {
    let policy = format!(
        "mode = \"enforce\"\n[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"1/s\"\nburst = {BURST}\n\
         sources = {OPEN_WAYS}\noverflow = \"{overflow}\"\n"
    );
    let buckets = if overflow == "aggregate" { OPEN_WAYS + 1 } else { OPEN_WAYS };
    hammer_under(&policy, &sources(count as u8), BURST * buckets.min(count) as u64, check)
}

/// Sends from all CPUs at once, round after round from full buckets on, each frame more often than a burst; `check` is given
/// what a round admitted. Says how many rounds there were, and how many cost a charge more than no race does.
fn hammer_under(
    policy: &str,
    frames: &[Vec<u8>],
    without_race: u64,
    check: impl Fn(u64) -> Result<()>,
) -> Result<String> {
    let mut program = Program::timed(policy)?;
    let limit = program.limit_record("l")?.1;
    ensure!(limit.is_shared() || limit.v4.sets == 1, "the region is one set");
    // A program that is attached somewhere is called directly, and a test run need not arrange for that each time.
    let wire = Wire::silent()?;
    wire.far.enter(|| program.datapath.attach(FAR, Mode::Native))??;
    let (mut rounds, mut dear, start) = (0u32, 0u32, Instant::now());
    while start.elapsed() < SPAN || rounds < ROUNDS {
        ensure!(start.elapsed() < 30 * SPAN, "only {rounds} rounds in {:?}: too few to tell", start.elapsed());
        // A window that slides looks back on the one before.
        (0..2).try_for_each(|_| program.rest())?;
        let before = program.limit("l")?.admitted.packets;
        together(|cpu| {
            // Half of the CPUs begin at the other end, and all meet on the way.
            let from = if cpu % 2 == 0 { 0 } else { frames.len() / 2 };
            frames[from..]
                .iter()
                .chain(&frames[..from])
                .try_for_each(|frame| program.datapath.test_run(frame, REPEATED).map(drop))
        })?;
        let admitted = program.limit("l")?.admitted.packets - before;
        check(admitted)?;
        rounds += 1;
        dear += u32::from(admitted > without_race);
    }
    Ok(format!("{rounds} rounds: a race cost a charge in {dear}"))
}

/// Acts on every CPU at the same moment.
fn together(act: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let cpus = machine::cpus();
    let (arrived, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus)
            .map(|cpu| {
                let (act, arrived, failed) = (&act, &arrived, &failed);
                scope.spawn(move || {
                    let pinned = machine::pin_to(cpu);
                    failed.fetch_or(pinned.is_err(), Ordering::Relaxed);
                    arrived.fetch_add(1, Ordering::SeqCst);
                    // A barrier that sleeps wakes its threads one after the other.
                    while arrived.load(Ordering::SeqCst) < cpus as u64 {
                        std::hint::spin_loop();
                    }
                    pinned?;
                    if failed.load(Ordering::Relaxed) { Ok(()) } else { act(cpu) }
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })
}
