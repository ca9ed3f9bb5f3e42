//! The laws of health, in simulation: what `cargo xtask bench -- health` measures at length, with one seed and in little
//! time. The seed is fixed, so what passes once passes always.

use throttle_agent::health::SECOND;
use throttle_tests::{
    outcome::Outcome,
    simulator::{
        detection::{self, Day},
        limits::{FixedRate, Limit, Ours, Sees, Unlimited},
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
