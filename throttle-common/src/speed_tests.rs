//! The law of a health clock: against a model that keeps all its stretches and multiplies in 128 bits.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 24 * 3600 * SECOND;

/// Every speed that a clock ever had, since when.
struct Model(Vec<(u64, Speed)>);

impl Model {
    /// What it reads, modulo nothing.
    fn at(&self, now: u64) -> u128 {
        let ends = self.0.iter().skip(1).map(|(from, _)| *from).chain([NEVER]);
        let spans = self.0.iter().zip(ends).map(|(&(from, speed), end)| (end.min(now).saturating_sub(from), speed));
        spans.map(|(span, speed)| 2 * (u128::from(span) * u128::from(speed.parts()) / 512)).sum()
    }

    /// The same without any rounding, in parts of 2^8 of a tick.
    fn exactly(&self, now: u64) -> u128 {
        let ends = self.0.iter().skip(1).map(|(from, _)| *from).chain([NEVER]);
        let spans = self.0.iter().zip(ends).map(|(&(from, speed), end)| (end.min(now).saturating_sub(from), speed));
        spans.map(|(span, speed)| u128::from(span) * u128::from(speed.parts())).sum()
    }

    fn then(&mut self, now: u64, speed: Speed, lease: Option<u64>) {
        self.0.retain(|(from, _)| *from <= now + LEAD);
        if self.0.last().unwrap().1 != speed {
            self.0.push((now + LEAD, speed));
        }
        if let Some(lease) = lease.filter(|_| speed != Speed::ONE) {
            self.0.push((now + LEAD + lease, Speed::ONE));
        }
    }
}

fn speeds() -> impl Strategy<Value = Speed> {
    let parts = prop_oneof![Just(1 << 16), Just(1 << 12), Just(1 << 15), (1u64 << 12)..=1 << 16];
    parts.prop_map(|parts| Speed::of_parts(parts).unwrap())
}

/// A pause, and what is published after it.
fn publications() -> impl Strategy<Value = Vec<(u64, Speed, Option<u64>)>> {
    let pause = prop_oneof![0..3 * LEAD, SECOND / 10..SECOND, 2 * SECOND..10 * SECOND, DAY..60 * DAY];
    // From one that ends within the next publication's lead to one that outlasts a silence of 30 days.
    let lease = prop_oneof![0..2 * LEAD, 3 * SECOND..=5 * SECOND, Just(90 * DAY)];
    prop::collection::vec((pause, speeds(), prop::option::weighted(0.9, lease)), 1..40)
}

/// Follows the publications, with `look` at the clock before and after each. Those that do not fit yet are left out.
fn follow(
    start: u64,
    publications: &[(u64, Speed, Option<u64>)],
    mut look: impl FnMut(u64, &Timeline, &Timeline, &Model) -> Result<(), TestCaseError>,
) -> Result<(u64, Timeline, Model), TestCaseError> {
    let (mut now, mut timeline, mut model) = (start, Timeline::REAL, Model(std::vec![(0, Speed::ONE)]));
    for &(pause, speed, lease) in publications {
        now += pause;
        if let Some(next) = timeline.then(now, speed, lease) {
            model.then(now, speed, lease);
            look(now, &timeline, &next, &model)?;
            timeline = next;
        }
    }
    Ok((now, timeline, model))
}

#[test]
fn a_clock_whose_speed_nobody_set_reads_the_monotonic_clock() {
    for now in [0, 1, 255, SECOND + 7, 30 * DAY, 1 << 56, u64::MAX - 1] {
        assert_eq!(Timeline::REAL.at(now), crate::gcra::ticks(now));
    }
}

#[test]
fn a_speed_has_its_bounds() {
    let parts = [0, (1 << 12) - 1, 1 << 12, 1 << 16, (1 << 16) + 1];
    assert_eq!(parts.map(|parts| Speed::of_parts(parts).is_some()), [false, false, true, true, false]);
}

#[test]
fn more_than_fits_within_a_moment_has_to_wait_for_it_to_pass() {
    let half = Speed::of_parts(1 << 15).unwrap();
    let mut timeline = Timeline::REAL;
    let mut published = 0;
    while let Some(next) = timeline.then(SECOND, if published % 2 == 0 { half } else { Speed::LEAST }, Some(SECOND)) {
        timeline = next;
        published += 1;
        assert!(published <= STRETCHES);
    }
    assert!(published >= 2);
    assert!(timeline.then(SECOND + LEAD, half, Some(SECOND)).is_some());
}

proptest! {
    #[test]
    fn reads_what_the_model_reads_number_for_number(
        start in 0..60 * DAY, list in publications(), spans in prop::collection::vec(0..10 * SECOND, 20),
    ) {
        let (now, timeline, model) = follow(start, &list, |_, _, _, _| Ok(()))?;
        for span in spans.into_iter().chain([0, LEAD - 1, LEAD, 30 * DAY, 800 * DAY, 900 * DAY]) {
            prop_assert_eq!(timeline.at(now + span), model.at(now + span) as u64);
            prop_assert_eq!(timeline.at(now + span) & 1, 0);
        }
    }

    /// No stretch loses two ticks, which is 8 ps, whatever was published.
    #[test]
    fn loses_less_than_two_ticks_with_each_speed(start in 0..60 * DAY, list in publications(), span in 0..60 * DAY) {
        let (now, _, model) = follow(start, &list, |_, _, _, _| Ok(()))?;
        let (read, exact) = (model.at(now + span), model.exactly(now + span));
        prop_assert!(read << 8 <= exact && exact < (read + 2 * model.0.len() as u128) << 8);
    }

    #[test]
    fn what_is_published_changes_nothing_before_it_begins(
        start in 0..60 * DAY, list in publications(), spans in prop::collection::vec(0..=LEAD, 8),
    ) {
        follow(start, &list, |now, before, after, _| {
            for span in spans.iter().copied().chain([0, LEAD]) {
                prop_assert_eq!(before.at(now + span), after.at(now + span));
            }
            Ok(())
        })?;
    }

    /// Over publishing, the end of a lease, the return to one, and silence: from each nanosecond to the next it goes on by
    /// the speed then, and never by more than real time.
    #[test]
    fn never_goes_back_and_never_jumps(start in 0..60 * DAY, list in publications(), spans in prop::collection::vec(0..DAY, 8)) {
        let mut last: Option<(u64, u128)> = None;
        let (now, timeline, model) = follow(start, &list, |now, before, after, model| {
            let edges = after.stretches.iter().map(|it| it.from).filter(|&from| from != NEVER && from > now);
            for at in edges.flat_map(|from| [from - 1, from]).chain([now]) {
                let step = after.at(at + 1).wrapping_sub(after.at(at));
                prop_assert!((14..=256).contains(&step), "{} at {}", step, at);
            }
            // From publication to publication, however long the silence between them.
            let read = model.at(now);
            prop_assert_eq!(before.at(now), read as u64);
            if let Some((then, was)) = last.replace((now, read)) {
                prop_assert!(read >= was && read - was <= u128::from(now - then) * 256 + 2 * STRETCHES as u128);
            }
            Ok(())
        })?;
        let mut instants: Vec<u64> = spans.into_iter().map(|span| now + span).collect();
        instants.sort_unstable();
        for pair in instants.windows(2) {
            prop_assert!(timeline.at(pair[1]).wrapping_sub(timeline.at(pair[0])) <= (pair[1] - pair[0]) * 256 + 2);
            prop_assert!(model.at(pair[1]) >= model.at(pair[0]));
        }
    }

    #[test]
    fn after_thirty_days_of_silence_it_runs_as_fast_as_real_time(
        start in 0..60 * DAY, list in publications(), speed in speeds(), lease in 0..=5 * SECOND,
    ) {
        let (now, timeline, _) = follow(start, &list, |_, _, _, _| Ok(()))?;
        let now = now + 2 * LEAD;
        let timeline = timeline.then(now, speed, Some(lease)).expect("all before has begun");
        let silence = now + 30 * DAY;
        prop_assert_eq!(timeline.speed_at(silence), Speed::ONE);
        prop_assert_eq!(timeline.at(silence + SECOND).wrapping_sub(timeline.at(silence)), SECOND * 256);
    }

    #[test]
    fn says_the_first_instant_at_which_it_reads_so_much(
        start in 0..60 * DAY, list in publications(), span in 0..=2 * DAY, owed in 0u64..DAY * 256,
    ) {
        let (now, timeline, _) = follow(start, &list, |_, _, _, _| Ok(()))?;
        let now = now + span;
        let reading = timeline.at(now).wrapping_add(owed);
        let when = timeline.when(now, reading);
        let owes = |at: u64| crate::gcra::debt(reading, timeline.at(at)) > 0;
        prop_assert!(when >= now && !owes(when), "{} still owes at {}", owed, when);
        prop_assert!(when == now || owes(when - 1), "{} was paid before {}", owed, when);
        prop_assert_eq!(timeline.when(now, timeline.at(now).wrapping_sub(owed)), now, "what has passed is now");
    }

    #[test]
    fn a_renewed_lease_is_the_same_clock_for_longer(start in 0..60 * DAY, speed in speeds(), pause in LEAD..2 * SECOND) {
        prop_assume!(speed != Speed::ONE);
        let lease = 5 * SECOND;
        let first = Timeline::REAL.then(start, speed, Some(lease)).unwrap();
        let second = first.then(start + pause, speed, Some(lease)).unwrap();
        let end = start + LEAD + lease;
        prop_assert_eq!(first.at(end), second.at(end));
        prop_assert_eq!((first.speed_at(end), second.speed_at(end)), (Speed::ONE, speed));
        prop_assert_eq!(first.renewed(None).at(end + DAY), second.renewed(None).at(end + DAY));
        let until = first.renewed(Some(end + SECOND));
        prop_assert_eq!((until.speed_at(end + SECOND - 1), until.speed_at(end + SECOND)), (speed, Speed::ONE));
    }
}
