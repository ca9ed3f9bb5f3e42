//! What is held of backends that come and go, and what their beats do.

use super::*;

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
fn one_that_says_that_it_is_overloaded_is_asked_for_less_and_kept_away_from_nobody() {
    let mut scene = Scene::of(Terms { control: Control::Aimd, ..TERMS }, 2);
    scene.observed = Box::new(|now| busy(now, 8 * MILLISECOND));
    let before = scene.run(2 * SECOND).window.expect("there are beats");
    scene.overloaded = vec![0, 1];
    let after = scene.run(20 * SECOND).window.expect("there are beats");
    assert!(after < before / 2, "{after} of {before}");
    assert_eq!(scene.breakers(), [State::Closed; 2]);
    scene.overloaded = vec![0];
    let back = scene.run(90 * SECOND).window;
    assert_eq!(back, Some(BOUNDS.most), "one of two is no more than half");
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
