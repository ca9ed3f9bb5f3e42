//! The laws of the bucket, for every start, rate and arrival pattern.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

const SECOND: u64 = 1_000_000_000;

proptest! {
    #[test]
    fn never_admits_more_than_burst_and_rate(
        start in any::<u64>(),
        rate in 1u64..2_000_000,
        burst in 1u64..1_000,
        gaps in prop::collection::vec(0u64..5_000_000, 1..400),
    ) {
        let price = Price::of_rate(rate, SECOND, 1).unwrap();
        let (cost, depth) = (price.cost(1), price.depth(burst).unwrap());
        let (mut tat, mut now, mut admitted) = (ticks(start), ticks(start), 0u64);
        for gap in gaps {
            now = now.wrapping_add(ticks(gap));
            if let Some(next) = admit(tat, now, cost, depth) {
                tat = next;
                admitted += 1;
            }
            let elapsed = now.wrapping_sub(ticks(start));
            prop_assert!(u128::from(admitted) * u128::from(cost) <= u128::from(depth) + u128::from(elapsed));
        }
    }

    #[test]
    fn nor_where_some_are_added_as_of_an_instant_that_is_a_little_past(
        start in any::<u64>(),
        rate in 1u64..20_000_000,
        burst in 1u64..10,
        late in 0u64..20_000,
        arrivals in prop::collection::vec((prop_oneof![0u64..200, 0u64..50_000], any::<bool>()), 1..400),
    ) {
        let price = Price::of_rate(rate, SECOND, 1).unwrap();
        let (cost, depth, late) = (price.cost(1), price.depth(burst).unwrap(), ticks(late));
        let (mut tat, mut now, mut admitted) = (ticks(start), ticks(start), Vec::new());
        for (gap, is_added) in arrivals {
            now = now.wrapping_add(ticks(gap));
            let added = is_added && adds_up(tat, now, cost, depth, late);
            if let Some(next) = if added { Some(tat.wrapping_add(cost)) } else { admit(tat, now, cost, depth) } {
                tat = next;
                admitted.push(now);
            }
            let in_window = |first: usize| cost * (admitted.len() - first) as u64;
            let mut windows = admitted.iter().enumerate();
            prop_assert!(windows.all(|(first, since)| in_window(first) <= depth + late + now.wrapping_sub(*since)));
        }
    }

    #[test]
    fn admits_exactly_at_the_promised_time(
        start in any::<u64>(), rate in 1u64..1_000_000, burst in 1u64..100, spent in 0u64..200,
    ) {
        let price = Price::of_rate(rate, SECOND, 1).unwrap();
        let (cost, depth) = (price.cost(1), price.depth(burst).unwrap());
        let now = ticks(start);
        let tat = (0..spent).fold(now, |tat, _| admit(tat, now, cost, depth).unwrap_or(tat));
        let wait = wait(tat, now, cost, depth);
        prop_assert!(admit(tat, now.wrapping_add(wait), cost, depth).is_some());
        if wait > 0 {
            prop_assert!(admit(tat, now.wrapping_add(wait - 1), cost, depth).is_none());
        }
    }

    #[test]
    fn the_price_is_exact_to_a_billionth(amount in 1u64..20_000_000_000, units in 1u32..65_536) {
        let price = Price::of_rate(amount, SECOND, 65_536).unwrap();
        let exact = f64::from(units) * 256e9 / amount as f64;
        let cost = price.cost(units) as f64;
        // Fewer than two ticks are lost: one to the shift, one to being even.
        let error = exact * 1e-9;
        prop_assert!(cost <= exact + error && cost > exact - error - 2.0, "{} for {}", cost, exact);
        prop_assert!(price.cost(units).is_multiple_of(2));
    }

    #[test]
    fn a_burst_of_single_units_fits_its_depth(amount in 1u64..100_000_000, burst in 1u64..100_000) {
        let price = Price::of_rate(amount, SECOND, 1).unwrap();
        prop_assume!(price.depth(burst).is_some());
        prop_assert!(u128::from(price.cost(1)) * u128::from(burst) <= u128::from(price.depth(burst).unwrap()));
    }
}

#[test]
fn a_full_bucket_gives_its_burst_at_once_and_no_more() {
    let price = Price::of_rate(50, 60 * SECOND, 1).unwrap();
    let (cost, depth) = (price.cost(1), price.depth(50).unwrap());
    let now = ticks(123_456_789);
    let mut tat = 0;
    let admitted = (0..100).filter(|_| admit(tat, now, cost, depth).map(|next| tat = next).is_some()).count();
    assert_eq!(admitted, 50);
}

#[test]
fn a_clock_that_wraps_changes_nothing() {
    let now = u64::MAX - 10;
    let tat = admit(now, now, 100, 150).unwrap();
    assert_eq!(tat, 89);
    assert_eq!(debt(tat, now.wrapping_add(50)), 50);
    assert_eq!(admit(tat, now.wrapping_add(40), 100, 150), None);
    assert_eq!(admit(tat, now.wrapping_add(50), 100, 150), Some(now.wrapping_add(200)));
}

#[test]
fn no_price_could_be_told_more_exactly() {
    let alike = |amount: u64, period: u64, units: u32| {
        let Some(price) = Price::of_rate(amount, period, units) else { return };
        let span = u128::from(period) * u128::from(TICKS_PER_NANO);
        let told = |shift: u64| ((span << shift) + u128::from(amount) / 2) / u128::from(amount);
        let fits = |shift| told(shift) <= u128::from(u64::MAX) / u128::from(units);
        assert_eq!(u128::from(price.mantissa), told(price.shift), "{amount} in {period} ns");
        assert!(price.shift == 55 || !fits(price.shift + 1), "{amount} in {period} ns");
    };
    proptest!(|(amount in 0..64u32, period in 0..64u32, low in any::<u64>(), units in 1..=u32::MAX)| {
        alike((low >> amount).max(1), (low.rotate_left(17) >> period).max(1), units);
    });
}

#[test]
fn refuses_rates_that_no_bucket_can_hold() {
    assert_eq!(Price::of_rate(0, SECOND, 1), None);
    assert_eq!(Price::of_rate(1, u64::MAX, 1), None);
    assert!(Price::of_rate(1, 86_400 * SECOND, 1).is_some_and(|day| day.depth(2).is_none()));
}

#[test]
fn an_unused_bucket_is_full_at_every_uptime() {
    for uptime in [1, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 63) + 1, u64::MAX - 2 * MAX_DEPTH, u64::MAX - MAX_DEPTH] {
        assert_eq!(debt(UNUSED, uptime), 0, "{uptime} ticks after the boot");
        assert!(!is_stale(UNUSED, uptime));
    }
}

proptest! {
    #[test]
    fn whoever_looks_once_a_year_meets_every_debt_before_it_comes_back(
        start: u64,
        owed in 1..MAX_DEPTH,
        pauses in prop::collection::vec(SECOND..365 * 86_400 * SECOND, 1..20),
    ) {
        let (mut tat, mut now) = (start.wrapping_add(owed), start);
        prop_assert!(!is_stale(tat, now));
        let mut passed = 0u128;
        for pause in pauses {
            now = now.wrapping_add(ticks(pause));
            passed += u128::from(ticks(pause));
            prop_assert_eq!(u128::from(debt(tat, now)), u128::from(owed).saturating_sub(passed));
            if is_stale(tat, now) {
                tat = UNUSED;
            }
        }
    }
}
