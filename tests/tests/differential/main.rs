//! The kernel program against the shared arithmetic in user space, number for number: verdict, counters, and every
//! bucket of the table, over random arrivals under a clock that the test sets and speeds that are published meanwhile; then
//! 100 000 malformed frames.

mod model;
mod policies;

use anyhow::{Context, Result, anyhow};
use model::Model;
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use std::collections::BTreeMap;
use throttle_agent::datapath::LEASE;
use throttle_common::{
    packet::{parse_bytes, tcp},
    records::HOST_CLOCK,
    speed::Speed,
    words::{Fate, Outcome, Reason},
};
use throttle_tests::{
    clients::HTTP,
    frames::{Dice, Frame, malformed},
    machine, needs_root,
    program::{Program, SECOND, action},
    say,
};

/// The seed of this run: `THROTTLE_TESTS_SEED`, or one from the clock.
fn seed(what: &str) -> u64 {
    let given = std::env::var("THROTTLE_TESTS_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(throttle_tests::machine::monotonic);
    say!("{what}: THROTTLE_TESTS_SEED={seed}");
    seed
}

/// A packet of a random sequence.
#[derive(Clone, Debug)]
struct Arrival {
    after: u64,
    source: u8,
    v6: bool,
    opens: bool,
    length: usize,
    /// Whether it is for the service, where there is one.
    served: bool,
    /// At which a clock is to run from now on, in 4096ths: the service's, or the host's.
    speed: Option<(bool, u64)>,
    /// Which of two CPUs judges it, where there are as many.
    cpu: usize,
}

impl Arrival {
    fn frame(&self) -> Vec<u8> {
        let frame = if self.v6 {
            // Several addresses of a /64, and several /64s.
            Frame::v6([0x2001, 0xdb8, 0, u16::from(self.source / 2), 0, 0, 0, u16::from(self.source % 2)])
        } else {
            Frame::v4([192, 0, self.source / 16, self.source])
        };
        frame
            .tcp(40_000, if self.served { HTTP } else { HTTP + 1 }, if self.opens { tcp::SYN } else { tcp::ACK })
            .length(self.length)
            .bytes()
    }
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    // From the same nanosecond to longer than any bucket needs.
    let after = prop_oneof![Just(0), 1..1_000u64, 1_000..SECOND / 50, SECOND / 50..SECOND];
    // Speeds that hold until their lease ends, or another follows.
    let speed = prop::option::weighted(0.05, (any::<bool>(), 1..=16u64));
    let served = prop::bool::weighted(0.7);
    // Each CPU now and then, for a few packets in a row.
    let cpu = prop::bool::weighted(0.3).prop_map(usize::from);
    let arrival = (after, 0..40u8, any::<bool>(), any::<bool>(), 74..1500usize, served, speed, cpu);
    let arrival = arrival.prop_map(|(after, source, v6, opens, length, served, speed, cpu)| Arrival {
        after,
        source,
        v6,
        opens,
        length,
        served,
        speed,
        cpu,
    });
    prop::collection::vec(arrival, 1..800)
}

#[test]
fn the_kernel_decides_and_remembers_as_the_shared_arithmetic_does() -> Result<()> {
    needs_root!();
    let seed = seed("random arrivals");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut frames = 0;
    for (policy, leased) in policies::policies() {
        let config = Config {
            cases: machine::amount(40, 80),
            failure_persistence: None,
            max_shrink_iters: 400,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let mut program = Program::timed(&policy)?;
        leased.map_or(Ok(()), |units| program.lease(units))?;
        let program = std::cell::RefCell::new(program);
        let judged = std::cell::Cell::new(0);
        runner
            .run(&arrivals(), |arrivals| {
                judged.set(judged.get() + arrivals.len());
                agree(&mut program.borrow_mut(), &arrivals).map_err(|error| TestCaseError::fail(format!("{error:#}")))
            })
            .map_err(|error| anyhow!("{error}\nunder {policy}"))?;
        frames += judged.get();
    }
    say!("random arrivals: {frames} frames, no difference");
    assert!(frames >= 100_000);
    Ok(())
}

/// Runs the arrivals through the kernel and the model, from full buckets on, and compares all that can be seen.
fn agree(program: &mut Program, arrivals: &[Arrival]) -> Result<()> {
    program.rest()?;
    let mut model = Model::of(program)?;
    let before = program.tallies()?;
    for (number, arrival) in arrivals.iter().enumerate() {
        program.wait(arrival.after)?;
        if let Some((of_service, part)) = arrival.speed
            && let Some(speed) = Speed::of_parts(part << 12)
        {
            let service = program.compiled.services.first().filter(|_| of_service);
            let clock = service.map_or(HOST_CLOCK, |service| service.clock);
            if model.publish(clock, program.now(), speed, LEASE.as_nanos() as u64) {
                program.datapath.publish_speed(clock, speed, None)?;
            }
        }
        let frame = arrival.frame();
        let cpu = arrival.cpu % machine::cpus();
        machine::pin_to(cpu)?;
        let (reason, outcome) = model.judge(program.now(), cpu as u32, &frame);
        let told = if outcome == Outcome::Drop { action::DROP } else { action::PASS };
        let act = program.act(&frame)?;
        anyhow::ensure!(act == told, "frame {number}: the kernel says {act}, the model {outcome:?} {reason:?}");
    }
    let counted = throttle_tests::program::difference(&program.tallies()?, &before);
    anyhow::ensure!(counted == *model.tallies(), "the kernel counts {counted:?}, the model {:?}", model.tallies());
    model.agrees_with(program).context("after the last frame")
}

#[test]
fn every_malformed_frame_is_counted_under_the_reason_that_the_parser_gives() -> Result<()> {
    const FRAMES: usize = 100_000;
    needs_root!();
    let mut dice = Dice::new(seed("malformed frames"));
    let program = Program::timed("mode = \"enforce\"")?;
    let before = program.tallies()?;
    let mut expected: BTreeMap<(Reason, Outcome), u64> = BTreeMap::new();
    for frame in malformed(&mut dice, FRAMES) {
        let reason = parse_bytes(&frame).err().unwrap_or(Reason::Admitted);
        let passes = reason == Reason::Admitted || reason.default_fate() == Fate::Pass;
        let act = program.act(&frame).with_context(|| format!("run on {frame:02x?}"))?;
        assert_eq!(act, if passes { action::PASS } else { action::DROP }, "{reason:?}: {frame:02x?}");
        *expected.entry((reason, if passes { Outcome::Pass } else { Outcome::Drop })).or_default() += 1;
    }
    let counted = throttle_tests::program::difference(&program.tallies()?, &before);
    let counted: BTreeMap<_, _> = counted.into_iter().map(|(key, tally)| (key, tally.packets)).collect();
    assert_eq!(counted, expected);
    let unread: u64 = counted.iter().filter(|((reason, _), _)| reason.is_shape()).map(|(_, count)| count).sum();
    assert_eq!(unread, FRAMES as u64);
    for (reason, count) in expected.iter().map(|((reason, _), count)| (reason.name(), count)) {
        say!("malformed frames: {count:>6} {reason}");
    }
    Ok(())
}
