//! The forecast agrees with Erlang's tables, and more flood is never better.

use super::*;
use crate::policy::layout::Layout;
use crate::policy::{compile, parse, tests::EXAMPLE};
use proptest::prelude::*;

fn example() -> Vec<Forecast> {
    forecasts(&compile(&parse(EXAMPLE).unwrap(), 1, &Layout { sets: 1 << 20, ..Layout::default() }).unwrap())
}

#[test]
fn three_servers_lose_what_erlangs_tables_say() {
    for (offered, blocked) in [(0.1, 0.000_15), (0.455, 0.01), (1.0, 0.0625), (2.0, 0.2105), (3.0, 0.3462)] {
        assert!((erlang_b(offered) - blocked).abs() < 0.000_1, "{offered}: {}", erlang_b(offered));
    }
}

#[test]
fn the_region_is_full_where_one_in_a_hundred_finds_no_place() {
    for forecast in example() {
        assert!((forecast.at(forecast.full_at).overflow - FULL).abs() < 1e-9);
    }
}

#[test]
fn a_limit_has_a_forecast_for_each_family_that_it_meets() {
    let families: Vec<_> = example().iter().map(|forecast| (forecast.limit.clone(), forecast.family)).collect();
    let expected = [("new-connections", Family::V4), ("traffic", Family::V4), ("traffic", Family::V6)];
    assert_eq!(families, expected.map(|(limit, family)| (limit.to_owned(), family)));
}

#[test]
fn a_person_understands_it() {
    let expected = "new-connections (ipv4): room for 3 000 sources at once; one SYN holds a place for 1.2 s, so a flood \
                    of 370 SYNs/s from ever new sources leaves 1 % of them without one: these are refused";
    assert_eq!(example()[0].to_string(), expected);
    assert!(example()[1].to_string().contains("one 64-byte frame holds a place for 51.2 us"));
}

#[test]
fn a_window_keeps_its_places_until_it_ends_and_one_that_slides_until_the_next_has_ended() {
    // A window in which everybody finds a place, one in which few do, and what a person counts by hand: with 6 arrivals
    // for 3 places half find none, and where the window before keeps its places, three quarters.
    assert!(windows(0.01, false).1 < 1e-6 && windows(0.01, true).1 < 1e-5);
    assert!((windows(1e3, false).1 - 0.997).abs() < 1e-9 && (windows(1e3, true).1 - 0.9985).abs() < 1e-9);
    assert!((windows(1e3, false).0 - 3.0).abs() < 1e-9 && (windows(1e3, true).0 - 3.0).abs() < 1e-9);
    let text = |algorithm: &str| {
        let policy =
            format!("[[limit]]\nname = \"w\"\nunit = \"packets\"\nrate = \"60/min\"\nalgorithm = \"{algorithm}\"\n");
        let compiled = compile(&parse(&policy).unwrap(), 1, &Layout { sets: 1 << 20, ..Layout::default() }).unwrap();
        let forecast = forecasts(&compiled).swap_remove(0);
        assert!((forecast.at(forecast.full_at).overflow - FULL).abs() < 1e-9, "{forecast}");
        (forecast.full_at, forecast.to_string())
    };
    let (bucket, fixed, sliding) = (text("leaky-bucket"), text("fixed-window"), text("sliding-window"));
    assert!(bucket.0 > 10.0 * fixed.0 && fixed.0 > sliding.0, "{} {} {}", bucket.0, fixed.0, sliding.0);
    assert!(fixed.1.contains("holds a place until its window of 60.0 s ends"), "{}", fixed.1);
    assert!(sliding.1.contains("until the window of 60.0 s after its own ends"), "{}", sliding.1);
}

proptest! {
    #[test]
    fn more_flood_fills_more_and_turns_more_away(slow in 0.0..1e9f64, more in 1.0..100f64) {
        for forecast in example() {
            let (calm, storm) = (forecast.at(slow), forecast.at(slow * more));
            prop_assert!(storm.occupancy >= calm.occupancy - 1e-12 && storm.overflow >= calm.overflow - 1e-12);
            prop_assert!(storm.occupancy <= 0.75 + 1e-12 && storm.overflow <= 1.0);
        }
    }
}
