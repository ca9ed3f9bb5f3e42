//! The laws of what is usual.

#![expect(clippy::float_cmp, reason = "bounds are reached exactly, and what is kept is kept bit by bit")]

use super::*;
use crate::health::MILLISECOND;
use proptest::prelude::*;

#[test]
fn an_overload_of_ten_minutes_moves_the_baseline_by_two_thirds_at_most_and_a_calm_moment_brings_it_back() {
    let mut baseline = Baseline::default();
    assert_eq!(baseline.add(0, 5e6), 5e6);
    let after = (1..=6_000).map(|period| baseline.add(period * 100 * MILLISECOND, 60e6)).last().unwrap();
    assert!(after <= 5e6 * 1.05f64.powi(10) * 1.001, "{after}");
    assert_eq!(baseline.add(601 * SECOND, 5e6), 5e6);
}

#[test]
fn the_peak_is_kept_while_nobody_asks_for_more() {
    let mut throughput = Throughput::default();
    (0..50).for_each(|period| throughput.add(period * 100 * MILLISECOND, 100, true));
    assert_eq!((throughput.per_second(), throughput.peak()), (1_000.0, Some(1_000.0)));
    (50..1_000).for_each(|period| throughput.add(period * 100 * MILLISECOND, 1, false));
    assert_eq!((throughput.per_second(), throughput.peak()), (10.0, Some(1_000.0)));
    (1_000..1_120).for_each(|period| throughput.add(period * 100 * MILLISECOND, 50, true));
    assert_eq!(throughput.peak(), Some(500.0), "what it cannot do any more is forgotten when it is busy");
}

proptest! {
    #[test]
    fn falls_freely_and_rises_five_percent_a_minute(delays in prop::collection::vec((1u64..10 * SECOND, 1e3f64..1e9), 1..200)) {
        let (mut baseline, mut now) = (Baseline::default(), 0);
        for (pause, delay) in delays {
            now += pause;
            let before = baseline.value();
            let after = baseline.add(now, delay);
            prop_assert!(after <= delay);
            if let Some(before) = before {
                prop_assert!(after <= before * 1.05f64.powf(pause as f64 / 60e9) * 1.000_001);
            }
        }
    }
}
