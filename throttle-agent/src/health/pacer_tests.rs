//! The laws of pacing: directions, bounds, and that it settles with a queue that it feeds.

#![expect(clippy::float_cmp, reason = "bounds are reached exactly")]

use super::*;
use crate::health::{MILLISECOND, controller::Rung, whole};
use proptest::prelude::*;

const TARGET: Nanos = 50 * MILLISECOND;
const LEAST: f64 = 1.0 / 16.0;

fn seen(cause: Cause, delay: Option<Nanos>) -> Adjustment {
    Adjustment { window: 100, speed: Speed::ONE, rung: Rung::Latency, cause, delay, target: TARGET }
}

#[test]
fn sinks_while_the_delay_is_above_its_target_and_grows_back_below() {
    let mut pacer = Pacer::default();
    let shares: Vec<_> = (0..200).map(|_| pacer.step(&seen(Cause::Delay, Some(2 * TARGET)), None)).collect();
    assert!(shares.windows(2).all(|pair| pair[1] <= pair[0]) && shares[199] == LEAST, "{shares:?}");
    let shares: Vec<_> = (0..200).map(|_| pacer.step(&seen(Cause::Room, Some(0)), None)).collect();
    assert!(shares.windows(2).all(|pair| pair[1] >= pair[0]) && shares[199] == 1.0, "{shares:?}");
}

#[test]
fn a_rate_that_is_far_above_what_is_asked_for_is_felt_at_once() {
    let share = Pacer::default().step(&seen(Cause::Delay, Some(2 * TARGET)), Some(0.05));
    assert!(share <= 0.1, "{share}");
    assert_eq!(
        Pacer::default().step(&seen(Cause::Unused, Some(0)), Some(0.05)),
        1.0,
        "nobody is kept slow for nothing"
    );
}

#[test]
fn without_a_signal_it_is_what_policy_says() {
    let mut pacer = Pacer::default();
    (0..50).for_each(|_| _ = pacer.step(&seen(Cause::Overflow, None), None));
    assert_eq!(pacer.step(&seen(Cause::NoSignal, None), None), 1.0);
}

#[test]
fn settles_with_a_queue_that_it_feeds() {
    // A server does 100 in a period, policy admits 300, and as many are asked for; the delay is what waits.
    let (mut pacer, mut queue, mut share, mut served) = (Pacer::default(), 0.0f64, 1.0, 0.0);
    for period in 0..600 {
        queue += 300.0 * share;
        let done = queue.min(100.0);
        queue -= done;
        served += if period >= 300 { done } else { 0.0 };
        let delay = whole(queue / 100.0 * 100.0 * MILLISECOND as f64);
        share = pacer.step(&seen(Cause::Delay, Some(delay)), Some(share));
    }
    assert!(served / 300.0 > 85.0, "{served} of 30000");
    assert!(queue < 150.0, "{queue} wait");
}

proptest! {
    #[test]
    fn no_step_takes_more_than_half_or_gives_more_than_a_twentieth_and_none_leaves_the_bounds(
        delays in prop::collection::vec(0u64..1_000, 1..100),
    ) {
        let (mut pacer, mut before) = (Pacer::default(), 1.0);
        for delay in delays {
            let share = pacer.step(&seen(Cause::Delay, Some(delay * MILLISECOND)), None);
            prop_assert!((LEAST..=1.0).contains(&share));
            prop_assert!(share >= before * STEPS[0] - 1e-12 && share <= before * STEPS[1] + 1e-12);
            before = share;
        }
    }
}
