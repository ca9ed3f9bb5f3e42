//! The laws of one service: what its backends, its signals and an operator come to together, and what is published of it.

use std::sync::Arc;

use proptest::prelude::*;

use super::{super::circuit::Forced, *};
use crate::health::{
    MILLISECOND, SECOND,
    controller::{PERIOD, Rung},
    detector::{Detector, Incarnation, Level, Sign},
    life::Said,
    signals::{Backlog, Flow, Latency},
};

#[path = "service/backends_tests.rs"]
mod backends;
#[path = "service/breaking_tests.rs"]
mod breaking;

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

/// A period in which nobody seems to ask: nothing is under way, and nothing has ended.
fn quiet(now: Nanos, places_taken: u32) -> Observed {
    let signals = Signals {
        latency: Some(Aged { value: Latency { median: 0, samples: 0 }, at: now }),
        flow: Some(Aged { value: Flow { completed: 0, in_flight: 0 }, at: now }),
        most_in_flight: places_taken,
        ..Signals::default()
    };
    Observed { signals, ..Observed::default() }
}

/// The same where nothing is measured but what waits to be accepted.
fn unmeasured(now: Nanos, waiting: u32) -> Observed {
    let backlog = Some(Aged { value: Backlog { waiting, accepted: 0 }, at: now });
    Observed { signals: Signals { backlog, most_in_flight: 60, ..Signals::default() }, ..Observed::default() }
}

/// A service, and the time that passes for it.
struct Scene {
    health: ServiceHealth,
    now: Nanos,
    /// What its backends answer, each at every look; silent where there is nothing.
    answers: Vec<Option<Sign>>,
    /// Those whose answers are errors, those whose are late, and those that say that they have too much to do.
    errors: Vec<usize>,
    late: Vec<usize>,
    overloaded: Vec<usize>,
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
            overloaded: Vec::new(),
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
                let nothing = matches!(sign, Sign::Unanswered | Sign::Mute | Sign::Unsent);
                let good = (!nothing).then_some(sign == Sign::Answered && !self.errors.contains(&number));
                let took = if self.late.contains(&number) { 2 * BOUNDS.objective } else { MILLISECOND };
                let overloaded = self.overloaded.contains(&number);
                let said = Said { sign, latency: Some(took), good, overloaded };
                self.said.extend(self.health.see(self.now, &place, said).map(|it| it.what));
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
fn the_window_follows_the_delay_and_is_given_back_where_nothing_is_known() {
    let mut scene = Scene::of(TERMS, 0);
    scene.observed = Box::new(|now| busy(now, 8 * MILLISECOND));
    let before = scene.run(5 * SECOND).window.expect("there is a signal");
    scene.observed = Box::new(|now| busy(now, 200 * MILLISECOND));
    let after = scene.run(SECOND).window.expect("there is a signal");
    assert!(after < before / 2, "{after} of {before}");
    scene.observed = Box::new(|_| Observed::default());
    assert_eq!(scene.run(SECOND).window, None, "nothing is known, so that policy holds");
}

#[test]
fn what_limits_follow_is_said_once_when_it_has_lasted() {
    let mut scene = Scene::of(TERMS, 0);
    let signals = |scene: &Scene| {
        let of = |what: &What| if let What::Signal { from, to } = what { Some((*from, *to)) } else { None };
        scene.said.iter().filter_map(of).collect::<Vec<_>>()
    };
    scene.observed = Box::new(|now| busy(now, 8 * MILLISECOND));
    scene.run(5 * SECOND);
    let first = (Rung::Static, Rung::Latency);
    assert_eq!(signals(&scene), [first]);
    // A signal that comes and goes.
    for _ in 0..60 {
        scene.observed = Box::new(|_| Observed::default());
        scene.run(PERIOD);
        scene.observed = Box::new(|now| busy(now, 8 * MILLISECOND));
        scene.run(2 * PERIOD);
    }
    assert_eq!(signals(&scene), [first], "what does not last is not said");
    scene.observed = Box::new(|_| Observed::default());
    scene.run(60 * SECOND);
    assert_eq!(signals(&scene), [first, (Rung::Latency, Rung::Static)], "what lasts is said once");
}

#[test]
fn a_backend_that_hung_before_anybody_looked_is_no_idle_one() {
    // One that is probed, and one that pushes its beats and is asked no more when it is dead.
    for silence in [Some(Sign::Unanswered), None] {
        for seen in [|now| quiet(now, 60), |now| unmeasured(now, 0)] {
            let mut scene = Scene::of(TERMS, 1);
            scene.answers[0] = silence;
            scene.observed = Box::new(seen);
            let window = scene.run(10 * SECOND).window;
            assert!(window.is_some_and(|it| it <= BOUNDS.fixed / 10), "{window:?} is open to one that hangs");
            assert_eq!(scene.health.adjustment().map(|it| it.rung), Some(Rung::Heartbeats), "its probes decide");
            scene.answers[0] = Some(Sign::Answered);
            scene.observed = Box::new(|now| quiet(now, 0));
            let window = scene.run(30 * SECOND).window;
            assert_eq!(window, Some(BOUNDS.fixed), "it is well again, and idle");
        }
    }
}

/// A period in which a few were answered, of ten places that are taken.
fn answered(now: Nanos) -> Observed {
    let mut seen = quiet(now, 10);
    seen.signals.latency = Some(Aged { value: Latency { median: 8 * MILLISECOND, samples: 2 }, at: now });
    seen.signals.flow = Some(Aged { value: Flow { completed: 2, in_flight: 0 }, at: now });
    seen
}

/// The same where nothing is measured but what is accepted.
fn accepted(now: Nanos) -> Observed {
    let mut seen = unmeasured(now, 0);
    seen.signals.backlog = Some(Aged { value: Backlog { waiting: 0, accepted: 2 }, at: now });
    seen
}

#[test]
fn a_broken_probe_takes_nothing_from_a_service_that_answers() {
    type Seen = fn(Nanos) -> Observed;
    let measured: [Seen; 2] = [answered, |now| quiet(now, 10)];
    let unmeasured: [Seen; 2] = [accepted, |now| unmeasured(now, 0)];
    for [busy, pause] in [measured, unmeasured] {
        for answer in [Some(Sign::Unanswered), Some(Sign::Refused), None] {
            let mut scene = Scene::of(TERMS, 1);
            scene.answers[0] = answer;
            // Of ten periods one shows an answer, and nine show nothing.
            scene.observed =
                Box::new(move |now| if (now / PERIOD).is_multiple_of(10) { busy(now) } else { pause(now) });
            for period in 0..600 {
                let window = scene.run(PERIOD).window;
                assert!(window.is_none_or(|it| it >= BOUNDS.fixed), "period {period}, {answer:?}: {window:?}");
            }
        }
    }
}

#[test]
fn kept_connections_that_rest_are_no_hanging_service_where_answers_were_measured() {
    let mut scene = Scene::of(TERMS, 1);
    scene.observed = Box::new(answered);
    scene.run(2 * SECOND);
    // From now on nobody asks, and the check breaks.
    scene.answers[0] = Some(Sign::Refused);
    scene.observed = Box::new(|now| quiet(now, 60));
    for period in 0..600 {
        let window = scene.run(PERIOD).window;
        assert!(window.is_none_or(|it| it >= BOUNDS.fixed), "period {period}: {window:?}");
    }
}

#[test]
fn whoever_waits_to_be_accepted_is_told_by_the_backlog_where_nothing_seems_to_be_asked() {
    let mut scene = Scene::of(TERMS, 0);
    scene.observed = Box::new(|now| {
        let mut seen = quiet(now, 60);
        seen.signals.backlog = unmeasured(now, 50).signals.backlog;
        seen
    });
    let window = scene.run(10 * SECOND).window;
    assert!(window.is_some_and(|it| it <= BOUNDS.fixed / 10), "{window:?}");
    assert_eq!(scene.health.adjustment().map(|it| it.rung), Some(Rung::Backlog));
}

#[test]
fn who_has_no_connection_is_idle_whatever_its_probes_say() {
    let mut scene = Scene::of(TERMS, 1);
    scene.answers[0] = Some(Sign::Unanswered);
    scene.observed = Box::new(|now| quiet(now, 0));
    assert_eq!(scene.run(10 * SECOND).window, Some(BOUNDS.fixed));
    scene.answers[0] = Some(Sign::Answered);
    scene.errors = vec![0];
    scene.observed = Box::new(|now| quiet(now, 60));
    scene.run(30 * SECOND);
    assert_eq!(scene.run(SECOND).window, Some(BOUNDS.fixed), "a check that fails is no silence");
}

#[test]
fn what_an_agent_before_this_one_told_is_not_told_again_and_is_taken_back_once() {
    let mut scene = Scene::of(TERMS, 4);
    scene.health.resume_said(true, true);
    for (number, level) in [(1, Level::Dead), (2, Level::Suspect), (3, Level::Recovering)] {
        scene.health.resume_level(&place(number), level);
        scene.answers[usize::from(number)] = None;
    }
    scene.answers[3] = Some(Sign::Answered);
    let levels = |scene: &Scene| {
        let of = |what: &What| if let What::Level(it) = what { Some((it.from, it.to)) } else { None };
        scene.said.iter().filter_map(of).collect::<Vec<_>>()
    };
    scene.run(2 * SECOND);
    let (dies, comes) = ((Level::Suspect, Level::Dead), (Level::Recovering, Level::Healthy));
    assert_eq!(levels(&scene), [dies, comes], "the first stays dead, and nothing is said");
    (scene.answers[1], scene.answers[2]) = (Some(Sign::Answered), Some(Sign::Answered));
    scene.said.retain(|what| !matches!(what, What::Level(_)));
    scene.run(20 * SECOND);
    let (back, well) = ((Level::Dead, Level::Recovering), (Level::Recovering, Level::Healthy));
    assert_eq!(levels(&scene), [back, back, well, well]);
    let said = |what: What| scene.said.iter().filter(|it| **it == what).count();
    assert_eq!([What::ScaleOut(true), What::ScaleOut(false)].map(said), [0, 1]);
    assert_eq!([What::Doubt(true), What::Doubt(false)].map(said), [0, 1]);
}

#[test]
fn a_breaker_that_was_told_to_be_open_goes_on_so_or_is_told_to_have_closed() {
    let told = Some(State::Open { until: START + SECOND });
    let resume = |terms, in_force| {
        let mut scene = Scene::of(terms, 3);
        let transition = scene.health.resume_breaker(START, Some(&place(1)), in_force, told);
        (transition.map(|it| it.what), scene)
    };
    let (closes, scene) = resume(TERMS, Some(State::Closed));
    let over = crate::health::circuit::Reason::TimeIsOver;
    assert!(matches!(closes, Some(What::Breaker(it)) if it.to == State::Closed && it.reason == over), "{closes:?}");
    assert_eq!(scene.breakers(), [State::Closed; 3]);
    let (said, scene) = resume(TERMS, Some(State::HalfOpen { left: 7 }));
    assert_eq!((said, scene.breakers()[1]), (None, State::HalfOpen { left: 7 }));
    // That of a dead backend, which the kernel tries because no agent said that it is dead: it is, and all know that already.
    let mut scene = Scene::of(TERMS, 3);
    scene.health.resume_level(&place(1), Level::Dead);
    scene.answers[1] = None;
    let half = Some(State::HalfOpen { left: 7 });
    assert_eq!(scene.health.resume_breaker(START, Some(&place(1)), half, told), None);
    scene.run(10 * SECOND);
    let is_told = scene.said.iter().any(|it| matches!(it, What::Breaker(_)));
    assert!(matches!(scene.breakers()[1], State::Open { .. }) && !is_told, "{:?}", scene.said);
    // What only observes has nothing in force.
    let (said, mut scene) = resume(Terms { enforces: false, ..TERMS }, Some(State::Closed));
    assert_eq!((said, Some(scene.breakers()[1])), (None, told));
    scene.run(10 * SECOND);
    let states: Vec<_> =
        scene.said.iter().filter_map(|it| if let What::Breaker(it) = it { Some(it.to) } else { None }).collect();
    assert!(matches!(states[..], [State::HalfOpen { .. }, State::Closed]), "{states:?}");
}

#[test]
fn who_was_held_out_stays_so_over_a_restart_and_who_was_dead_starts_slowly() {
    let mut scene = Scene::of(TERMS, 4);
    for (number, level) in [(1, Level::Held), (2, Level::Dead)] {
        scene.health.resume_level(&place(number), level);
    }
    let level = |scene: &Scene, number: usize| scene.health.watch.backends()[number].level();
    scene.run(25 * SECOND);
    assert_eq!([1, 2].map(|it| level(&scene, it)), [Level::Held, Level::Healthy]);
    scene.run(10 * SECOND);
    assert_eq!(level(&scene, 1), Level::Healthy, "it was held for long enough");

    let mut scene = Scene::of(TERMS, 4);
    scene.health.resume_level(&place(2), Level::Dead);
    while level(&scene, 2) != Level::Healthy {
        scene.run(PERIOD);
    }
    assert!(scene.health.watch.share(2, scene.now) < 0.5, "nobody knows for how long it was out");
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
