//! The laws of looking at all backends of a service.

#![expect(clippy::float_cmp, reason = "bounds are reached exactly, and what is kept is kept bit by bit")]

use super::*;
use crate::health::{
    SECOND,
    detector::{
        CONFIRM_EVERY, CONFIRMATIONS, FAILED_PROBES, HANGS_AFTER, INTERVAL, Incarnation, MUTE_PROBES, Reason,
        SIGN_OF_LIFE,
    },
};
use proptest::prelude::*;

const START: Nanos = 1_000 * SECOND;
const PERIOD: Nanos = 100 * MILLISECOND;
const OF: Incarnation = Incarnation { boot: 1, generation: 1 };

/// Runs for so long, every backend beating but those that are `silent`, whose probes fail.
fn run(watch: &mut Watch, now: &mut Nanos, time: Nanos, silent: &[usize]) -> Vec<Changed> {
    let mut changes = Vec::new();
    for _ in 0..time / PERIOD {
        *now += PERIOD;
        for backend in 0..watch.backends().len() {
            let probed = watch.probe_is_due(*now, backend);
            let sign = if silent.contains(&backend) {
                probed.then_some(Sign::Unanswered)
            } else {
                Some(Sign::Beat { of: OF, sequence: *now })
            };
            changes.extend(sign.and_then(|sign| watch.sign(*now, backend, sign)));
        }
        changes.extend(watch.tick(*now, false));
    }
    changes
}

fn deaths(changes: &[Changed]) -> usize {
    changes.iter().filter(|it| it.change.to == Level::Dead).count()
}

#[test]
fn its_own_pause_is_nobodys_silence() {
    let (mut watch, mut now) = (Watch::new(START, 10, INTERVAL, PERIOD), START);
    run(&mut watch, &mut now, SECOND, &[]);
    now += 3 * SECOND;
    assert_eq!(watch.tick(now, false), [], "it looks before it reads what came meanwhile");
    assert!((0..10).all(|backend| watch.share(backend, now) == 1.0));
    assert_eq!(run(&mut watch, &mut now, SECOND, &[]), []);
}

#[test]
fn its_own_pause_is_nobodys_silence_however_seldom_others_beat() {
    let (mut watch, mut now) = (Watch::new(START, 1, INTERVAL, PERIOD), START);
    watch.add(START, 50 * INTERVAL);
    run(&mut watch, &mut now, SECOND, &[]);
    now += 3 * SECOND;
    assert_eq!(watch.tick(now, false), []);
    assert_eq!(run(&mut watch, &mut now, 2 * SECOND, &[]), []);
    assert_eq!(watch.patience(), 1, "the doubt passes");
}

#[test]
fn doubts_itself_for_as_long_as_those_beat_that_fell_silent() {
    let (mut watch, mut now) = (Watch::new(START, 5, INTERVAL, PERIOD), START);
    watch.add(START, 300 * INTERVAL);
    run(&mut watch, &mut now, SECOND, &[]);
    let soon = run(&mut watch, &mut now, SECOND, &[0, 1, 2]);
    assert!(deaths(&soon) == 0 && watch.is_frozen(now));
    assert_eq!(deaths(&run(&mut watch, &mut now, 3 * SECOND, &[0, 1, 2])), 3);
    run(&mut watch, &mut now, 10 * SECOND, &[]);
    assert_eq!(watch.patience(), 1, "the doubt passes");
}

#[test]
fn who_falls_silent_one_after_the_other_raises_no_doubt_however_seldom_others_beat() {
    let (mut watch, mut now) = (Watch::new(START, 3, INTERVAL, PERIOD), START);
    watch.add(START, 300 * INTERVAL);
    for silent in 0..2 {
        run(&mut watch, &mut now, SECOND, &[]);
        assert_eq!(deaths(&run(&mut watch, &mut now, 2 * SECOND, &[silent])), 1);
    }
    assert_eq!(watch.patience(), 1);
}

#[test]
fn doubts_itself_where_a_third_fall_silent_at_once_and_then_finds_them_dead_all_the_same() {
    let (mut watch, mut now) = (Watch::new(START, 9, INTERVAL, PERIOD), START);
    run(&mut watch, &mut now, SECOND, &[]);
    let silent = [0, 1, 2, 3];
    let soon = run(&mut watch, &mut now, 3 * SECOND / 2, &silent);
    assert_eq!(deaths(&soon), 0);
    assert!(watch.patience() > 1);
    assert!(silent.iter().all(|backend| watch.share(*backend, now) == 1.0));
    assert_eq!(deaths(&run(&mut watch, &mut now, 2 * SECOND, &silent)), 4);
    run(&mut watch, &mut now, 10 * SECOND, &silent);
    assert_eq!(watch.patience(), 1, "the doubt passes");
}

#[test]
fn doubts_itself_where_the_probes_of_a_third_fail_at_once_before_anybody_is_silent() {
    let (mut watch, mut now) = (Watch::new(START, 9, 2 * SECOND, PERIOD), START);
    run(&mut watch, &mut now, 10 * SECOND, &[]);
    let mut changes = Vec::new();
    for _ in 0..FAILED_PROBES {
        now += PERIOD;
        changes.extend((0..4).filter_map(|backend| watch.sign(now, backend, Sign::Unanswered)));
        changes.extend(watch.tick(now, false));
    }
    let reasons: Vec<_> = changes.iter().map(|it| it.change.reason).collect();
    assert_eq!(reasons, [Reason::ProbesFailed; 4]);
    assert!(watch.is_frozen(now) && (0..9).all(|backend| watch.share(backend, now) == 1.0));
}

#[test]
fn one_of_three_that_dies_is_ejected_without_a_doubt() {
    let (mut watch, mut now) = (Watch::new(START, 3, INTERVAL, PERIOD), START);
    let changes = run(&mut watch, &mut now, 2 * SECOND, &[1]);
    assert_eq!((deaths(&changes), watch.patience()), (1, 1));
    assert!(watch.is_ejected(1) && watch.share(1, now) == 0.0);
}

#[test]
fn the_only_backend_is_never_ejected() {
    let (mut watch, mut now) = (Watch::new(START, 1, INTERVAL, PERIOD), START);
    assert_eq!(deaths(&run(&mut watch, &mut now, 2 * SECOND, &[0])), 1);
    assert!(watch.share(0, now) > 0.0);
}

#[test]
fn who_is_back_and_held_out_makes_way_for_one_that_is_dead() {
    let (mut watch, mut now) = (Watch::new(START, 2, INTERVAL, PERIOD), START);
    while watch.backends()[0].level() != Level::Held {
        run(&mut watch, &mut now, 2 * SECOND, &[0]);
        run(&mut watch, &mut now, SECOND, &[]);
        assert!(now < START + 60 * SECOND, "it may come and go as it likes");
    }
    assert!(watch.is_ejected(0));
    run(&mut watch, &mut now, 2 * SECOND, &[1]);
    assert_eq!((watch.backends()[0].level(), watch.backends()[1].level()), (Level::Held, Level::Dead));
    assert!(watch.is_ejected(1) && !watch.is_ejected(0), "one serves, the other does not");
    assert_eq!(watch.share(0, now), 1.0, "and it answers well");
}

#[test]
fn what_is_held_of_a_backend_stays_when_others_come_and_go() {
    let (mut watch, mut now) = (Watch::new(START, 3, INTERVAL, PERIOD), START);
    run(&mut watch, &mut now, 2 * SECOND, &[1]);
    watch.add(now, 4 * INTERVAL);
    watch.remove(0);
    let levels: Vec<_> = watch.backends().iter().map(Detector::level).collect();
    assert_eq!(levels, [Level::Dead, Level::Healthy, Level::Healthy]);
    assert!(watch.is_ejected(0) && !watch.is_ejected(2));
    watch.remove(1);
    watch.remove(1);
    assert!(!watch.is_ejected(0), "it is the only one now");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn at_most_half_are_ejected_and_only_the_dead(
        backends in 1usize..12, scenes in prop::collection::vec((prop::collection::vec(0usize..12, 0..12), 1u64..40), 1..8),
    ) {
        let (mut watch, mut now) = (Watch::new(START, backends, INTERVAL, PERIOD), START);
        for (silent, periods) in scenes {
            run(&mut watch, &mut now, periods * PERIOD, &silent);
            let ejected: Vec<_> = (0..backends).filter(|backend| watch.is_ejected(*backend)).collect();
            prop_assert!(ejected.len() <= backends / 2);
            for backend in 0..backends {
                let out = matches!(watch.backends()[backend].level(), Level::Dead | Level::Held);
                prop_assert!(out || !watch.is_ejected(backend));
                prop_assert_eq!(watch.share(backend, now) == 0.0, watch.is_ejected(backend));
            }
        }
    }
}

/// How the first of three backends, which beat every interval, ends: the others live on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its host is gone.
    CutOff,
    /// Its host answers, and it does not.
    Hangs,
    /// Nothing listens any more.
    Refuses,
}

/// How long after its last beat it is suspect and dead, where it ends after so many of them.
fn found(interval: Nanos, beats: u64, phase: Nanos, end: End) -> (Option<Nanos>, Option<Nanos>) {
    let mut watch = Watch::new(START, 3, interval, LOOKS);
    let (mut now, mut due, mut answers) = (START, [START + phase; 3], Vec::new());
    let (mut last, mut suspect, mut dead) = (START, None, None);
    while now < START + phase + beats * interval + 20 * (interval + SECOND) {
        now += LOOKS;
        let mut changes = Vec::new();
        for (backend, due) in due.iter_mut().enumerate() {
            let ended = backend == 0 && now >= START + phase + beats * interval;
            if now >= *due {
                *due += interval;
                last = if backend == 0 && !ended { now } else { last };
                let sign = match end {
                    _ if !ended => Some(Sign::Beat { of: OF, sequence: now }),
                    End::Refuses => Some(Sign::Refused),
                    End::CutOff | End::Hangs => None,
                };
                changes.extend(sign.and_then(|sign| watch.sign(now, backend, sign)));
            }
            if ended && end == End::Hangs {
                watch.sign(now, backend, Sign::Packet);
            }
            if watch.probe_is_due(now, backend) && ended {
                answers.push(now + CONFIRM_EVERY);
            }
        }
        let failed = answers.extract_if(.., |at| *at <= now).count();
        for _ in 0..failed {
            changes.extend(watch.sign(now, 0, if end == End::Hangs { Sign::Mute } else { Sign::Unanswered }));
        }
        changes.extend(watch.tick(now, false));
        for Changed { backend, change } in changes {
            assert_eq!(backend, 0, "the others live: {change:?}");
            match change.to {
                Level::Suspect => suspect = Some(now - last),
                Level::Dead => dead = Some(now - last),
                _ => {}
            }
        }
    }
    (suspect, dead)
}

proptest! {
    #[test]
    fn how_soon_an_end_is_found_is_a_matter_of_intervals_and_of_the_time_that_it_takes_to_confirm(
        interval in 4u64..200, beats in 1u64..50, phase in 0u64..20,
    ) {
        let interval = interval * LOOKS;
        let found = |end| found(interval, beats, phase * LOOKS % interval, end);
        // Three beats are missing, and it is looked at every LOOKS.
        let silent = interval * 31 / 10 + LOOKS;
        let confirmed = silent + u64::from(CONFIRMATIONS) * CONFIRM_EVERY + 2 * LOOKS;
        let (suspect, dead) = found(End::CutOff);
        let (suspect, dead) = (suspect.unwrap_or(Nanos::MAX), dead.unwrap_or(Nanos::MAX));
        prop_assert!(suspect <= silent && suspect >= 3 * interval, "suspect after {suspect} of {interval}");
        prop_assert!(dead <= confirmed && dead >= SIGN_OF_LIFE, "dead after {dead} of {interval}");
        let (suspect, dead) = found(End::Hangs);
        let (suspect, dead) = (suspect.unwrap_or(Nanos::MAX), dead.unwrap_or(Nanos::MAX));
        prop_assert!(suspect <= silent, "suspect after {suspect} of {interval}");
        let found_mute = silent + u64::from(MUTE_PROBES) * CONFIRM_EVERY + 2 * LOOKS;
        prop_assert!(dead <= found_mute.max(HANGS_AFTER + LOOKS) && dead >= HANGS_AFTER, "hangs for {dead} of {interval}");
        let (suspect, dead) = found(End::Refuses);
        prop_assert_eq!(suspect, None);
        prop_assert!(dead.unwrap_or(Nanos::MAX) <= interval + LOOKS, "refuses for {dead:?} of {interval}");
    }
}
