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
fn one_slow_answer_at_low_load_takes_nothing_from_the_window() {
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
        assert_eq!(controller.step(now, &signals, 1.0).window, TERMS.fixed, "period {period}");
    }
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
