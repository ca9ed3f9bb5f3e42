//! The laws of pacing: directions, bounds, and that it settles with a queue that it feeds.

#![expect(clippy::float_cmp, reason = "bounds are reached exactly")]

use super::*;
use crate::health::{MILLISECOND, controller::Rung, whole};
use proptest::prelude::*;

const TARGET: Nanos = 50 * MILLISECOND;
const LEAST: f64 = 1.0 / 16.0;

fn seen(cause: Cause, delay: Option<Nanos>) -> Adjustment {
    Adjustment { window: 100, speed: Speed::ONE, rung: Rung::Latency, cause, delay, target: TARGET, loaded: true }
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
    let mut pacer = Pacer::default();
    for _ in 0..ASKED_IN {
        let share = pacer.step(&seen(Cause::Unused, Some(0)), Some(0.05));
        assert_eq!(share, 1.0, "nobody is kept slow for nothing");
    }
    let share = pacer.step(&seen(Cause::Delay, Some(2 * TARGET)), Some(0.05));
    assert!(share <= 0.1, "{share}");
}

#[test]
fn what_was_asked_for_is_that_of_two_seconds_and_not_of_the_period_that_saw_none() {
    let mut pacer = Pacer::default();
    let each_second = |period: usize| Some(if period.is_multiple_of(10) { 1.0 } else { 0.0 });
    let calm = (0..ASKED_IN).map(|period| pacer.step(&seen(Cause::Unused, Some(0)), each_second(period)));
    assert!(calm.last().is_some_and(|share| share == 1.0));
    let share = pacer.step(&seen(Cause::Delay, Some(2 * TARGET)), Some(0.0));
    assert!(share <= 0.2 && share > LEAST, "some of it, and not nothing: {share}");
    let share = Pacer::default().step(&seen(Cause::Delay, Some(2 * TARGET)), Some(0.0));
    assert!(share > 0.5, "of less than that nothing is known: {share}");
}

#[test]
fn what_few_answers_show_slows_nothing_down() {
    let mut pacer = Pacer::default();
    let few = Adjustment { loaded: false, ..seen(Cause::Unused, Some(20 * TARGET)) };
    assert!((0..50).all(|_| pacer.step(&few, Some(0.001)) == 1.0));
}

#[test]
fn is_back_at_what_policy_says_two_seconds_after_all_has_become_quiet() {
    let mut pacer = Pacer::default();
    (0..100).for_each(|_| _ = pacer.step(&seen(Cause::Delay, Some(4 * TARGET)), None));
    let quiet: Vec<_> = (0..20).map(|_| pacer.step(&seen(Cause::Idle, Some(0)), Some(0.0))).collect();
    assert_eq!(quiet.last(), Some(&1.0), "{quiet:?}");
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
