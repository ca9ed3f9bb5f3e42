//! The laws of suspicion: monotone, bounded, and no quicker than what was declared.

#![expect(clippy::float_cmp, reason = "bounds are reached exactly, and what is kept is kept bit by bit")]

use super::*;
use crate::health::MILLISECOND;
use proptest::prelude::*;

const INTERVAL: Nanos = 200 * MILLISECOND;

#[test]
fn a_beat_in_time_is_not_suspicious_and_seven_missing_are() {
    let mut rhythm = Rhythm::new(INTERVAL);
    (0..2_000).for_each(|_| rhythm.add(INTERVAL));
    assert_eq!(share(rhythm.phi(2 * INTERVAL)), 1.0);
    assert!(share(rhythm.phi(3 * INTERVAL)) < 1.0);
    assert_eq!(share(rhythm.phi(7 * INTERVAL)), LEAST_SHARE);
}

#[test]
fn pauses_say_nothing_of_the_rhythm() {
    let mut rhythm = Rhythm::new(INTERVAL);
    rhythm.add(LONGEST_INTERVALS * INTERVAL + 1);
    assert_eq!(rhythm, Rhythm::new(INTERVAL));
}

proptest! {
    #[test]
    fn grows_with_silence_and_leaves_less_of_the_load(
        intervals in prop::collection::vec(1u64..20 * INTERVAL, 0..200), silences in prop::array::uniform2(0u64..100 * INTERVAL),
    ) {
        let mut rhythm = Rhythm::new(INTERVAL);
        for interval in intervals {
            rhythm.add(interval);
        }
        let [less, more] = { let mut sorted = silences; sorted.sort_unstable(); sorted };
        prop_assert!(rhythm.phi(less) <= rhythm.phi(more));
        prop_assert!(share(rhythm.phi(less)) >= share(rhythm.phi(more)));
        prop_assert!((LEAST_SHARE..=1.0).contains(&share(rhythm.phi(more))));
        prop_assert!(rhythm.phi(more) <= Rhythm::new(INTERVAL).phi(more), "quick beats make nobody suspicious sooner");
    }
}
