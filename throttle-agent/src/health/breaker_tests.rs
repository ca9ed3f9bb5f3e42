//! The laws of a breaker: by examples at its bounds, and by random histories against what a kernel does between the steps.

use super::*;
use crate::health::MILLISECOND;
use proptest::prelude::*;

const PERIOD: Nanos = 100 * MILLISECOND;
const START: Nanos = 1_000 * SECOND;

fn outcomes(good: u32, slow: u32, failed: u32) -> Evidence {
    Evidence { outcomes: Outcomes { good, slow, failed }, ..Evidence::default() }
}

fn dead() -> Evidence {
    Evidence { life: Life::Dead, ..Evidence::default() }
}

/// One that failures have just opened.
fn opened() -> (Breaker, Nanos) {
    let mut breaker = Breaker::new(START);
    breaker.step(START, &outcomes(0, 0, 20), 0.5);
    let State::Open { until } = breaker.state() else { panic!("it is {:?}", breaker.state()) };
    (breaker, until)
}

#[test]
fn opens_at_half_failed_or_four_fifths_slow_of_twenty() {
    let verdict = |evidence| Breaker::new(START).step(START, &evidence, 0.5).map(|change| change.reason);
    assert_eq!(verdict(outcomes(10, 0, 10)), Some(Reason::Failures));
    assert_eq!(verdict(outcomes(11, 0, 10)), None);
    assert_eq!(verdict(outcomes(0, 0, 19)), None, "19 outcomes say nothing");
    assert_eq!(verdict(outcomes(4, 16, 0)), Some(Reason::Slowness));
    assert_eq!(verdict(outcomes(5, 15, 0)), None);
    assert_eq!(verdict(outcomes(4, 8, 8)), Some(Reason::Slowness), "what failed was no better than slow");
    assert_eq!(verdict(dead()), Some(Reason::Death));
}

#[test]
fn however_rarely_a_backend_is_asked_it_is_kept_away_when_its_answers_fail() {
    for seconds in [1, 2, 5, 60, 3600] {
        let interval = seconds * SECOND;
        let mut breaker = Breaker::of_backend(START, interval);
        let opens = (1..100).find(|beats| breaker.step(START + beats * interval, &outcomes(0, 0, 1), 0.5).is_some());
        assert_eq!(opens, Some(LEAST_SAMPLES), "asked every {seconds} s");
    }
}

#[test]
fn forgets_what_is_older_than_its_window() {
    let mut breaker = Breaker::new(START);
    assert_eq!(breaker.step(START, &outcomes(0, 0, 19), 0.5), None);
    assert_eq!(breaker.step(START + WINDOW as u64 * SECOND, &outcomes(0, 0, 1), 0.5), None);
    let mut breaker = Breaker::new(START);
    assert_eq!(breaker.step(START, &outcomes(0, 0, 19), 0.5), None);
    assert!(breaker.step(START + WINDOW as u64 * SECOND - 1, &outcomes(0, 0, 1), 0.5).is_some());
}

#[test]
fn closes_at_the_eighth_good_trial_and_opens_at_the_third_bad_one() {
    for (good, bad, reason) in [(7, 2, None), (8, 2, Some(Reason::TrialsGood)), (7, 3, Some(Reason::TrialsBad))] {
        let (mut breaker, until) = opened();
        assert_eq!(breaker.step(until, &Evidence::default(), 0.5).map(|it| it.reason), Some(Reason::TimeIsOver));
        let evidence = Evidence { trials: good + bad, ..outcomes(good, bad, 0) };
        assert_eq!(breaker.step(until + 1, &evidence, 0.5).map(|it| it.reason), reason, "{good} good, {bad} bad");
    }
}

#[test]
fn learns_nothing_in_a_round_from_connections_that_were_there_before() {
    let (mut breaker, until) = opened();
    breaker.step(until, &outcomes(100, 0, 0), 0.5);
    assert_eq!(breaker.step(until + 1, &outcomes(100, 0, 100), 0.5), None);
    assert_eq!(breaker.state(), State::HalfOpen { left: TRIALS });
}

#[test]
fn waits_for_rare_heartbeats_of_a_backend_that_lives_to_say_how_trials_end() {
    let said = |life| {
        let (mut breaker, until) = opened();
        breaker.step(until, &Evidence { trials: TRIALS, life, ..Evidence::default() }, 0.5);
        let beat = Evidence { trials: 1, life, ..outcomes(1, 0, 0) };
        (1..20).find_map(|beats| breaker.step(until + beats * 2 * SECOND, &beat, 0.5).map(|it| (beats, it.reason)))
    };
    assert_eq!(said(Life::Alive), Some((u64::from(GOOD_TRIALS), Reason::TrialsGood)));
    assert_eq!(said(Life::Unremarkable), Some((3, Reason::TrialsBad)), "nobody knows whether a beat will come");
}

#[test]
fn goes_on_from_what_was_in_force_and_counts_trials_that_were_admitted_before() {
    let mut breaker = Breaker::new(START).resume(START, State::HalfOpen { left: 4 });
    let evidence = Evidence { trials: TRIALS, ..outcomes(7, 0, 0) };
    assert_eq!(breaker.step(START + 1, &evidence, 0.5), None);
    assert_eq!(breaker.state(), State::HalfOpen { left: 0 });
    assert_eq!(
        breaker.step(START + TRIAL_EXPIRES, &Evidence::default(), 0.5),
        None,
        "six of seven good ones were trials"
    );
    let until = START + SECOND;
    let mut breaker = Breaker::new(START).resume(START, State::Open { until });
    assert_eq!(breaker.step(until, &Evidence::default(), 0.5).map(|it| it.reason), Some(Reason::TimeIsOver));
}

#[test]
fn opens_for_a_dead_backend_until_it_is_heard_of_and_then_tries_it_at_once() {
    let mut breaker = Breaker::new(START);
    breaker.step(START, &dead(), 0.5);
    for period in 1..6_000 {
        let now = START + period * PERIOD;
        assert_eq!(breaker.step(now, &dead(), 0.5), None);
        assert_eq!(
            breaker.state().admit(now + PERIOD, 0),
            Admission::Refuse,
            "no client tries what is known to be dead"
        );
    }
    let now = START + 6_000 * PERIOD;
    assert_eq!(breaker.state().admit(now + OPEN_TIME, 0), Admission::Trial, "with the agent dead, trials begin");
    let back = Evidence { life: Life::Back, ..Evidence::default() };
    let reason = breaker.step(now, &back, 0.5).map(|change| change.reason);
    assert_eq!(reason, Some(Reason::Recovery));
    assert_eq!(breaker.state().admit(now, 0), Admission::Trial);
}

#[test]
fn stays_open_twice_as_long_each_time_up_to_its_bound_and_forgives_while_closed() {
    let (mut breaker, mut until) = opened();
    let mut times = vec![until - START];
    for _ in 0..8 {
        breaker.step(until, &Evidence::default(), 0.5);
        let now = until;
        breaker.step(now, &Evidence { trials: 3, ..outcomes(0, 0, 3) }, 0.5);
        let State::Open { until: end } = breaker.state() else { panic!("three bad trials open") };
        times.push(end - now);
        until = end;
    }
    let seconds: Vec<_> = times.iter().map(|time| time / SECOND).collect();
    assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 300, 300, 300]);

    breaker.step(until, &Evidence::default(), 0.5);
    breaker.step(until, &Evidence { trials: 8, ..outcomes(8, 0, 0) }, 0.5);
    assert_eq!(breaker.state(), State::Closed);
    let now = until + 5 * FORGIVES;
    breaker.step(now, &outcomes(0, 0, 20), 0.5);
    assert_eq!(breaker.state(), State::Open { until: now + 10 * SECOND }, "five of six doublings are forgiven");
}

/// One that its backend, which failed for ten minutes, has opened again and again; when it did last, and until when it is.
fn failing_for_long(breaker: Breaker) -> (Breaker, Nanos, Nanos) {
    let (mut breaker, mut now, mut opened) = (breaker, START, START);
    while now < START + 600 * SECOND {
        now += PERIOD;
        let change = breaker.step(now, &Evidence { trials: 3, ..outcomes(0, 0, 20) }, 0.5);
        if matches!(change, Some(Change { to: State::Open { .. }, .. })) {
            opened = now;
        }
    }
    let State::Open { until } = breaker.state() else { panic!("it is {:?}", breaker.state()) };
    (breaker, opened, until)
}

#[test]
fn who_answers_well_after_a_long_outage_is_tried_at_once_and_never_sooner_than_after_the_first_wait() {
    let (mut breaker, opened, until) = failing_for_long(Breaker::new(START));
    assert!(until - opened > 100 * SECOND, "it waits long for who says nothing");
    let well = Evidence { well: true, ..Evidence::default() };
    let now = START + 601 * SECOND;
    let change = breaker.clone().step(now, &well, 0.5).unwrap();
    assert_eq!((change.to, change.reason), (State::HalfOpen { left: TRIALS }, Reason::Recovery));
    assert_eq!(breaker.step(now, &Evidence { life: Life::Alive, ..Evidence::default() }, 0.5), None);

    // Its trials fail all the same: it is not tried more often than every five seconds.
    breaker.step(now, &well, 0.5);
    breaker.step(now, &Evidence { trials: 3, ..outcomes(0, 0, 3) }, 0.5);
    assert_eq!(breaker.step(now + OPEN_TIME - 1, &well, 0.5), None);
    assert_eq!(breaker.step(now + OPEN_TIME, &well, 0.5).map(|it| it.reason), Some(Reason::Recovery));
}

#[test]
fn a_service_that_its_clients_alone_can_try_is_tried_every_few_seconds_however_long_it_failed() {
    let (_, opened, until) = failing_for_long(Breaker::of_service(START));
    assert!(until - opened <= OPEN_TIME / 100 * (100 + JITTER_PERCENT), "{} s", (until - opened) / SECOND);
    let (breaker, ..) = failing_for_long(Breaker::of_service(START).resume(START, State::HalfOpen { left: 1 }));
    assert_eq!(breaker.longest, OPEN_TIME, "also after a restart");
}

#[test]
fn who_answers_well_by_now_is_kept_from_nobody_for_what_was() {
    let mut breaker = Breaker::new(START);
    let failed = Evidence { outcomes: Outcomes { failed: 30, ..Outcomes::default() }, ..Evidence::default() };
    assert_eq!(breaker.step(START, &Evidence { spared: true, ..failed }, 0.5), None);
    let good = Evidence { outcomes: Outcomes { good: 1, ..Outcomes::default() }, ..Evidence::default() };
    assert_eq!(breaker.step(START + PERIOD, &Evidence { well: true, ..good }, 0.5), None);
    let opens = breaker.step(START + 2 * PERIOD, &good, 0.5).expect("who may fail again is kept away");
    assert_eq!(opens.reason, Reason::Failures);
}

#[test]
fn who_is_spared_is_kept_from_nobody_and_opens_again_by_what_it_shows_then() {
    let spared = |evidence: Evidence| Evidence { spared: true, ..evidence };
    for life in [Life::Dead, Life::Unremarkable] {
        let mut breaker = Breaker::new(START);
        let fails = Evidence { life, ..outcomes(0, 0, 20) };
        assert_eq!(breaker.step(START, &spared(fails), 0.5), None);
        assert!(breaker.is_failing(START));
        breaker.step(START + PERIOD, &Evidence { life, ..Evidence::default() }, 0.5);
        assert!(breaker.is_away(), "it is kept away when there is room");
        let change = breaker.step(START + 2 * PERIOD, &spared(Evidence { life, ..Evidence::default() }), 0.5).unwrap();
        assert_eq!((change.to, change.reason), (State::Closed, Reason::Spared));
    }
}

#[test]
fn is_what_an_operator_says_until_released() {
    let mut breaker = Breaker::new(START);
    let forced = |forced, evidence: Evidence| Evidence { forced: Some(forced), ..evidence };
    let change = breaker.step(START, &forced(Forced::Closed, dead()), 0.5).unwrap();
    assert_eq!((change.to, change.reason), (State::Forced(Forced::Closed), Reason::Forced));
    assert_eq!(breaker.step(START, &forced(Forced::Closed, outcomes(0, 0, 100)), 0.5), None);
    assert_eq!(breaker.state().admit(START, u32::MAX), Admission::Pass);
    breaker.step(START, &forced(Forced::Open, outcomes(100, 0, 0)), 0.5);
    assert_eq!(breaker.state().admit(Nanos::MAX, 0), Admission::Refuse);
    assert_eq!(breaker.step(START, &outcomes(0, 0, 0), 0.5).map(|change| change.reason), Some(Reason::Released));
    assert_eq!(breaker.state(), State::Closed);
}

/// What a period brings: a pause, connections that come, how many of ten end and how many of ten of these are good.
fn periods() -> impl Strategy<Value = Vec<(Nanos, u32, u32, u32, Life)>> {
    let pause = prop_oneof![8 => Just(PERIOD), 1 => SECOND..10 * SECOND, 1 => 100 * SECOND..400 * SECOND];
    let life = prop_oneof![9 => Just(Life::Unremarkable), 9 => Just(Life::Alive), 1 => Just(Life::Dead), 1 => Just(Life::Back)];
    prop::collection::vec((pause, 0u32..40, 0u32..=10, 0u32..=10, life), 1..200)
}

proptest! {
    #[test]
    fn never_admits_more_than_ten_trials_a_round_and_every_round_ends(periods in periods(), dice in 0.0f64..1.0) {
        let (mut breaker, mut now) = (Breaker::new(START), START);
        let (mut running, mut round) = (0u32, 0u32);
        for (pause, arrivals, ending, good, life) in periods {
            let (mut taken, mut passed) = (0, 0);
            for arrival in 0..arrivals {
                match breaker.state().admit(now + pause * Nanos::from(arrival) / 40, taken) {
                    Admission::Trial => taken += 1,
                    Admission::Pass => passed += 1,
                    Admission::Refuse => {}
                }
            }
            now += pause;
            round += taken;
            running += taken;
            prop_assert!(round <= TRIALS, "{round} trials in one round");
            let ended = if passed > 0 { passed } else { running * ending / 10 };
            running = running.saturating_sub(ended);
            let evidence = Evidence { trials: taken, life, ..outcomes(ended * good / 10, 0, ended - ended * good / 10) };
            let change = breaker.step(now, &evidence, dice);
            // A change to half-open tells of a round that the kernel may have begun already.
            if let Some(change) = change
                && !matches!(change.to, State::HalfOpen { .. })
            {
                (running, round) = (0, 0);
            }
            if let State::Open { until } = breaker.state() {
                if until > now {
                    // Trials that the kernel began while the agent was away are over when it renews a death.
                    (running, round) = (0, 0);
                }
                prop_assert!(until <= now + LONGEST_OPEN_TIME / 100 * (100 + JITTER_PERCENT), "it opens again in the end");
            }
        }
        // Nobody ever tells how the trials end: the round ends all the same, when the last has expired.
        if let State::HalfOpen { left } = breaker.state() {
            breaker.step(now, &Evidence { trials: left, ..Evidence::default() }, dice);
            breaker.step(now + TRIAL_EXPIRES, &Evidence::default(), dice);
            prop_assert!(!matches!(breaker.state(), State::HalfOpen { .. }), "the round goes on");
        }
    }

    #[test]
    fn the_open_time_lies_within_its_jitter_and_grows(doublings in 0u32..100, dice in 0.0f64..1.0) {
        let middle = OPEN_TIME.saturating_mul(1 << doublings.min(10)).min(LONGEST_OPEN_TIME);
        let time = open_time(doublings, dice, LONGEST_OPEN_TIME);
        prop_assert!(time >= middle / 5 * 4 && time <= middle / 5 * 6, "{time} is not around {middle}");
        prop_assert!(open_time(doublings + 1, dice, LONGEST_OPEN_TIME) >= time);
    }

    #[test]
    fn changes_only_for_a_reason_that_fits(periods in periods(), well in any::<bool>(), spares in 1usize..50) {
        let (mut breaker, mut now) = (Breaker::new(START), START);
        for (number, (pause, trials, ended, good, life)) in periods.into_iter().enumerate() {
            now += pause;
            let before = breaker.state();
            let spared = number % spares == 0;
            let evidence = Evidence { trials, life, well, spared, ..outcomes(ended.min(good), ended.saturating_sub(good), 0) };
            let Some(Change { from, to, reason }) = breaker.step(now, &evidence, 0.5) else {
                prop_assert_eq!(std::mem::discriminant(&before), std::mem::discriminant(&breaker.state()));
                continue;
            };
            prop_assert_eq!((from, to), (before, breaker.state()));
            let fits = match (from, to) {
                (State::Open { .. } | State::HalfOpen { .. }, State::Closed) if spared => reason == Reason::Spared,
                (State::Closed, State::Open { .. }) => {
                    !spared && [Reason::Failures, Reason::Slowness, Reason::Death].contains(&reason)
                }
                (State::Open { until }, State::HalfOpen { .. }) => match reason {
                    Reason::TimeIsOver => now >= until,
                    reason => reason == Reason::Recovery && (life == Life::Back || well),
                },
                (State::HalfOpen { .. }, State::Open { .. }) => [Reason::TrialsBad, Reason::Death].contains(&reason),
                (State::HalfOpen { .. }, State::Closed) => reason == Reason::TrialsGood,
                _ => false,
            };
            prop_assert!(fits, "{:?} to {:?} for {:?}", from, to, reason);
        }
    }
}
