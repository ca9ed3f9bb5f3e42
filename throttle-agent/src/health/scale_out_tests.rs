//! When it is said that there are too few workers, and when no longer.

use super::*;
use crate::health::controller::PERIOD;

/// What is said over so many periods, with the period in which it is.
fn over(scale: &mut ScaleOut, from: u64, periods: u64, short: impl Fn(u64) -> bool) -> Vec<(u64, bool)> {
    (from..from + periods).filter_map(|it| Some((it, scale.step(it * PERIOD, short(it))?))).collect()
}

#[test]
fn is_said_once_after_ten_seconds_of_want_and_taken_back_after_ten_without() {
    let mut scale = ScaleOut::default();
    assert_eq!(over(&mut scale, 0, 100, |_| true), []);
    assert_eq!(over(&mut scale, 100, 300, |_| true), [(100, true)]);
    assert!(scale.wants());
    let back = over(&mut scale, 400, 300, |_| false);
    assert_eq!((back.len(), back[0].1), (1, false));
    assert!((500..=510).contains(&back[0].0), "{back:?}");
}

#[test]
fn a_burst_of_refusals_is_no_want_and_a_pause_between_bursts_no_end_of_it() {
    let mut scale = ScaleOut::default();
    assert_eq!(over(&mut scale, 0, 1_000, |period| period % 100 < 50), [], "five seconds in ten");
    let mut scale = ScaleOut::default();
    assert_eq!(over(&mut scale, 0, 1_000, |period| period % 5 == 0), [(100, true)], "twice a second");
}
