use super::*;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);

/// The probes of so many beats of one that takes no time.
fn probes(interval: Duration, seed: u64, beats: usize) -> Vec<Duration> {
    let (mut pace, mut now) = (Pace::new(Duration::ZERO, interval, seed), Duration::ZERO);
    let step = |_| {
        now = pace.next(now);
        now
    };
    (0..beats).map(step).collect()
}

proptest! {
    #[test]
    fn beats_keep_their_interval_whatever_the_jitter(millis in 50u32..60_000, seed: u64) {
        let interval = MS * millis;
        let probes = probes(interval, seed, 100);
        for (beat, pair) in probes.windows(2).enumerate() {
            let [least, most] = [4, 6].map(|fifths| pair[0] + interval * fifths / 5);
            prop_assert!(pair[1] + MS >= least && pair[1] <= most + MS, "{pair:?} after {beat}");
        }
        let [least, most] = [98, 100].map(|intervals| probes[0] + interval * intervals);
        prop_assert!(probes[99] >= least && probes[99] <= most, "jitter does not add up: {:?}", probes[99]);
    }

    #[test]
    fn what_was_missed_is_not_made_up_for(late in 0u32..100_000, seed: u64) {
        let interval = MS * 200;
        let mut pace = Pace::new(Duration::ZERO, interval, seed);
        let first = pace.next(Duration::ZERO);
        let now = first + MS * late;
        let times = [pace.next(now), pace.next(now), pace.next(now)];
        prop_assert!(times[0] >= now, "never in the past");
        prop_assert!(times[2] + MS >= now + interval * 4 / 5, "{times:?} at {now:?}");
    }
}

#[test]
fn one_that_beats_seldom_is_asked_within_two_seconds_of_the_start() {
    let first = |seed| Pace::new(MS, MS * 60_000, seed).next(MS);
    assert!((0..1_000).all(|seed| first(seed) <= MS * 2_001));
}

#[test]
fn a_thousand_that_begin_together_are_spread_evenly() {
    let mut tenths = [0; 10];
    for seed in 0..1_000 {
        let first = Pace::new(Duration::ZERO, MS * 200, seed).next(Duration::ZERO);
        tenths[(first.as_millis() / 20).min(9) as usize] += 1;
    }
    assert!(tenths.iter().all(|&count| (50..200).contains(&count)), "{tenths:?}");
}
