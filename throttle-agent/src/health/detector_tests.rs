//! The laws of a verdict: by scripts, and by random histories.

#![expect(clippy::float_cmp, reason = "bounds are reached exactly, and what is kept is kept bit by bit")]

use super::*;
use proptest::prelude::*;

const START: Nanos = 1_000 * SECOND;
const WELL: Leniency = Leniency { patience: 1, frozen: false };
const FIRST: Incarnation = Incarnation { boot: 1, generation: 1 };

/// A backend with what happens to it, tick by tick.
struct Script {
    detector: Detector,
    now: Nanos,
    sequence: u64,
}

impl Script {
    fn new() -> Self {
        let mut script = Self { detector: Detector::new(START, INTERVAL), now: START, sequence: 0 };
        script.beat(FIRST);
        script
    }

    fn beat(&mut self, of: Incarnation) -> Option<Change> {
        self.sequence += 1;
        self.detector.sign(self.now, Sign::Beat { of, sequence: self.sequence })
    }

    /// Nothing is heard for so long; `packets` says whether the kernel sees any. Gives what changes.
    fn silence(&mut self, time: Nanos, packets: bool) -> Vec<(Level, Reason)> {
        let mut changes = Vec::new();
        let end = self.now + time;
        while self.now < end {
            self.now += CONFIRM_EVERY;
            if packets {
                self.detector.sign(self.now, Sign::Packet);
            }
            if self.detector.level() == Level::Suspect {
                self.detector.sign(self.now, if packets { Sign::Mute } else { Sign::Unanswered });
            }
            changes.extend(self.detector.tick(self.now, WELL).map(|change| (change.to, change.reason)));
        }
        changes
    }

    /// It beats in time for so long.
    fn life(&mut self, time: Nanos, of: Incarnation) -> Vec<(Level, Reason)> {
        let mut changes = Vec::new();
        for _ in 0..time / INTERVAL {
            self.now += INTERVAL;
            let (beat, tick) = (self.beat(of), self.detector.tick(self.now, WELL));
            changes.extend([beat, tick].into_iter().flatten().map(|change| (change.to, change.reason)));
        }
        changes
    }
}

#[test]
fn is_suspect_after_three_intervals_and_dead_after_five_probes_more() {
    let mut script = Script::new();
    assert_eq!(script.silence(3 * INTERVAL, false), []);
    assert_eq!(script.silence(CONFIRM_EVERY, false), [(Level::Suspect, Reason::Silence)]);
    assert_eq!(script.detector.share(script.now), suspicion::LEAST_SHARE);
    assert_eq!(script.silence(4 * CONFIRM_EVERY, false), []);
    assert_eq!(script.silence(CONFIRM_EVERY, false), [(Level::Dead, Reason::Unconfirmed)]);
    assert_eq!(script.detector.share(script.now), 0.0);
}

#[test]
fn what_the_kernel_sees_keeps_it_from_death_until_it_hangs() {
    let mut script = Script::new();
    assert_eq!(
        script.silence(HANGS_AFTER - 1, true),
        [(Level::Suspect, Reason::Silence), (Level::Dead, Reason::Hangs)]
    );
    assert!(script.detector.since() >= START + HANGS_AFTER);
}

#[test]
fn who_may_not_have_been_reached_hangs_only_after_twice_the_time() {
    let mut script = Script::new();
    let mut changes = Vec::new();
    while script.now < START + 3 * HANGS_AFTER {
        script.now += CONFIRM_EVERY;
        for sign in [Sign::Packet, Sign::Unanswered] {
            script.detector.sign(script.now, sign);
        }
        changes.extend(script.detector.tick(script.now, WELL));
    }
    assert_eq!(changes.last().map(|it| it.reason), Some(Reason::Hangs));
    assert_eq!(script.detector.since(), START + 2 * HANGS_AFTER);
}

#[test]
fn who_lives_behind_a_link_that_loses_three_packets_of_ten_dies_once_in_ten_hours_at_most() {
    let (mut detector, mut now, mut state) = (Detector::new(START, INTERVAL), START, 0x9e37_79b9_7f4a_7c15_u64);
    let mut there_and_back = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % 100 < 49
    };
    let (mut suspicions, mut deaths) = (0, 0);
    while now < START + 100 * 3_600 * SECOND {
        now += CONFIRM_EVERY;
        // Of one that is suspect the probe at its pace waits for what is sent again.
        let at_its_pace = (now - START).is_multiple_of(INTERVAL) && detector.level() != Level::Suspect;
        let confirms = detector.probe_is_due(now);
        for _ in 0..usize::from(at_its_pace) + usize::from(confirms) {
            let (connects, answers) = (there_and_back(), there_and_back());
            if connects {
                detector.sign(now, Sign::Packet);
            }
            detector.sign(
                now,
                if !connects {
                    Sign::Unanswered
                } else if answers {
                    Sign::Answered
                } else {
                    Sign::Mute
                },
            );
        }
        if confirms && [(); KNOCKS].map(|()| there_and_back()).contains(&true) {
            detector.sign(now, Sign::Packet);
        }
        if let Some(change) = detector.tick(now, WELL) {
            suspicions += usize::from(change.to == Level::Suspect);
            deaths += usize::from(change.to == Level::Dead);
        }
    }
    assert!(suspicions > 100_000 && deaths <= 10, "{suspicions} suspicions, {deaths} deaths");
}

#[test]
fn a_refused_connection_is_death_at_once_and_beats_do_not_speak_for_who_refuses() {
    let mut script = Script::new();
    let change = script.detector.sign(script.now, Sign::Refused).unwrap();
    assert_eq!((change.to, change.reason), (Level::Dead, Reason::Refused));
    for _ in 0..10 {
        assert_eq!(script.life(INTERVAL, FIRST), [], "whoever sends beats, the service refuses");
        script.detector.sign(script.now, Sign::Refused);
    }
    let change = script.detector.sign(script.now, Sign::Answered).unwrap();
    assert_eq!((change.to, change.reason), (Level::Recovering, Reason::Heard));
}

#[test]
fn who_refused_before_its_first_beat_is_well_when_it_beats_and_refuses_no_more() {
    let mut script = Script { detector: Detector::new(START, INTERVAL), now: START, sequence: 0 };
    script.detector.sign(script.now, Sign::Refused);
    script.now += SECOND;
    let changes = script.life(SECOND, FIRST);
    assert_eq!(changes, [(Level::Recovering, Reason::Heard), (Level::Healthy, Reason::GoodInARow)]);
}

#[test]
fn beats_that_were_had_before_are_no_signs_of_life() {
    let mut script = Script::new();
    let second = Incarnation { generation: 2, ..FIRST };
    let late = Sign::Beat { of: FIRST, sequence: 1_000 };
    script.beat(second);
    script.life(10 * INTERVAL, second);
    let again = Sign::Beat { of: second, sequence: script.sequence };
    let before = script.detector.clone();
    for sign in [late, again] {
        assert_eq!(script.detector.sign(script.now + INTERVAL, sign), None);
        assert_eq!(script.detector, before, "{sign:?}");
    }
}

#[test]
fn a_new_incarnation_starts_slowly_and_a_short_outage_does_not() {
    let mut script = Script::new();
    let second = Incarnation { boot: 2, generation: 1 };
    script.now += INTERVAL;
    assert_eq!(script.beat(second).map(|it| (it.to, it.reason)), Some((Level::Recovering, Reason::Restarted)));
    assert_eq!(script.detector.share(script.now), FIRST_SHARE);
    assert_eq!(script.life(3 * INTERVAL, second), [(Level::Healthy, Reason::GoodInARow)]);
    assert!((script.detector.share(script.now) - FIRST_SHARE).abs() < 1e-9);
    script.life(SLOW_START / 2, second);
    assert!((script.detector.share(script.now) - 0.55).abs() < 0.01);
    script.life(SLOW_START / 2, second);
    assert_eq!(script.detector.share(script.now), 1.0);

    script.detector.sign(script.now, Sign::Refused);
    script.detector.sign(script.now, Sign::Answered);
    assert_eq!(script.life(3 * INTERVAL, second), [(Level::Healthy, Reason::GoodInARow)]);
    assert_eq!(script.detector.share(script.now), 1.0, "it was away for less than a second");
}

#[test]
fn who_dies_three_times_in_a_minute_is_held() {
    let mut script = Script::new();
    for death in 1..=3 {
        script.silence(6 * INTERVAL, false);
        assert_eq!(script.detector.level(), Level::Dead, "death {death}");
        let changes = script.life(5 * INTERVAL, FIRST);
        let held = changes.contains(&(Level::Held, Reason::Flaps));
        assert_eq!(held, death == 3, "death {death}: {changes:?}");
    }
    let held_since = script.now;
    let changes = script.life(100 * SECOND, FIRST);
    assert_eq!(changes, [(Level::Recovering, Reason::HeldEnough), (Level::Healthy, Reason::GoodInARow)]);
    assert!(script.detector.since() > held_since + 80 * SECOND, "three times 30 s");
}

fn signs() -> impl Strategy<Value = (Nanos, Option<Sign>, bool)> {
    let beat = (1u128..3, 1u64..4, 0u64..50);
    let beat =
        beat.prop_map(|(boot, generation, sequence)| Sign::Beat { of: Incarnation { boot, generation }, sequence });
    let others = prop_oneof![Just(Sign::Answered), Just(Sign::Packet), Just(Sign::Refused), Just(Sign::Unsent)];
    let sign = prop_oneof![2 => Just(Some(Sign::Unanswered)), 2 => Just(Some(Sign::Mute)), 1 => others.prop_map(Some), 1 => beat.prop_map(Some), 1 => Just(None)];
    (1..300 * MILLISECOND, sign, prop::bool::weighted(0.2))
}

proptest! {
    #[test]
    fn nobody_dies_without_silence_and_failed_probes_or_a_refusal(signs in prop::collection::vec(signs(), 1..400)) {
        let (mut detector, mut now) = (Detector::new(START, INTERVAL), START);
        let (mut heard, mut seen, mut failed, mut mute) = (START, START, 0, 0);
        for (pause, sign, frozen) in signs {
            now += pause;
            let before = detector.level();
            let change = sign.and_then(|sign| detector.sign(now, sign));
            match sign {
                Some(Sign::Unanswered) => failed += 1,
                Some(Sign::Mute) => (failed, mute) = (failed + 1, mute + 1),
                Some(Sign::Answered) => (heard, seen, failed, mute) = (now, now, 0, 0),
                Some(Sign::Packet | Sign::Refused) => seen = now,
                Some(Sign::Beat { .. } | Sign::Unsent) | None => {}
            }
            for change in [change, detector.tick(now, Leniency { patience: 1, frozen })].into_iter().flatten() {
                if change.to == Level::Dead && before != Level::Held {
                    match change.reason {
                        Reason::Refused => prop_assert_eq!(sign, Some(Sign::Refused)),
                        Reason::Unconfirmed => prop_assert!(failed >= CONFIRMATIONS && now - seen >= SIGN_OF_LIFE && !frozen),
                        Reason::Hangs => {
                            let span = if mute < MUTE_PROBES { 2 * HANGS_AFTER } else { HANGS_AFTER };
                            prop_assert!(failed >= CONFIRMATIONS && now - heard >= span && !frozen);
                        }
                        other => prop_assert!(false, "dead for {:?}", other),
                    }
                }
            }
            prop_assert!((0.0..=1.0).contains(&detector.share(now)));
        }
    }
}
