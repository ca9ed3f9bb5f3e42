//! What is shown reads back, what is written means what it says, and what is wrong is told how to be right.

use super::*;
use proptest::prelude::*;
use throttle_common::words::Unit;

const SCALES: [Scale; 12] = [
    Scale::One,
    Scale::Bit,
    Scale::Kbit,
    Scale::Mbit,
    Scale::Gbit,
    Scale::Byte,
    Scale::KB,
    Scale::MB,
    Scale::GB,
    Scale::KiB,
    Scale::MiB,
    Scale::GiB,
];
const PERIODS: [Period; 4] = [Period::Second, Period::Minute, Period::Hour, Period::Day];

proptest! {
    #[test]
    fn a_rate_shown_reads_back(amount in 0..=Quantity::MAX, scale in 0usize..12, per in 0usize..4) {
        let rate = Rate { quantity: Quantity::new(amount, SCALES[scale]), per: PERIODS[per] };
        prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        let json = serde_json::to_string(&rate).unwrap();
        prop_assert_eq!(serde_json::from_str::<Rate>(&json).unwrap(), rate);
    }

    #[test]
    fn a_quantity_shown_reads_back(amount in 0..=Quantity::MAX, scale in 0usize..12) {
        let quantity = Quantity::new(amount, SCALES[scale]);
        let json = serde_json::to_string(&quantity).unwrap();
        prop_assert_eq!(serde_json::from_str::<Quantity>(&json).unwrap(), quantity);
    }

    #[test]
    fn a_time_shown_reads_back(millis in prop_oneof![0..=Span::MAX.millis(), 0..100_000u64]) {
        let span = Span::of_millis(millis);
        prop_assert_eq!(span.to_string().parse(), Ok(span));
    }

    #[test]
    fn no_text_is_too_strange_to_be_refused(text in ".{0,20}") {
        let _ = text.parse::<Rate>();
        let _ = text.parse::<Span>();
    }
}

#[test]
fn people_write_rates_in_many_ways() {
    for (text, bytes) in
        [("10Mbit/s", 1_250_000), ("1GB/s", 1_000_000_000), ("512KiB/min", 524_288), ("64 kB/hour", 64_000)]
    {
        assert_eq!(text.parse::<Rate>().unwrap().units(Unit::Bytes), bytes, "{text}");
    }
    for text in ["1_000/s", "1000 / sec", "1000/second"] {
        assert_eq!(text.parse(), Ok(Rate::per_second(1_000)), "{text}");
    }
}

#[test]
fn a_rate_costs_what_it_says() {
    let cost = |text: &str, unit, units| text.parse::<Rate>().unwrap().price(unit).unwrap().cost(units);
    assert_eq!(cost("50/min", Unit::Connections, 1), 256 * 1_200_000_000);
    assert_eq!(cost("8Mbit/s", Unit::Bytes, 1_000), 256 * 1_000_000);
    assert_eq!(cost("1MB/s", Unit::Bytes, 1_000), 256 * 1_000_000);
    // Three bits a second are no whole number of bytes; ticks may be lost to the price's rounding
    // and to the cost being even.
    assert!(cost("3bit/s", Unit::Bytes, 3).abs_diff(256 * 8_000_000_000) <= 2);
    assert_eq!("10Mbit/s".parse::<Rate>().unwrap().price(Unit::Packets), None);
}

#[test]
fn a_time_of_a_part_of_a_second_ends_no_earlier_than_it_says() {
    let span = |text: &str| text.parse::<Span>().unwrap();
    assert_eq!((span("1s500ms").millis(), span("1s500ms").seconds()), (1_500, 2));
    assert_eq!((span("250ms").seconds(), span("2m").seconds(), span("0s").seconds()), (1, 120, 0));
    assert_eq!(span("90500ms").to_string(), "1m30s500ms");
}

#[test]
fn each_mistake_is_named_with_its_remedy() {
    let fault = |text: &str| text.parse::<Rate>().unwrap_err().to_string();
    assert!(fault("1000").starts_with("`1000` names no period; write how much in how long"));
    assert!(fault("50/fortnight").starts_with("`fortnight` is no period"));
    assert!(fault("10Mb/s").starts_with("`Mb` is no unit of size"));
    assert!(fault("1.5MB/s").contains("not 1.5MB"));
    assert!(fault("-5/s").starts_with("`-5/s` is negative"));
    assert!(fault("99999999999999999999/s").contains("too large"));
    assert!("5 minutes".parse::<Span>().unwrap_err().remedy.contains("5m"));
}
