//! The kernel program against the shared arithmetic in user space, number for number: verdict, counters, and every
//! bucket of the table, over random arrivals under a clock that the test sets and speeds that are published meanwhile; then 100 000 malformed frames.

mod model;

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
    frames::{Dice, Frame, malformed},
    needs_root,
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

/// Small regions, so that sources meet in sets; every unit and every rule; limits that observe among those that refuse;
/// guarantees under parents of every kind, and overrides of both.
const POLICIES: [&str; 11] = [
    r#"
mode = "enforce"
[[limit]]
name = "a"
unit = "packets"
rate = "20/s"
burst = 5
sources = 24
"#,
    r#"
mode = "enforce"
[sources]
known = ["192.0.2.0/30", "2001:db8:0:1::/64"]
[[limit]]
name = "b"
unit = "bytes"
rate = "7777B/s"
burst = "3000B"
sources = 9
overflow = "refuse"
[[limit]]
name = "c"
unit = "packets"
rate = "13/s"
burst = 3
sources = 6
"#,
    r#"
mode = "enforce"
[[limit]]
name = "d"
unit = "packets"
rate = "30/s"
burst = 4
mode = "observe"
sources = 12
[[limit]]
name = "e"
unit = "connections"
rate = "11/s"
burst = 2
sources = 3
overflow = "admit"
[[limit]]
name = "f"
unit = "packets"
rate = "17/s"
burst = 6
sources = 12
prefix = { ipv4 = 30, ipv6 = 72 }
aggregate = { ipv4 = 20, ipv6 = 40 }
"#,
    r#"
[[limit]]
name = "g"
unit = "packets"
rate = "1000000/s"
burst = 7
sources = 12
[[limit]]
name = "h"
unit = "bytes"
rate = "100Mbit/s"
sources = 12
"#,
    r#"
mode = "enforce"
[[limit]]
name = "i"
unit = "packets"
rate = "20/s"
algorithm = "sliding-window"
sources = 12
"#,
    r#"
mode = "enforce"
[sources]
known = ["192.0.2.0/30", "2001:db8:0:1::/64"]
[[limit]]
name = "j"
unit = "bytes"
rate = "40000B/s"
algorithm = "sliding-window"
sources = 9
overflow = "admit"
[[limit]]
name = "k"
unit = "packets"
rate = "13/s"
algorithm = "fixed-window"
sources = 6
[[limit]]
name = "l"
unit = "packets"
rate = "25/s"
algorithm = "sliding-window"
sources = 18
prefix = { ipv4 = 30, ipv6 = 72 }
aggregate = { ipv4 = 20, ipv6 = 40 }
"#,
    r#"
mode = "enforce"
[[limit]]
name = "m"
unit = "packets"
rate = "40/s"
algorithm = "leaky-bucket"
mode = "observe"
sources = 12
[[limit]]
name = "n"
unit = "bytes"
rate = "30000B/s"
algorithm = "fixed-window"
sources = 12
overflow = "refuse"
[[limit]]
name = "o"
unit = "connections"
rate = "5/s"
algorithm = "sliding-window"
sources = 6
mode = "observe"
"#,
    r#"
mode = "enforce"
[[tenant]]
name = "acme"
sources = ["192.0.0.0/28", "2001:db8::/62"]
[[tenant]]
name = "globex"
sources = ["192.0.1.0/24", "2001:db8:0:8::/61", "192.0.0.8/30"]
[[limit]]
name = "p"
unit = "packets"
rate = "20/s"
burst = 5
sources = 24
[[limit.override]]
sources = ["192.0.0.0/29", "2001:db8::/63"]
rate = "90/s"
burst = 9
[[limit.override]]
tenant = "globex"
rate = "7/s"
[[limit.override]]
sources = ["192.0.0.4"]
burst = 1
[[limit]]
name = "q"
unit = "packets"
rate = "30/s"
per = "tenant"
burst = 10
guarantee = "10/s"
guarantee-burst = 3
[[limit.override]]
tenant = "globex"
rate = "15/s"
guarantee = "4/s"
[[limit]]
name = "r"
unit = "packets"
rate = "40/s"
algorithm = "token-bucket"
per = "host"
"#,
    r#"
mode = "enforce"
[[tenant]]
name = "acme"
sources = ["192.0.0.0/28", "2001:db8::/62"]
[[tenant]]
name = "globex"
sources = ["192.0.1.0/24", "2001:db8:0:8::/61", "192.0.0.8/30"]
[[limit]]
name = "p"
unit = "packets"
rate = "20/s"
burst = 5
sources = 24
[[limit.override]]
sources = ["192.0.0.0/29", "2001:db8::/63"]
rate = "90/s"
burst = 9
[[limit.override]]
tenant = "globex"
rate = "7/s"
[[limit.override]]
sources = ["192.0.0.4"]
burst = 1
[[limit]]
name = "q"
unit = "packets"
rate = "30/s"
per = "tenant"
guarantee = "10/s"
guarantee-burst = 3
[[limit.override]]
tenant = "globex"
rate = "15/s"
guarantee = "4/s"
[[limit]]
name = "r"
unit = "packets"
rate = "30/s"
algorithm = "sliding-window"
per = "host"
"#,
    r#"
mode = "enforce"
[[tenant]]
name = "acme"
sources = ["192.0.0.0/28", "2001:db8::/62"]
[[tenant]]
name = "globex"
sources = ["192.0.1.0/24", "2001:db8:0:8::/61", "192.0.0.8/30"]
[[limit]]
name = "p"
unit = "packets"
rate = "20/s"
burst = 5
sources = 24
[[limit.override]]
sources = ["192.0.0.0/29", "2001:db8::/63"]
rate = "90/s"
burst = 9
[[limit.override]]
tenant = "globex"
rate = "7/s"
[[limit.override]]
sources = ["192.0.0.4"]
burst = 1
[[limit]]
name = "q"
unit = "packets"
rate = "20/s"
per = "tenant"
algorithm = "fixed-window"
guarantee = "10/s"
guarantee-burst = 3
[[limit.override]]
tenant = "globex"
rate = "9/s"
guarantee = "4/s"
[[limit]]
name = "r"
unit = "packets"
rate = "25/s"
algorithm = "fixed-window"
per = "host"
"#,
    r#"
mode = "enforce"
[[tenant]]
name = "acme"
sources = ["192.0.0.0/28", "2001:db8::/62"]
[[tenant]]
name = "globex"
sources = ["192.0.1.0/24", "2001:db8:0:8::/61", "192.0.0.8/30"]
[[limit]]
name = "p"
unit = "packets"
rate = "20/s"
burst = 5
sources = 24
[[limit.override]]
sources = ["192.0.0.0/29", "2001:db8::/63"]
rate = "90/s"
burst = 9
[[limit.override]]
tenant = "globex"
rate = "7/s"
[[limit.override]]
sources = ["192.0.0.4"]
burst = 1
[[limit]]
name = "q"
unit = "packets"
rate = "25/s"
per = "tenant"
algorithm = "sliding-window"
guarantee = "10/s"
guarantee-burst = 3
[[limit.override]]
tenant = "globex"
rate = "12/s"
guarantee = "4/s"
[[limit]]
name = "r"
unit = "packets"
rate = "35/s"
algorithm = "leaky-bucket"
per = "host"
"#,
];

/// A packet of a random sequence.
#[derive(Clone, Debug)]
struct Arrival {
    after: u64,
    source: u8,
    v6: bool,
    opens: bool,
    length: usize,
    /// At which the host's clock is to run from now on, in 4096ths.
    speed: Option<u64>,
}

impl Arrival {
    fn frame(&self) -> Vec<u8> {
        let frame = if self.v6 {
            // Several addresses of a /64, and several /64s.
            Frame::v6([0x2001, 0xdb8, 0, u16::from(self.source / 2), 0, 0, 0, u16::from(self.source % 2)])
        } else {
            Frame::v4([192, 0, self.source / 16, self.source])
        };
        frame.tcp(40_000, 80, if self.opens { tcp::SYN } else { tcp::ACK }).length(self.length).bytes()
    }
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    // From the same nanosecond to longer than any bucket needs.
    let after = prop_oneof![Just(0), 1..1_000u64, 1_000..SECOND / 50, SECOND / 50..SECOND];
    // Speeds that hold until their lease ends, or another follows.
    let speed = prop::option::weighted(0.05, 1..=16u64);
    let arrival = (after, 0..40u8, any::<bool>(), any::<bool>(), 74..1500usize, speed);
    let arrival = arrival.prop_map(|(after, source, v6, opens, length, speed)| Arrival {
        after,
        source,
        v6,
        opens,
        length,
        speed,
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
    for policy in POLICIES {
        let config = Config { cases: 80, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let program = std::cell::RefCell::new(Program::timed(policy)?);
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
        if let Some(speed) = arrival.speed.and_then(|part| Speed::of_parts(part << 12))
            && model.publish(program.now(), speed, LEASE.as_nanos() as u64)
        {
            program.datapath.publish_speed(HOST_CLOCK, speed, None)?;
        }
        let frame = arrival.frame();
        let (reason, outcome) = model.judge(program.now(), &frame);
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
