//! The laws of one service: what its backends, its signals and an operator come to together, and what is published of it.

use std::sync::Arc;

use proptest::prelude::*;

use super::{super::circuit::Forced, *};
use crate::health::{
    MILLISECOND, SECOND,
    controller::{PERIOD, Rung},
    detector::{Detector, Incarnation, Level, Sign},
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
    /// Those whose answers are errors, and those whose are late.
    errors: Vec<usize>,
    late: Vec<usize>,
    starved: bool,
    observed: Box<dyn Fn(Nanos) -> Observed>,
    said: Vec<What>,
    decided: Option<Decision>,
}

impl Scene {
    fn of(terms: Terms, count: u16) -> Self {
        let mut health = ServiceHealth::new(START, terms);
        health.set_backends(START, &backends(count), count.into());
        let answers = vec![Some(Sign::Answered); count.into()];
        Self {
            health,
            now: START,
            answers,
            errors: Vec::new(),
            late: Vec::new(),
            starved: false,
            observed: Box::new(|_| Observed::default()),
            said: Vec::new(),
            decided: None,
        }
    }

    fn run(&mut self, time: Nanos) -> &Decision {
        for _ in 0..time / LOOKS {
            self.now += LOOKS;
            let look = (self.now - START) / LOOKS;
            let probed = self.health.probes(self.now);
            for (number, answer) in self.answers.clone().iter().enumerate() {
                let place = place(number as u16);
                // Every fourth look is an interval.
                let is_probed = |wanted| probed.contains(&(place.clone(), wanted));
                let confirms = is_probed(Wanted::Confirmation);
                let sign = match answer {
                    Some(sign) if look.is_multiple_of(4) || confirms || is_probed(Wanted::Trial) => *sign,
                    None if confirms => Sign::Unanswered,
                    _ => continue,
                };
                let nothing = matches!(sign, Sign::Unanswered | Sign::Unsent);
                let good = (!nothing).then_some(sign == Sign::Answered && !self.errors.contains(&number));
                let took = if self.late.contains(&number) { 2 * BOUNDS.objective } else { MILLISECOND };
                let said = self.health.see(self.now, &place, sign, Some(took), good);
                self.said.extend(said.map(|it| it.what));
            }
            self.said.extend(self.health.look(self.now, self.starved).into_iter().map(|it| it.what));
            if look.is_multiple_of(2) {
                let decision = self.health.step(self.now, &(self.observed)(self.now), || 0.5);
                self.said.extend(decision.transitions.iter().map(|it| it.what));
                self.decided = Some(decision);
            }
        }
        self.decided.as_ref().expect("a step was taken")
    }

    fn away(&self) -> Vec<usize> {
        let away = self.health.backends.iter().enumerate().filter(|(_, it)| it.breaker().is_away());
        away.map(|(number, _)| number).collect()
    }

    /// Until when it runs before nobody is kept away any more.
    fn runs_until_all_are_let_in(&mut self) -> Nanos {
        let start = self.now;
        while !self.away().is_empty() {
            assert!(self.now < start + 600 * SECOND, "{:?}", self.breakers());
            self.run(PERIOD);
        }
        self.now - start
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
fn who_beats_rarely_is_let_in_though_clients_use_up_every_trial() {
    let (mut now, every) = (START, 2 * SECOND);
    let mut health = ServiceHealth::new(now, TERMS);
    health.set_backends(now, &[(place(0), every), (place(1), BEATS)], 2);
    health.resume_breaker(now, Some(&place(0)), State::Open { until: now + SECOND });
    let mut taken = 0;
    let mut changes = Vec::new();
    while changes.len() < 2 && now < START + 60 * SECOND {
        now += PERIOD;
        if (now - START).is_multiple_of(every) {
            let beat = Sign::Beat { of: Incarnation { boot: 1, generation: 1 }, sequence: now };
            health.see(now, &place(0), beat, None, Some(true));
        }
        health.see(now, &place(1), Sign::Answered, None, Some(true));
        health.look(now, false);
        let seen = Observed { backends_taken: vec![taken, 0], ..Observed::default() };
        let decision = health.step(now, &seen, || 0.5);
        let half_open = matches!(decision.backends[0], State::HalfOpen { .. });
        taken = if half_open { crate::health::breaker::TRIALS } else { 0 };
        changes.extend(decision.transitions.iter().filter_map(|it| match it.what {
            What::Breaker(change) => Some(change.to),
            _ => None,
        }));
    }
    assert!(matches!(changes[..], [State::HalfOpen { .. }, State::Closed]), "{changes:?}");
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
fn a_check_that_fails_everywhere_keeps_nobody_away() {
    for count in 1..6 {
        let mut scene = Scene::of(TERMS, count);
        scene.run(10 * SECOND);
        scene.errors = (0..count.into()).collect();
        for _ in 0..600 {
            scene.run(PERIOD);
            assert!(scene.away().is_empty(), "of {count} after {} s", (scene.now - START) / SECOND);
        }
    }
}

#[test]
fn the_only_backend_is_kept_from_nobody_however_long_it_refuses() {
    let mut scene = Scene::of(Terms { control: Control::Fixed, ..TERMS }, 1);
    scene.answers[0] = Some(Sign::Refused);
    for _ in 0..600 {
        assert_eq!(scene.run(SECOND).backends, [State::Closed]);
    }
    assert_eq!(scene.breakers(), [State::Closed]);
}

#[test]
fn one_that_fails_alone_is_kept_away_and_after_ten_minutes_let_in_within_seconds() {
    let mut scene = Scene::of(TERMS, 3);
    scene.run(10 * SECOND);
    scene.errors = vec![1];
    scene.run(600 * SECOND);
    assert_eq!(scene.away(), [1]);
    scene.errors.clear();
    let took = scene.runs_until_all_are_let_in();
    assert!(took <= 7 * SECOND, "{took}");
}

#[test]
fn the_kernel_is_told_of_no_wait_that_only_an_agent_can_end() {
    let mut scene = Scene::of(TERMS, 3);
    scene.errors = vec![1];
    let mut longest = 0;
    for _ in 0..600 {
        let told = scene.run(PERIOD).backends[1];
        let State::Open { until } = told else { continue };
        assert!(until <= scene.now + crate::health::breaker::OPEN_TIME);
        let State::Open { until } = scene.breakers()[1] else { panic!("it is open") };
        longest = longest.max(until.saturating_sub(scene.now));
    }
    assert!(longest > 15 * SECOND, "{longest}");
}

#[test]
fn who_is_dead_takes_the_place_of_one_that_only_fails() {
    let mut scene = Scene::of(TERMS, 2);
    scene.errors = vec![0];
    scene.run(10 * SECOND);
    assert_eq!(scene.away(), [0]);
    scene.answers[1] = Some(Sign::Refused);
    scene.run(SECOND);
    assert_eq!(scene.away(), [1], "errors are more than nothing");
}

#[test]
fn of_those_that_no_operator_keeps_away_half_may_be() {
    for (count, away) in [(2, 0), (3, 1)] {
        let mut scene = Scene::of(TERMS, count);
        assert_eq!(scene.health.force(Some("web-0"), Some(Forced::Open)), 1);
        scene.errors = vec![1];
        scene.run(20 * SECOND);
        assert_eq!(scene.away().len(), away, "of {count}");
    }
}

#[test]
fn what_is_bad_while_the_observer_is_held_up_or_cannot_ask_is_no_backends_fault() {
    let mut scene = Scene::of(TERMS, 3);
    (scene.starved, scene.errors) = (true, vec![1]);
    scene.run(60 * SECOND);
    assert!(scene.away().is_empty());
    scene.starved = false;
    scene.run(10 * SECOND);
    assert_eq!(scene.away(), [1], "what it shows then counts");

    let mut scene = Scene::of(TERMS, 3);
    scene.answers = vec![Some(Sign::Unsent), Some(Sign::Unsent), Some(Sign::Answered)];
    scene.run(60 * SECOND);
    let dead = scene.said.iter().filter(|it| matches!(it, What::Level(it) if it.to == Level::Dead)).count();
    assert_eq!((scene.away().len(), dead), (0, 0));
    assert!(!scene.health.bad_beat().is_some_and(|it| it.value), "it is no bad heartbeat");
    assert!(scene.health.share(scene.now) >= 1.0, "nobody knows anything against them");
}

#[test]
fn one_that_is_slow_alone_is_kept_away_unless_all_are_and_the_window_can_mend_it() {
    for (median, away) in [(8, vec![1]), (60, vec![])] {
        let mut scene = Scene::of(TERMS, 3);
        scene.observed = Box::new(|now| busy(now, 8 * MILLISECOND));
        scene.run(2 * SECOND);
        scene.late = vec![1];
        scene.observed = Box::new(move |now| busy(now, median * MILLISECOND));
        scene.run(10 * SECOND);
        assert_eq!(scene.away(), away, "the service takes {median} ms");
    }
}

#[test]
fn who_is_away_for_a_while_comes_back_as_it_was() {
    let mut scene = Scene::of(TERMS, 4);
    scene.errors = vec![2];
    scene.answers[1] = None;
    scene.run(20 * SECOND);
    assert_eq!(scene.away(), [1, 2]);
    let (dead, fails) = (scene.health.watch.backends()[1].clone(), scene.breakers()[2]);
    let (all, some) = (backends(4), [0, 3].map(|number| (place(number), BEATS)));
    assert_eq!(scene.health.set_backends(scene.now, &some, 1), []);
    // Nobody looks at those who are not there.
    scene.run(10 * SECOND);
    assert_eq!(scene.health.set_backends(scene.now, &all, 1), [], "all are known");
    let order: Vec<_> = scene.health.backends.iter().map(|it| it.place.clone()).collect();
    let number = |wanted| order.iter().position(|it| *it == place(wanted)).unwrap();
    let back = &scene.health.watch.backends()[number(1)];
    assert_eq!((back.level(), back.since()), (Level::Dead, dead.since()));
    assert_eq!(scene.breakers()[number(2)], fails);
    scene.health.look(scene.now, false);
    assert!(!scene.said.iter().any(|it| matches!(it, What::Level(it) if it.to == Level::Held)));
    let levels: Vec<_> = scene.health.watch.backends().iter().map(Detector::level).collect();
    assert_eq!(levels.iter().filter(|it| **it == Level::Suspect).count(), 0, "nobody asked them: {levels:?}");

    assert_eq!(scene.health.set_backends(scene.now, &some, 1), []);
    let later = scene.now + 301 * SECOND;
    assert_eq!(scene.health.set_backends(later, &all, 1), [place(1), place(2)], "what was long ago is forgotten");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn never_are_more_than_half_of_the_backends_kept_away(
        count in 1u16..7,
        control in prop::sample::select(vec![Control::Latency, Control::Fixed]),
        scenes in prop::collection::vec(
            (prop::collection::vec(prop::sample::select(vec![0u8, 0, 1, 2, 3, 4]), 6), 1u64..30), 1..6,
        ),
    ) {
        let mut scene = Scene::of(Terms { control, ..TERMS }, count);
        for (ways, seconds) in scenes {
            let are = |way: u8| (0..usize::from(count)).filter(|it| ways[*it] == way).collect::<Vec<_>>();
            (scene.errors, scene.late) = (are(1), are(2));
            let answer = |way| match way { 3 => None, 4 => Some(Sign::Refused), _ => Some(Sign::Answered) };
            scene.answers = ways[..count.into()].iter().map(|way| answer(*way)).collect();
            for _ in 0..seconds * 10 {
                scene.run(PERIOD);
                let away = scene.away();
                prop_assert!(away.len() <= usize::from(count) / 2, "{:?} of {}", away, count);
                let dead = (0..usize::from(count)).filter(|it| scene.health.watch.is_ejected(*it));
                prop_assert!(dead.clone().all(|it| away.contains(&it)), "{:?}, of {:?}", away, dead.collect::<Vec<_>>());
            }
        }
        // However long they failed, all are let in soon after all are well, but for who has come and gone too often.
        (scene.errors, scene.late, scene.answers) = (vec![], vec![], vec![Some(Sign::Answered); count.into()]);
        scene.run(10 * SECOND);
        for number in scene.away() {
            prop_assert_eq!(scene.health.watch.backends()[number].level(), Level::Held);
        }
    }
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
fn suspicion_and_slow_start_move_the_window_too_where_nothing_else_is_there_to_move() {
    let bounds = controller::Terms { rate: None, most: 100, ..BOUNDS };
    let mut scene = Scene::of(Terms { bounds, ..TERMS }, 1);
    scene.observed = Box::new(|now| busy(now, 8 * MILLISECOND));
    assert_eq!(scene.run(SECOND).window, Some(100), "it is well, and all of it is used");
    scene.answers[0] = None;
    let least = (0..10).map(|_| scene.run(PERIOD).window).min().flatten();
    assert!(least.is_some_and(|it| (20..=30).contains(&it)), "a quarter before its death is known: {least:?}");
    scene.run(3 * SECOND);
    scene.answers[0] = Some(Sign::Answered);
    let mut windows = Vec::new();
    while scene.health.share(scene.now) < 1.0 && windows.len() < 100 {
        windows.push(scene.run(4 * LOOKS).window.unwrap_or(100));
    }
    assert!(windows[5..].is_sorted() && windows.len() > 45, "it grows for ten seconds: {windows:?}");
    for control in [Control::Fixed, Control::Rate] {
        let mut scene = Scene::of(Terms { control, bounds, ..TERMS }, 1);
        scene.answers[0] = None;
        assert_eq!(scene.run(3 * SECOND).window, None, "{control:?} moves no window");
    }
}

#[test]
fn a_suspicion_closes_no_connection() {
    let bounds = controller::Terms { most: 100, ..BOUNDS };
    let mut scene = Scene::of(Terms { closes: true, bounds, ..TERMS }, 1);
    scene.observed = Box::new(|now| Observed { open: Some(90), ..busy(now, 8 * MILLISECOND) });
    scene.run(SECOND);
    scene.answers[0] = None;
    for _ in 0..20 {
        assert_eq!(scene.run(PERIOD).closes, 0);
    }
}

#[test]
fn begins_again_with_what_policy_says_when_that_was_in_force_for_a_while() {
    for control in [Control::Latency, Control::Rate] {
        let mut scene = Scene::of(Terms { control, ..TERMS }, 0);
        scene.observed = Box::new(|now| busy(now, 8 * MILLISECOND));
        scene.run(2 * SECOND);
        scene.observed = Box::new(|now| busy(now, 400 * MILLISECOND));
        let before = scene.run(3 * SECOND).clone();
        assert!(before.speed < Speed::ONE && before.window.is_none_or(|it| it < BOUNDS.fixed / 4), "{before:?}");
        scene.now += 10 * SECOND;
        scene.health.lapse();
        let seen = |now, samples| {
            let mut seen = busy(now, 8 * MILLISECOND);
            seen.signals.latency = Some(Aged { value: Latency { median: 8 * MILLISECOND, samples }, at: now });
            seen.signals.flow = Some(Aged { value: Flow { completed: samples, in_flight: 5 }, at: now });
            seen.signals.most_in_flight = 10;
            seen
        };
        // Of the time in which it stood still nothing is known.
        scene.observed = Box::new(move |now| seen(now, 0));
        let first = scene.run(PERIOD).clone();
        assert_eq!((first.window.unwrap_or(BOUNDS.fixed), first.speed), (BOUNDS.fixed, Speed::ONE), "{control:?}");
        scene.observed = Box::new(move |now| seen(now, 100));
        let then = scene.run(SECOND).clone();
        assert_eq!((then.window.unwrap_or(BOUNDS.fixed), then.speed), (BOUNDS.fixed, Speed::ONE), "{control:?}");
    }
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
    scene.answers[0] = Some(Sign::Answered);
    let back = scene.run(90 * SECOND).window;
    assert_eq!(back, Some(BOUNDS.most), "what it allows is back in a minute, however little was left");
}

#[test]
fn by_heartbeats_alone_one_bad_backend_of_three_shrinks_nothing() {
    let mut scene = Scene::of(Terms { control: Control::Aimd, breaks: false, ..TERMS }, 3);
    scene.observed = Box::new(|now| busy(now, 8 * MILLISECOND));
    let before = scene.run(2 * SECOND).window.expect("there are beats");
    scene.errors = vec![1];
    let after = scene.run(30 * SECOND).window.expect("there are beats");
    assert!(after >= before, "{after} of {before}");
    scene.errors = vec![1, 2];
    let after = scene.run(5 * SECOND).window.expect("there are beats");
    assert!(after < before / 2, "{after} of {before} where most are bad");
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
    scene.health.set_backends(scene.now, &left, 3);
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
    health.set_backends(START, &twice, 2);
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
