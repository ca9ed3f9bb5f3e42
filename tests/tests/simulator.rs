//! The laws of health, in simulation: what `cargo xtask bench -- health` measures at length, with one seed and in little
//! time. The seed is fixed, so what passes once passes always.

use throttle_agent::health::SECOND;
use throttle_tests::{
    outcome::Outcome,
    simulator::{
        detection::{self, Day},
        fleet::{self, BACKENDS, Fault, Health, Only, Script},
        limits::{Aimd, EnvoyGradient, FixedConcurrency, FixedRate, Gradient2, Limit, Ours, Sees, Unlimited, Vegas},
        overload,
        scenario::{CAPACITY, LONG, PHASES, Phase, Work},
    },
};

const SEED: u64 = 1;

fn goodput(phases: &[Phase], sees: Sees, delay: u64) -> Vec<f64> {
    let outcomes = overload::run(phases, Work::Exponential, &mut Ours::new(sees, delay), SEED);
    outcomes.iter().map(Outcome::goodput).collect()
}

#[test]
fn keeps_its_goodput_in_every_phase_and_recovers() {
    for (sees, phases) in [(Sees::Latency, &PHASES[..]), (Sees::Flow, &PHASES[..3]), (Sees::Backlog, &PHASES[..3])] {
        let phases = goodput(phases, sees, 0);
        assert!(phases.iter().all(|share| *share >= 0.98), "{sees:?}: {phases:?}");
    }
}

#[test]
fn keeps_it_where_its_signals_are_a_second_old() {
    let phases = goodput(&PHASES[..2], Sees::Latency, SECOND);
    assert!(phases.iter().all(|share| *share >= 0.9), "{phases:?}");
}

#[test]
fn overload_does_not_become_the_norm() {
    let outcomes = overload::run(&LONG[..3], Work::Exponential, &mut Ours::new(Sees::Latency, 0), SEED);
    let (first, last) = (&outcomes[1], &outcomes[2]);
    assert!(last.goodput() >= 0.98 && last.p99 <= first.p99 * 1.2, "{} ms, then {} ms", first.p99, last.p99);
}

/// Far slower than usual, and within what clients are promised all the same: the work takes 100 ms instead of 8.
const SLOWER: [Phase; 4] = [
    PHASES[0],
    Phase { name: "slower", seconds: 40, load: 0.06, capacity: 0.08 },
    Phase { name: "slower, later", seconds: 30, load: 0.06, capacity: 0.08 },
    Phase { name: "slower, 2x", seconds: 30, load: 0.16, capacity: 0.08 },
];

#[test]
fn work_that_takes_longer_is_no_overload_as_long_as_it_keeps_to_the_objective() {
    let outcomes = overload::run(&SLOWER, Work::Constant, &mut Ours::new(Sees::Latency, 0), SEED);
    let phases: Vec<_> = outcomes.iter().map(Outcome::goodput).collect();
    assert!(phases[2] >= 0.9 && phases[3] >= 0.8, "{phases:?}");
}

#[test]
fn without_it_the_same_load_leaves_nothing_even_when_it_is_over() {
    for limit in [&mut Unlimited as &mut dyn Limit, &mut FixedRate::new(CAPACITY)] {
        let outcomes = overload::run(&[PHASES[1], PHASES[2], PHASES[5]], Work::Exponential, limit, SEED);
        assert!(outcomes[2].goodput() < 0.1, "{}", outcomes[2].goodput());
    }
}

#[test]
fn finds_the_dead_in_time_and_hardly_ever_the_living() {
    // Also where the kernel sees nothing of a backend but its answers to probes.
    for traffic in [true, false] {
        let day = Day { nodes: 10, hours: 4, traffic };
        let outcome = detection::run(day, SEED);
        assert!(outcome.hard.per_node_day(day) <= 1.0, "{} mistakes", outcome.hard.mistakes);
        assert!(outcome.hard.times.len() >= 20, "{} crashes say little", outcome.hard.times.len());
        assert!(outcome.soft.percentile(99) <= 700.0 && outcome.hard.percentile(99) <= 1_200.0);
        assert!(outcome.most_ejected <= day.nodes / 2);
    }
}

/// Ways to fail, of which a limit of the whole service can tell none from another.
const FAULTS: [Fault; 5] = [Fault::Silent, Fault::Hangs, Fault::Slow(20), Fault::Slow(60), Fault::Errors];

#[test]
fn of_a_fleet_one_that_fails_costs_little_and_less_than_by_any_limit_of_the_whole() {
    for fault in FAULTS {
        let script = Script { failing: 1, fault, seconds: [10, 60, 30] };
        let ours = fleet::run(script, &mut Health::default(), SEED);
        let [before, during, after] = ours.goodput;
        assert!(before >= 0.99 && during >= 0.94 && after >= 0.99, "{fault:?}: {ours:?}");
        assert_eq!((ours.most, ours.mistakes), (1, 0), "{fault:?}: {ours:?}");
        let soon = |time: Option<u64>, most| time.is_some_and(|time| time <= most * SECOND);
        assert!(soon(ours.kept_away, 6) && soon(ours.let_in, 10), "{fault:?}: {ours:?}");
        for (name, mut limit) in named() {
            let other = fleet::run(script, &mut Only(&mut *limit), SEED).goodput[1];
            assert!(during > other, "{fault:?}: {during}, and {other} with {name}");
        }
    }
}

#[test]
fn of_a_fleet_never_more_than_half_is_kept_away_however_many_fail() {
    for fault in FAULTS {
        for failing in 2..=BACKENDS {
            let script = Script { failing, fault, seconds: [10, 30, 30] };
            let ours = fleet::run(script, &mut Health::default(), SEED);
            assert!(ours.most <= BACKENDS / 2, "{failing} fail so: {fault:?}: {ours:?}");
            if failing == 2 {
                assert!(ours.kept_away.is_some() && ours.mistakes == 0, "{fault:?}: {ours:?}");
                assert!(ours.goodput[2] >= 0.9, "{fault:?}: {ours:?}");
            }
        }
    }
}

#[test]
fn of_a_fleet_one_that_serves_among_errors_is_asked_for_no_more_than_it_can_do() {
    for seed in [SEED, SEED + 1] {
        let script = Script { failing: BACKENDS - 1, fault: Fault::Errors, seconds: [10, 60, 30] };
        let ours = fleet::run(script, &mut Health::default(), seed);
        assert!(ours.mistakes == 0 && ours.goodput[1] >= 0.2, "seed {seed}: {ours:?}");
        assert!(ours.let_in.is_some_and(|time| time <= SECOND), "seed {seed}: {ours:?}");
    }
}

/// The agent's own window is among them, which sees no backend either.
fn named() -> Vec<(&'static str, Box<dyn Limit>)> {
    vec![
        ("no limit", Box::new(Unlimited)),
        ("a window", Box::new(FixedConcurrency(32))),
        ("AIMD", Box::new(Aimd::default())),
        ("Vegas", Box::new(Vegas::new(SEED))),
        ("Gradient2", Box::new(Gradient2::default())),
        ("Envoy's gradient", Box::new(EnvoyGradient::new(SEED))),
        ("its own window alone", Box::new(Ours::new(Sees::Latency, 0))),
    ]
}
