//! Who is kept away, and for how long.

use super::*;

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
fn goes_on_from_a_round_in_which_the_kernel_alone_let_in_more_than_an_agent_would() {
    let mut scene = Scene::of(TERMS, 3);
    let left = 2 * crate::health::breaker::TRIALS;
    scene.health.resume_breaker(START, Some(&place(1)), Some(State::HalfOpen { left }), None);
    scene.run(5 * SECOND);
    assert_eq!(scene.breakers(), [State::Closed; 3]);
}

/// What one that is well says by a sign.
fn well(sign: Sign) -> Said {
    Said { sign, latency: None, good: Some(true), overloaded: false }
}

#[test]
fn who_beats_rarely_is_let_in_though_clients_use_up_every_trial() {
    let (mut now, every) = (START, 2 * SECOND);
    let mut health = ServiceHealth::new(now, TERMS);
    health.set_backends(now, &[(place(0), every), (place(1), BEATS)], 2);
    health.resume_breaker(now, Some(&place(0)), Some(State::Open { until: now + SECOND }), None);
    let mut taken = 0;
    let mut changes = Vec::new();
    while changes.len() < 2 && now < START + 60 * SECOND {
        now += PERIOD;
        if (now - START).is_multiple_of(every) {
            let beat = Sign::Beat { of: Incarnation { boot: 1, generation: 1 }, sequence: now };
            health.see(now, &place(0), well(beat));
        }
        health.see(now, &place(1), well(Sign::Answered));
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
fn where_breakers_are_switched_off_the_open_ones_close_and_nobody_is_tried() {
    for seconds in [4, 12] {
        let mut scene = Scene::of(TERMS, 3);
        scene.errors = vec![1];
        scene.run(10 * SECOND);
        assert_eq!(scene.away(), [1]);
        // Open, or half-open by now.
        scene.run(seconds * SECOND);
        scene.health.follow(Terms { breaks: false, ..TERMS });
        scene.said.clear();
        scene.run(PERIOD);
        assert_eq!(scene.breakers(), [State::Closed; 3]);
        let closed = |it: &What| matches!(it, What::Breaker(it) if it.to == State::Closed);
        assert_eq!(scene.said.iter().filter(|it| closed(it)).count(), 1, "{:?}", scene.said);
        scene.run(30 * SECOND);
        assert_eq!(scene.said.iter().filter(|it| matches!(it, What::Breaker(_))).count(), 1, "{:?}", scene.said);
        assert!(!scene.health.probes(scene.now).iter().any(|(_, wanted)| *wanted == Wanted::Trial));
    }
}

#[test]
fn what_was_told_to_be_open_closes_where_there_are_no_breakers() {
    let mut scene = Scene::of(Terms { breaks: false, ..TERMS }, 3);
    scene.health.resume_breaker(START, Some(&place(1)), None, Some(State::Open { until: START + SECOND }));
    scene.run(PERIOD);
    assert_eq!(scene.breakers(), [State::Closed; 3]);
    assert!(scene.said.iter().any(|it| matches!(it, What::Breaker(it) if it.to == State::Closed)), "it is taken back");
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
fn it_is_known_when_one_that_fails_is_tried_and_of_a_dead_one_that_nobody_tries_it() {
    let mut scene = Scene::of(TERMS, 4);
    (scene.errors, scene.answers[2]) = (vec![1], None);
    scene.run(10 * SECOND);
    assert_eq!(scene.away(), [1, 2]);
    let State::Open { until } = scene.breakers()[1] else { panic!("it is open") };
    assert_eq!([0, 1, 2].map(|it| scene.health.tries_at(&place(it))), [None, Some(until), None]);
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
