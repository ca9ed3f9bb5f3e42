//! The laws of the control: bounds, directions and rungs, over random signals. How it closes the loop with a server is the
//! simulator's to show (`tests/src/simulator`).

#![expect(clippy::float_cmp, reason = "bounds are reached exactly, and what is kept is kept bit by bit")]

use super::*;
use crate::health::signals::{Aged, Backlog, Flow, Latency};
use proptest::prelude::*;

const TERMS: Terms = Terms { objective: 250 * MILLISECOND, least: 2, most: 1_000, fixed: 100, rate: Some(2_000.0) };

/// A period of a service that is busy, with such a median.
fn busy(now: Nanos, median: Nanos) -> Signals {
    Signals {
        latency: Some(Aged { value: Latency { median, samples: 100 }, at: now }),
        flow: Some(Aged { value: Flow { completed: 100, in_flight: 60 }, at: now }),
        most_in_flight: 1_000,
        ..Signals::default()
    }
}

/// One that has seen 8 ms for 3 s, and the time.
fn settled() -> (Controller, Nanos) {
    let mut controller = Controller::new(TERMS);
    for period in 1..=30 {
        controller.step(period * PERIOD, &busy(period * PERIOD, 8 * MILLISECOND), 1.0);
    }
    (controller, 3 * SECOND)
}

#[test]
fn shrinks_by_breakwaters_law_above_the_target_and_grows_two_percent_below() {
    let (mut controller, now) = settled();
    // Below what Little's law allows.
    controller.window = 100.0;
    let before = controller.window;
    let adjustment = controller.step(now + PERIOD, &busy(now + PERIOD, 83 * MILLISECOND), 1.0);
    assert_eq!((adjustment.rung, adjustment.cause), (Rung::Latency, Cause::Delay));
    // 75 ms beyond what is usual are one and a half of the target.
    assert!((controller.window / before - 0.85).abs() < 1e-3, "{} of {before}", controller.window);
    let before = controller.window;
    let adjustment = controller.step(now + 2 * PERIOD, &busy(now + 2 * PERIOD, 8 * MILLISECOND), 1.0);
    assert_eq!(adjustment.cause, Cause::Room);
    assert!((controller.window / before - 1.02).abs() < 1e-3);
}

#[test]
fn stays_where_it_is_not_used() {
    let (mut controller, now) = settled();
    let before = controller.window;
    let idle = Signals { most_in_flight: 1, ..busy(now + PERIOD, 8 * MILLISECOND) };
    assert_eq!(controller.step(now + PERIOD, &idle, 1.0).cause, Cause::Unused);
    assert_eq!(controller.window, before);
}

#[test]
fn one_slow_answer_at_low_load_takes_nothing_from_the_window_and_the_speed() {
    let mut controller = Controller::new(TERMS);
    for period in 1..=100 {
        let (now, slow) = (period * PERIOD, period > 50);
        let latency = Latency { median: if slow { SECOND } else { 8 * MILLISECOND }, samples: 1 };
        let signals = Signals {
            latency: Some(Aged { value: latency, at: now }),
            flow: Some(Aged { value: Flow { completed: u32::from(!slow), in_flight: 1 }, at: now }),
            most_in_flight: 1,
            ..Signals::default()
        };
        let adjustment = controller.step(now, &signals, 1.0);
        assert_eq!((adjustment.window, adjustment.speed), (TERMS.fixed, Speed::ONE), "period {period}");
    }
}

/// A period in which so many end with such a median, and so many are under way and open.
fn period(now: Nanos, median: Nanos, completed: u32, under_way: u32) -> Signals {
    Signals {
        latency: Some(Aged { value: Latency { median, samples: completed }, at: now }),
        flow: Some(Aged { value: Flow { completed, in_flight: under_way }, at: now }),
        most_in_flight: under_way,
        ..Signals::default()
    }
}

#[test]
fn one_that_gets_no_answer_among_connections_that_are_kept_takes_nothing_either() {
    let (mut controller, now) = settled();
    (controller.window, controller.rate_share) = (20.0, 1.0);
    for number in 1..=100 {
        let now = now + number * PERIOD;
        let median = if number <= 10 { 8 * MILLISECOND } else { 0 };
        let kept = Signals { most_in_flight: 12, ..period(now, median, u32::from(number <= 10), 1) };
        let adjustment = controller.step(now, &kept, 1.0);
        assert!(adjustment.window >= 20 && adjustment.speed == Speed::ONE, "period {number}: {adjustment:?}");
    }
}

#[test]
fn kept_connections_that_ask_for_little_slow_nobody_down() {
    let mut controller = Controller::new(Terms { most: TERMS.fixed, ..TERMS });
    for number in 1..=100 {
        let now = number * PERIOD;
        let kept = Signals { most_in_flight: 100, ..period(now, 8 * MILLISECOND, u32::from(number % 10 == 0), 0) };
        assert_eq!(controller.step(now, &kept, 1.0).speed, Speed::ONE, "period {number}");
    }
}

#[test]
fn what_many_wait_for_slows_the_clock_down_to_what_is_delivered() {
    let (mut controller, now) = settled();
    // A thousand a second of the two thousand that policy allows.
    let adjustment = controller.step(now + PERIOD, &busy(now + PERIOD, 200 * MILLISECOND), 1.0);
    let share = adjustment.speed.parts() as f64 / Speed::ONE.parts() as f64;
    assert!((share - 0.5).abs() < 0.01, "{adjustment:?}");
}

#[test]
fn an_overload_whose_clients_leave_at_once_is_over_at_once() {
    let (mut controller, mut now) = settled();
    for _ in 0..30 {
        now += PERIOD;
        controller.step(now, &period(now, SECOND, 20, 200), 1.0);
    }
    assert!(controller.window < 50.0 && controller.rate_share < 0.2, "{controller:?}");
    let (left, slow) = (controller.window, controller.rate_share);
    let mut quiet = Vec::new();
    for _ in 0..50 {
        now += PERIOD;
        quiet.push(controller.step(now, &period(now, 0, 0, 0), 1.0));
    }
    assert_eq!(quiet[0].delay, Some(0), "who asks for nothing waits for nothing");
    assert!(
        f64::from(quiet[0].window) >= left.floor() && controller.rate_share > slow,
        "it has not shrunk: {:?}",
        quiet[0]
    );
    let last = quiet.last().unwrap();
    assert_eq!((last.window, last.speed, last.cause), (TERMS.fixed, Speed::ONE, Cause::Idle));
}

#[test]
fn a_pause_between_two_answers_is_no_rest() {
    let (mut controller, mut now) = settled();
    controller.window = 10.0;
    for number in 0..100 {
        now += PERIOD;
        let asked = u32::from(number % 5 == 0);
        let adjustment = controller.step(now, &period(now, 8 * MILLISECOND, asked, 0), 1.0);
        assert_eq!((adjustment.window, adjustment.cause), (10, Cause::Unused), "period {number}");
    }
}

#[test]
fn a_delay_that_nobody_confirms_is_not_used_when_it_is_old() {
    let (mut controller, now) = settled();
    controller.step(now + PERIOD, &busy(now + PERIOD, 200 * MILLISECOND), 1.0);
    // The clock goes on, answers do not, and what is under way is not known.
    let silent = |now| Signals {
        latency: Some(Aged { value: Latency { median: 0, samples: 0 }, at: now }),
        most_in_flight: 1_000,
        ..Signals::default()
    };
    let old = now + PERIOD + STALE;
    assert!(controller.step(old - 1, &silent(old - 1), 1.0).delay.is_some());
    let adjustment = controller.step(old, &silent(old), 1.0);
    assert_eq!((adjustment.delay, adjustment.cause), (None, Cause::Unsure));
}

#[test]
fn one_that_waits_to_be_accepted_as_it_is_looked_at_has_not_waited_long() {
    let mut controller = Controller::new(Terms { most: TERMS.fixed, ..TERMS });
    let mut step = |number: u64, waiting| {
        let now = number * PERIOD;
        let backlog = Some(Aged { value: Backlog { waiting, accepted: 0 }, at: now });
        controller.step(now, &Signals { backlog, most_in_flight: 100, ..Signals::default() }, 1.0)
    };
    for number in 1..=100 {
        let adjustment = step(number, u32::from(number % 2 == 0));
        assert_eq!((adjustment.rung, adjustment.window), (Rung::Backlog, TERMS.fixed));
    }
    let stuck = (101..=110).map(|number| step(number, 5)).last().unwrap();
    assert!(stuck.cause == Cause::Delay && stuck.window < TERMS.fixed, "nobody accepts them: {stuck:?}");
}

#[test]
fn begins_again_with_what_policy_says_and_knows_what_is_usual() {
    let (mut controller, now) = settled();
    for number in 1..=20 {
        controller.step(now + number * PERIOD, &busy(now + number * PERIOD, SECOND), 1.0);
    }
    let before = controller.clone();
    assert!(before.window < f64::from(TERMS.fixed) && before.rate_share < 1.0, "{before:?}");
    controller.lapse();
    assert_eq!((controller.window, controller.rate_share), (f64::from(TERMS.fixed), 1.0));
    assert_eq!(controller.usual(), before.usual());
    let later = now + 21 * PERIOD;
    let first = controller.step(later, &period(later, 0, 0, 60), 1.0);
    assert_eq!(
        (first.window, first.speed, first.delay),
        (TERMS.fixed, Speed::ONE, None),
        "what was before is forgotten"
    );
}

#[test]
fn what_was_in_force_stays_until_a_signal_can_have_come() {
    let (mut controller, begin) = (Controller::new(TERMS), 1_000 * SECOND);
    controller.resume(begin, 40, Speed::ONE, None);
    let soon = controller.step(begin + PERIOD, &Signals::default(), 1.0);
    assert_eq!((soon.window, soon.cause), (40, Cause::Unsure));
    let later = controller.step(begin + STALE, &Signals::default(), 1.0);
    assert_eq!((later.window, later.cause), (TERMS.fixed, Cause::NoSignal));
}

#[test]
fn a_window_that_is_far_too_wide_comes_down_as_soon_as_many_wait() {
    let mut controller = Controller::new(Terms { fixed: 1_000, ..TERMS });
    for period in 1..=30 {
        let queue = Signals { most_in_flight: 20, ..busy(period * PERIOD, 8 * MILLISECOND) };
        assert_eq!(controller.step(period * PERIOD, &queue, 1.0).window, 1_000);
    }
    let queue = Signals { most_in_flight: 150, ..busy(31 * PERIOD, 120 * MILLISECOND) };
    let adjustment = controller.step(31 * PERIOD, &queue, 1.0);
    assert_eq!(adjustment.cause, Cause::Delay);
    // Twice what a thousand answers a second have under way at 58 ms.
    assert_eq!(adjustment.window, 116);
}

#[test]
fn takes_the_next_best_signal_and_says_which() {
    let (mut controller, now) = settled();
    let mut signals = busy(now, 8 * MILLISECOND);
    signals.backlog = Some(Aged { value: Backlog { waiting: 10, accepted: 100 }, at: now });
    signals.bad_beat = Some(Aged { value: false, at: now });
    let mut rungs = vec![controller.step(now, &signals, 1.0).rung];
    for lost in 0..4 {
        match lost {
            0 => signals.latency = None,
            1 => signals.flow = None,
            2 => signals.backlog = None,
            _ => signals.bad_beat = None,
        }
        rungs.push(controller.step(now, &signals, 1.0).rung);
    }
    assert_eq!(rungs, [Rung::Latency, Rung::Little, Rung::Backlog, Rung::Heartbeats, Rung::Static]);
    assert_eq!(controller.window, f64::from(TERMS.fixed), "it is back at what policy says");
}

#[test]
fn does_not_use_what_is_stale() {
    let (mut controller, now) = settled();
    let signals = busy(now, 8 * MILLISECOND);
    assert_eq!(controller.step(now + crate::health::signals::STALE - 1, &signals, 1.0).rung, Rung::Latency);
    assert_eq!(controller.step(now + crate::health::signals::STALE, &signals, 1.0).rung, Rung::Static);
}

#[test]
fn silence_is_bad_news() {
    let (mut controller, now) = settled();
    let before = controller.window;
    for period in 1..=20 {
        let now = now + period * PERIOD;
        let stuck = Signals {
            latency: Some(Aged { value: Latency { median: 0, samples: 0 }, at: now }),
            flow: Some(Aged { value: Flow { completed: 0, in_flight: 100 }, at: now }),
            most_in_flight: 100,
            ..Signals::default()
        };
        controller.step(now, &stuck, 1.0);
    }
    assert!(controller.window < before / 8.0, "{} of {before}", controller.window);
}

#[test]
fn one_bad_beat_shrinks_once() {
    let mut controller = Controller::new(TERMS);
    let bad = |at| Signals { bad_beat: Some(Aged { value: true, at }), ..Signals::default() };
    assert_eq!(controller.step(PERIOD, &bad(PERIOD), 1.0).cause, Cause::BadBeat);
    let before = controller.window;
    assert_ne!(controller.step(2 * PERIOD, &bad(PERIOD), 1.0).cause, Cause::BadBeat);
    assert!(controller.window >= before);
}

#[test]
fn an_older_signal_moves_it_less() {
    let shrunk_at = |age| shrunk(Delay { beyond: 200e6, usual: 8e6, age, many: true }, 50e6);
    let factors: Vec<_> = [0, 5, 10, 20].map(|periods| shrunk_at(periods * PERIOD)).to_vec();
    assert!(factors.is_sorted() && factors[0] >= SHRINKS_MOST && factors[3] < 1.0, "{factors:?}");
}

/// What is usual to one that took 8 ms, after a minute in which it takes longer with so many under way.
fn usual_after_a_minute(median: Nanos, under_way: impl Fn(&Controller) -> u32) -> Nanos {
    let (mut controller, begin) = settled();
    for now in (1..=600).map(|it| begin + it * PERIOD) {
        let under_way = under_way(&controller);
        controller.step(now, &period(now, median, 20, under_way), 1.0);
    }
    controller.usual().unwrap()
}

#[test]
fn what_takes_long_with_as_little_under_way_as_can_be_is_usual_within_the_objective() {
    let as_allowed = |controller: &Controller| whole(controller.window) as u32;
    assert_eq!(usual_after_a_minute(80 * MILLISECOND, as_allowed), 80 * MILLISECOND);
    // As far as its fifth for waiting goes into the objective beside it.
    let most = usual_after_a_minute(900 * MILLISECOND, as_allowed);
    assert!((200 * MILLISECOND..=210 * MILLISECOND).contains(&most), "{most}");
    // Where more is under way than the least window lets in, some may wait for others.
    let unknown = usual_after_a_minute(80 * MILLISECOND, |_| TERMS.least + 1);
    assert!(unknown < 9 * MILLISECOND, "{unknown}");
}

/// A median with its samples, completions with what is under way, the most of that, an overflow, their age, a share.
type Period = (Option<(Nanos, u32)>, Option<(u32, u32)>, u32, bool, Nanos, f64);

fn periods() -> impl Strategy<Value = Vec<Period>> {
    let latency = prop::option::weighted(0.8, (0..2 * SECOND, 0u32..200));
    let flow = prop::option::weighted(0.8, (0u32..200, 0u32..500));
    prop::collection::vec((latency, flow, 0u32..500, prop::bool::weighted(0.05), 0..4 * SECOND, 0.0f64..=1.0), 1..200)
}

proptest! {
    #[test]
    fn stays_within_its_bounds_and_halves_at_most(periods in periods()) {
        let (mut controller, mut now) = (Controller::new(TERMS), 10 * SECOND);
        for (latency, flow, most_in_flight, overflow, age, share) in periods {
            now += PERIOD;
            let at = now - age;
            let signals = Signals {
                latency: latency.map(|(median, samples)| Aged { value: Latency { median, samples }, at }),
                flow: flow.map(|(completed, in_flight)| Aged { value: Flow { completed, in_flight }, at }),
                overflow,
                most_in_flight,
                ..Signals::default()
            };
            let adjustment = controller.step(now, &signals, share);
            prop_assert!((TERMS.least..=TERMS.most).contains(&adjustment.window));
            prop_assert!((Speed::LEAST..=Speed::ONE).contains(&adjustment.speed));
            prop_assert!(adjustment.speed.parts() as f64 <= (share * 65_536.0).max(4_096.0), "no faster than suspicion allows");
            let stale = age >= crate::health::signals::STALE;
            prop_assert_eq!(adjustment.rung == Rung::Static, stale || latency.is_none() && flow.is_none());
        }
    }
}
