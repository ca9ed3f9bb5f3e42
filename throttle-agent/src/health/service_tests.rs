//! The laws of one service: what its backends, its signals and an operator come to together, and what is published of it.

use std::sync::Arc;

use proptest::prelude::*;

use super::{super::circuit::Forced, *};
use crate::health::{
    MILLISECOND, SECOND,
    controller::{PERIOD, Rung},
    detector::{Incarnation, Level},
    signals::{Flow, Latency},
};

const START: Nanos = 1_000 * SECOND;
const BEATS: Nanos = 200 * MILLISECOND;
const BOUNDS: controller::Terms =
    controller::Terms { objective: 250 * MILLISECOND, least: 2, most: 1_000, fixed: 100, rate: Some(2_000.0) };
const TERMS: Terms = Terms { control: Control::Latency, enforces: true, breaks: true, closes: false, bounds: BOUNDS };

fn place(number: u16) -> Place {
    Place { backend: Arc::from(format!("web-{number}")), address: ([10, 0, 0, 1], 8_000 + number).into() }
}

fn backends(count: u16) -> Vec<(Place, Nanos)> {
    (0..count).map(|number| (place(number), BEATS)).collect()
}

fn busy(now: Nanos, median: Nanos) -> Observed {
    let signals = Signals {
        latency: Some(Aged { value: Latency { median, samples: 100 }, at: now }),
        flow: Some(Aged { value: Flow { completed: 100, in_flight: 60 }, at: now }),
        most_in_flight: 1_000,
        ..Signals::default()
    };
    Observed { signals, ..Observed::default() }
}

/// A service, and the time that passes for it.
struct Scene {
    health: ServiceHealth,
    now: Nanos,
    /// What its backends answer, each at every look; silent where there is nothing.
    answers: Vec<Option<Sign>>,
    observed: Box<dyn Fn(Nanos) -> Observed>,
    said: Vec<What>,
    decided: Option<Decision>,
}

impl Scene {
    fn of(terms: Terms, count: u16) -> Self {
        let mut health = ServiceHealth::new(START, terms);
        health.set_backends(START, &backends(count));
        let answers = vec![Some(Sign::Answered); count.into()];
        Self {
            health,
            now: START,
            answers,
            observed: Box::new(|_| Observed::default()),
            said: Vec::new(),
            decided: None,
        }
    }

    fn run(&mut self, time: Nanos) -> &Decision {
        for look in 1..=time / LOOKS {
            self.now += LOOKS;
            let probed = self.health.probes(self.now);
            for (number, answer) in self.answers.clone().iter().enumerate() {
                let place = place(number as u16);
                // Every fourth look is an interval.
                let is_probed = |wanted| probed.contains(&(place.clone(), wanted));
                let confirms = is_probed(Wanted::Confirmation);
                let sign = match answer {
                    Some(sign) if look % 4 == 0 || confirms || is_probed(Wanted::Trial) => *sign,
                    None if confirms => Sign::Unanswered,
                    _ => continue,
                };
                let good = (sign != Sign::Unanswered).then_some(sign == Sign::Answered);
                let said = self.health.see(self.now, &place, sign, Some(MILLISECOND), good);
                self.said.extend(said.map(|it| it.what));
            }
            self.said.extend(self.health.look(self.now, false).into_iter().map(|it| it.what));
            if look % 2 == 0 {
                let decision = self.health.step(self.now, &(self.observed)(self.now), || 0.5);
                self.said.extend(decision.transitions.iter().map(|it| it.what));
                self.decided = Some(decision);
            }
        }
        self.decided.as_ref().expect("a step was taken")
    }

    fn breakers(&self) -> Vec<State> {
        self.health.backends(self.now).map(|(backend, ..)| backend.breaker().state()).collect()
    }
}

fn ratio(speed: Speed) -> f64 {
    speed.parts() as f64 / Speed::ONE.parts() as f64
}

#[test]
fn one_dead_backend_of_three_takes_a_third_of_the_speed_and_opens_its_breaker_alone() {
    let mut scene = Scene::of(TERMS, 3);
    assert_eq!(scene.run(SECOND).speed, Speed::ONE);
    scene.answers[1] = None;
    let decision = scene.run(3 * SECOND).clone();
    assert!((ratio(decision.speed) - 2.0 / 3.0).abs() < 0.01, "{decision:?}");
    assert!(matches!(decision.backends[..], [State::Closed, State::Open { .. }, State::Closed]), "{decision:?}");
    assert_eq!(decision.breaker, State::Closed);
    assert_eq!(scene.said.iter().filter(|it| matches!(it, What::Breaker(_))).count(), 1, "it is said once");
}

#[test]
fn who_is_back_is_tried_and_let_in_by_the_agents_own_probes() {
    let mut scene = Scene::of(TERMS, 3);
    scene.run(SECOND);
    scene.answers[1] = None;
    scene.run(3 * SECOND);
    scene.answers[1] = Some(Sign::Answered);
    scene.said.clear();
    scene.run(3 * SECOND);
    assert_eq!(scene.breakers(), [State::Closed; 3]);
    let states: Vec<_> =
        scene.said.iter().filter_map(|it| if let What::Breaker(it) = it { Some(it.to) } else { None }).collect();
    assert!(matches!(states[..], [State::HalfOpen { .. }, State::Closed]), "{states:?}");
}

#[test]
fn who_is_back_and_fails_its_trials_is_not_tried_again_at_once() {
    let mut scene = Scene::of(TERMS, 3);
    scene.run(SECOND);
    scene.answers[1] = None;
    scene.run(3 * SECOND);
    // It refuses no connection and beats, but its answers are errors.
    scene.answers[1] = Some(Sign::Beat { of: Incarnation { boot: 1, generation: 1 }, sequence: 0 });
    let mut opened = 0;
    for sequence in 1..100 {
        scene.answers[1] = Some(Sign::Beat { of: Incarnation { boot: 1, generation: 1 }, sequence });
        scene.run(2 * LOOKS);
        opened += scene
            .said
            .drain(..)
            .filter(|it| matches!(it, What::Breaker(it) if matches!(it.to, State::Open { .. })))
            .count();
    }
    assert!(opened <= 2, "{opened} rounds in ten seconds");
}

#[test]
fn the_window_follows_the_delay_and_is_given_back_where_nothing_is_known() {
    let mut scene = Scene::of(TERMS, 0);
    scene.observed = Box::new(|now| busy(now, 8 * MILLISECOND));
    let before = scene.run(5 * SECOND).window.expect("there is a signal");
    scene.observed = Box::new(|now| busy(now, 200 * MILLISECOND));
    let after = scene.run(SECOND).window.expect("there is a signal");
    assert!(after < before / 2, "{after} of {before}");
    scene.observed = Box::new(|_| Observed::default());
    assert_eq!(scene.run(SECOND).window, None, "nothing is known, so that policy holds");
    assert!(scene.said.contains(&What::Signal { from: Rung::Latency, to: Rung::Static }));
}

#[test]
fn what_is_only_observed_is_decided_and_shown_and_nothing_of_it_published() {
    let mut scene = Scene::of(Terms { enforces: false, ..TERMS }, 3);
    scene.observed = Box::new(|now| busy(now, 8 * MILLISECOND));
    scene.run(5 * SECOND);
    scene.answers[1] = None;
    scene.observed = Box::new(|now| busy(now, 200 * MILLISECOND));
    let decision = scene.run(5 * SECOND).clone();
    assert_eq!((decision.window, decision.speed, decision.breaker), (None, Speed::ONE, State::Closed));
    assert_eq!(decision.backends, [State::Closed; 3]);
    let shown = scene.health.adjustment().expect("it was decided");
    assert!(shown.speed < Speed::ONE && matches!(scene.breakers()[1], State::Open { .. }), "{shown:?}");
    // 1 000 a second, which wait 8 ms and may wait 50 ms more.
    assert!((50..=60).contains(&shown.window), "a window that bites nobody does not shrink to nothing: {shown:?}");
}

#[test]
fn where_only_the_rate_moves_there_is_no_window_and_the_speed_follows() {
    let mut scene = Scene::of(Terms { control: Control::Rate, ..TERMS }, 0);
    scene.observed = Box::new(|now| busy(now, 8 * MILLISECOND));
    let before = scene.run(5 * SECOND).clone();
    assert_eq!(before.window, None);
    scene.observed = Box::new(|now| busy(now, 200 * MILLISECOND));
    let after = scene.run(3 * SECOND).clone();
    assert!(after.window.is_none() && ratio(after.speed) < ratio(before.speed) / 2.0, "{after:?}, {before:?}");
}

#[test]
fn by_heartbeats_alone_bad_ones_shrink_the_window_whatever_the_latency_is() {
    let mut scene = Scene::of(Terms { control: Control::Aimd, ..TERMS }, 1);
    scene.observed = Box::new(|now| busy(now, 8 * MILLISECOND));
    let before = scene.run(2 * SECOND).window.expect("there are beats");
    scene.answers[0] = Some(Sign::Refused);
    let after = scene.run(2 * SECOND).window.expect("there are beats");
    assert!(after < before / 2, "{after} of {before}");
    assert_eq!(scene.health.adjustment().map(|it| it.rung), Some(Rung::Heartbeats));
}

#[test]
fn goes_on_from_what_was_in_force() {
    let mut health = ServiceHealth::new(START, TERMS);
    let half = Speed::of_parts(Speed::ONE.parts() / 2).expect("half is a speed");
    health.resume(START, Some(40), half, Some(8 * MILLISECOND));
    let mut seen = busy(START + PERIOD, 200 * MILLISECOND);
    seen.signals.most_in_flight = 40;
    let decision = health.step(START + PERIOD, &seen, || 0.5);
    let window = decision.window.expect("there is a signal");
    assert!((20..40).contains(&window), "the delay is known for one although it is the first: {decision:?}");
}

#[test]
fn what_is_held_of_a_backend_stays_when_others_come_and_go() {
    let mut scene = Scene::of(TERMS, 3);
    scene.run(SECOND);
    scene.answers[1] = None;
    scene.run(3 * SECOND);
    let left: Vec<_> = [1, 2, 7].map(|number| (place(number), BEATS)).to_vec();
    scene.health.set_backends(scene.now, &left);
    let held: Vec<_> =
        scene.health.backends(scene.now).map(|(it, detector, _)| (it.place.clone(), detector.level())).collect();
    let levels = [Level::Dead, Level::Healthy, Level::Healthy];
    assert_eq!(held, left.into_iter().map(|(place, _)| place).zip(levels).collect::<Vec<_>>());
    assert!(matches!(scene.breakers()[0], State::Open { .. }));
}

#[test]
fn an_operator_holds_all_places_of_a_backend_and_leaves_them_again() {
    let mut health = ServiceHealth::new(START, Terms { enforces: false, breaks: false, ..TERMS });
    let mut twice = backends(2);
    twice[1].0.backend = Arc::clone(&twice[0].0.backend);
    health.set_backends(START, &twice);
    assert_eq!(health.force(Some("web-0"), Some(Forced::Open)), 2);
    assert_eq!(health.force(Some("web-1"), Some(Forced::Open)), 0);
    let decision = health.step(START + PERIOD, &Observed::default(), || 0.5);
    assert_eq!(decision.backends, [State::Forced(Forced::Open); 2], "also where health only observes");
    assert_eq!(decision.breaker, State::Closed);
    assert_eq!(health.force(Some("web-0"), None), 2);
    assert_eq!(health.step(START + 2 * PERIOD, &Observed::default(), || 0.5).backends, [State::Closed; 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_published_stays_within_policy_whatever_is_seen(
        control in prop::sample::select(vec![Control::Latency, Control::Rate, Control::Aimd, Control::Fixed]),
        enforces in any::<bool>(), breaks in any::<bool>(),
        scenes in prop::collection::vec((0u64..2_000, 0usize..5, any::<bool>(), 1u64..20), 1..8),
    ) {
        let terms = Terms { control, enforces, breaks, closes: false, bounds: BOUNDS };
        let mut scene = Scene::of(terms, 4);
        for (median, silent, known, periods) in scenes {
            scene.answers = (0..4).map(|it| (it != silent).then_some(Sign::Answered)).collect();
            let seen = move |now| if known { busy(now, median * MILLISECOND) } else { Observed::default() };
            scene.observed = Box::new(seen);
            for _ in 0..periods {
                let decision = scene.run(PERIOD).clone();
                prop_assert!(decision.window.is_none_or(|it| (BOUNDS.least..=BOUNDS.most).contains(&it)));
                prop_assert!(decision.window.is_none() || matches!(control, Control::Latency | Control::Aimd) && enforces);
                prop_assert!(decision.speed == Speed::ONE || enforces && control != Control::Fixed);
                let closed = decision.backends.iter().chain([&decision.breaker]).all(|it| *it == State::Closed);
                prop_assert!(closed || enforces && breaks);
                prop_assert!(ratio(decision.speed) <= scene.health.share(scene.now) + 1e-4 || !enforces || control == Control::Fixed);
            }
        }
    }
}

#[test]
fn what_is_kept_open_above_the_window_is_closed_little_by_little_and_no_more_than_that() {
    let late = |open| move |now| Observed { open: Some(open), ..busy(now, 400 * MILLISECOND) };
    let mut scene = Scene::of(Terms { closes: true, ..TERMS }, 0);
    scene.observed = Box::new(|now| Observed { open: Some(60), ..busy(now, 20 * MILLISECOND) });
    assert_eq!(scene.run(SECOND).closes, 0, "all within the window");
    let mut open = 100;
    for _ in 0..40 {
        scene.observed = Box::new(late(open));
        let decision = scene.run(100 * MILLISECOND);
        let window = decision.window.unwrap();
        let above = open.saturating_sub(window);
        assert!(decision.closes <= above && 2 * decision.closes >= above, "{} of {above}", decision.closes);
        assert!(f64::from(window) >= (0.7 * f64::from(open)).floor(), "{window} is far below the {open} that are open");
        open -= decision.closes;
    }
    assert!(open < 10, "{open} are left");
    for terms in [TERMS, Terms { enforces: false, closes: true, ..TERMS }] {
        let mut scene = Scene::of(terms, 0);
        scene.observed = Box::new(late(100));
        assert_eq!(scene.run(SECOND).closes, 0);
    }
}
