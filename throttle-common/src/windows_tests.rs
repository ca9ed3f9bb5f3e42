//! The laws of windows, for every amount, length and arrival pattern.
#![expect(clippy::cast_sign_loss, reason = "shares of a window are not negative")]

use super::*;
use crate::gcra::{MAX_DEPTH, TICKS_PER_NANO, admit};
use proptest::prelude::*;
use std::vec::Vec;

const SECOND: Ticks = 1_000_000_000 * TICKS_PER_NANO;

/// A bucket of a window that slides: its two words, judged as the table does.
#[derive(Clone, Copy, Default)]
struct Words([Ticks; 2]);

impl Words {
    fn admit(&mut self, now: Ticks, cost: Ticks, depth: Ticks, length: Ticks) -> bool {
        let window = Sliding::at(now, length, shift(length));
        let (running, before) = window.turn(0, 1);
        let room = depth.saturating_sub(window.weight(self.0[before]));
        let next = admit(self.0[running], window.start(), cost, room);
        self.0[running] = next.unwrap_or(self.0[running]);
        next.is_some()
    }
}

/// The most instants, of ascending ones, that lie within less than `length` of each other.
fn most_within(admitted: &[Ticks], length: Ticks) -> usize {
    let within =
        |(index, &first): (usize, &Ticks)| admitted[index..].iter().take_while(|&&at| at - first < length).count();
    admitted.iter().enumerate().map(within).max().unwrap_or(0)
}

fn lengths() -> impl Strategy<Value = Ticks> {
    prop_oneof![Just(1u64), Just(60), Just(3_600), Just(86_400), 1u64..86_400].prop_map(|seconds| seconds * SECOND)
}

proptest! {
    #[test]
    fn a_window_holds_exactly_its_amount_whatever_both_are(
        length in lengths(),
        amount in prop_oneof![1u64..1_000, 1u64..1_000_000_000],
        bytes in 1u32..131_072,
    ) {
        let (price, depth) = price(amount, length).unwrap();
        prop_assert_eq!(u128::from(price.cost(1)) * u128::from(amount), u128::from(depth));
        prop_assert!(price.cost(1) >= 2 && depth <= length && length <= MAX_DEPTH);
        if amount >= u64::from(bytes) {
            prop_assert_eq!(price.cost(bytes), price.cost(1) * u64::from(bytes));
        }
    }

    #[test]
    fn who_has_used_nothing_has_all_that_is_due_also_in_the_first_window_of_all(
        length in lengths(),
        amount in 1u64..20,
        passed in 0.0..1.0f64,
    ) {
        let (price, depth) = price(amount, length).unwrap();
        let (mut words, now) = (Words::default(), (length as f64 * passed) as Ticks);
        let admitted = (0..2 * amount).filter(|_| words.admit(now, price.cost(1), depth, length)).count();
        prop_assert_eq!(admitted as u64, amount);
    }

    #[test]
    fn a_fixed_window_admits_all_that_is_due_and_twice_that_around_an_edge_at_most(
        length in lengths(),
        amount in 1u64..20,
        start in 0u64..1 << 62,
        gaps in prop::collection::vec(0.0..0.5f64, 1..300),
    ) {
        let (price, depth) = price(amount, length).unwrap();
        let (mut now, mut tat, mut admitted) = (start, 0, Vec::new());
        let mut asked = std::collections::BTreeMap::<Ticks, (u64, u64)>::new();
        for gap in gaps {
            now += (gap * gap * length as f64) as Ticks;
            let reads = super::start(now, length);
            let (of, got) = asked.entry(reads).or_default();
            *of += 1;
            if let Some(next) = admit(tat, reads, price.cost(1), depth) {
                tat = next;
                *got += 1;
                admitted.push(now);
            }
        }
        for (of, got) in asked.values() {
            prop_assert_eq!(*got, (*of).min(amount));
        }
        prop_assert!(most_within(&admitted, length) as u64 <= 2 * amount);
    }

    #[test]
    fn the_weight_is_the_exact_one_but_for_a_three_billionth_part_of_the_window(
        length in lengths(), number in 1u64..500, elapsed in 0.0..1.0f64, used in 0.0..=1.0f64,
    ) {
        let elapsed = (elapsed * length as f64) as Ticks % length;
        let used = ((used * length as f64) as Ticks).min(length);
        let now = number * length + elapsed;
        let window = Sliding::at(now, length, shift(length));
        prop_assert_eq!(window.start(), super::start(now, length));
        let word = (number - 1) * length + used;
        prop_assert_eq!(window.owed(word), used);
        let exact = u128::from(used) * u128::from(length - elapsed) / u128::from(length);
        prop_assert!(window.weight(word) <= used);
        let error = (exact as f64 - window.weight(word) as f64).abs();
        prop_assert!(error <= 3.0 * length as f64 / f64::from(1u32 << 31) + 1.0, "off by {error}");
    }

    #[test]
    fn a_sliding_window_keeps_to_its_own_estimate_and_to_twice_its_amount(
        length in lengths(),
        amount in 1u64..20,
        start in 1u64..400,
        gaps in prop::collection::vec(0.0..0.6f64, 1..300),
    ) {
        let (price, depth) = price(amount, length).unwrap();
        let (mut now, mut words, mut admitted) = (start * length, Words::default(), Vec::<Ticks>::new());
        for gap in gaps {
            now += (gap * gap * length as f64) as Ticks;
            let (from, elapsed) = (super::start(now, length), now % length);
            let count = |from: Ticks| admitted.iter().filter(|&&at| super::start(at, length) == from).count() as u128;
            // In parts of a unit: what the estimate would be with this one.
            let estimate = count(from - length) * u128::from(length - elapsed) + (count(from) + 1) * u128::from(length);
            let due = u128::from(amount) * u128::from(length);
            let passed = words.admit(now, price.cost(1), depth, length);
            // The weight errs by 3 parts in 2^31 of what is due at most.
            prop_assert!(!passed || estimate <= due + (due >> 29), "admits {estimate} of {due}");
            prop_assert!(passed || estimate + (due >> 29) > due, "refuses {estimate} of {due}");
            if passed {
                admitted.push(now);
            }
        }
        prop_assert!(most_within(&admitted, length) as u64 <= 2 * amount);
    }

    #[test]
    fn a_sliding_window_admits_its_amount_of_an_even_stream(
        length in lengths(), amount in 100u64..400, offered in 2u64..6, phase in 0.0..1.0f64,
    ) {
        const WINDOWS: u64 = 10;
        let (price, depth) = price(amount, length).unwrap();
        let mut words = Words::default();
        let begin = 100 * length + (phase * length as f64) as Ticks;
        let arrivals = (0..WINDOWS * amount * offered).map(|n| begin + (u128::from(n) * u128::from(length) / u128::from(amount * offered)) as Ticks);
        let admitted: Vec<Ticks> = arrivals.filter(|&now| words.admit(now, price.cost(1), depth, length)).collect();
        // Once it has settled: what came before the stream is nothing, and so the first windows are uneven.
        for window in 3..WINDOWS {
            let from = begin + window * length;
            let count = admitted.iter().filter(|&&at| (from..from + length).contains(&at)).count() as f64;
            prop_assert!((count / amount as f64 - 1.0).abs() <= 0.01 + 1.0 / amount as f64, "{count} of {amount}");
        }
    }
}

#[test]
fn what_a_window_before_the_last_admitted_weighs_nothing() {
    let (price, depth) = price(10, SECOND).unwrap();
    let mut words = Words::default();
    let admits = |words: &mut Words, now| (0..100).filter(|_| words.admit(now, price.cost(1), depth, SECOND)).count();
    assert_eq!(admits(&mut words, 10 * SECOND), 10);
    assert_eq!(admits(&mut words, 11 * SECOND), 0, "all of it still counts");
    assert_eq!(admits(&mut words, 11 * SECOND + SECOND / 2), 5);
    assert_eq!(admits(&mut words, 13 * SECOND), 10);
}

#[test]
fn an_empty_amount_and_one_that_is_too_large_have_no_price() {
    assert_eq!(price(0, SECOND), None);
    assert_eq!(price(SECOND, SECOND), None);
    assert!(price(SECOND / 2, SECOND).is_some());
}
