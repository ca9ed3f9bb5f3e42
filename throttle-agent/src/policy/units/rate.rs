//! How much in how long.

use super::{Quantity, Scale};
use crate::policy::{fault::Fault, text::written_as_text};
use std::{fmt, str::FromStr};
use throttle_common::{
    gcra::{MAX_DEPTH, Price, TICKS_PER_NANO, Ticks},
    windows,
    words::Unit,
};

/// A quantity for each period, such as `50/min` or `10Mbit/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How much is due.
    pub quantity: Quantity,
    /// In how long.
    pub per: Period,
}

/// The period of a [`Rate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// `s`
    Second,
    /// `min`
    Minute,
    /// `hour`
    Hour,
    /// `day`
    Day,
}

/// Every period: its name first, then the other ways to write it.
const PERIODS: [(Period, u64, &[&str]); 4] = [
    (Period::Second, 1, &["s", "sec", "second"]),
    (Period::Minute, 60, &["min", "m", "minute"]),
    (Period::Hour, 3_600, &["hour", "h"]),
    (Period::Day, 86_400, &["day", "d"]),
];

/// The most bytes that one packet is charged: larger than any frame, and small enough for exact prices.
const FRAME_MAX: u32 = 131_072;

impl Period {
    /// Its length.
    pub fn seconds(self) -> u64 {
        self.entry().1
    }

    fn entry(self) -> &'static (Self, u64, &'static [&'static str]) {
        PERIODS.iter().find(|(period, ..)| *period == self).expect("every period is in the table")
    }
}

impl Rate {
    /// A bare number for each second.
    pub const fn per_second(amount: u64) -> Self {
        Self { quantity: Quantity::bare(amount), per: Period::Second }
    }

    /// The price of a unit at this rate, if a bucket can hold it.
    pub fn price(self, unit: Unit) -> Option<Price> {
        let nanos = self.per.seconds() * 1_000_000_000;
        match unit {
            Unit::Packets | Unit::Connections if self.quantity.scale() == Scale::One => {
                Price::of_rate(self.quantity.amount(), nanos, 1)
            }
            Unit::Packets | Unit::Connections => None,
            // By bits, so that rates that are no whole number of bytes stay exact.
            Unit::Bytes => Price::of_rate(u64::try_from(self.quantity.bits()).ok()?, 8 * nanos, FRAME_MAX),
        }
    }

    /// How deep a bucket at this rate must be to hold `burst`, if one can be.
    pub fn depth(self, unit: Unit, burst: u64) -> Option<Ticks> {
        let (due, asked) = match unit {
            Unit::Bytes => (self.quantity.bits(), 8 * u128::from(burst)),
            Unit::Packets | Unit::Connections => (u128::from(self.quantity.amount()), u128::from(burst)),
        };
        // A price is rounded to the nearest: a day's worth may come out a few ticks above a day.
        let a_day = u128::from(MAX_DEPTH / TICKS_PER_NANO / 1_000_000_000);
        let within_a_day = asked * u128::from(self.per.seconds()) <= due * a_day;
        self.price(unit)?.depth(burst).or(within_a_day.then_some(MAX_DEPTH))
    }

    /// The same with its unit where it is one of bytes: a bare number is none, and counts as bytes all the same.
    #[must_use]
    pub const fn of_bytes(self) -> Self {
        match self.quantity.scale() {
            Scale::One => Self { quantity: Quantity::new(self.quantity.amount(), Scale::Byte), ..self },
            _ => self,
        }
    }

    /// The bits that are due in a day, of which a bare number counts as bytes: what rates are compared by.
    pub fn a_day(self) -> u128 {
        self.quantity.bits() * 86_400 / u128::from(self.per.seconds())
    }

    /// The period as a window: the length of one.
    pub fn window(self) -> Ticks {
        self.per.seconds() * 1_000_000_000 * TICKS_PER_NANO
    }

    /// The price of a unit and the depth of a bucket that counts the units of a window, if one can be.
    pub fn window_price(self, unit: Unit) -> Option<(Price, Ticks)> {
        windows::price(self.units(unit), self.window())
    }

    /// The units that are due in a period.
    pub fn units(self, unit: Unit) -> u64 {
        match unit {
            Unit::Packets | Unit::Connections => self.quantity.amount(),
            Unit::Bytes => u64::try_from(self.quantity.bits() / 8).unwrap_or(u64::MAX),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.quantity, self.per.entry().2[0])
    }
}

impl FromStr for Rate {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let Some((quantity, period)) = text.split_once('/') else {
            let remedy = "write how much in how long: 1000/s, 50/min, 10/hour, 1/day or 10Mbit/s";
            return Err(Fault::new(format!("`{text}` names no period"), remedy));
        };
        if text.starts_with('-') {
            return Err(Fault::new(format!("`{text}` is negative"), "write a rate above 0, as in 50/min or 10Mbit/s"));
        }
        let quantity = quantity.trim().parse()?;
        let period = period.trim();
        let per = PERIODS.iter().find(|(.., names)| names.contains(&period)).map(|&(per, ..)| per);
        match per {
            Some(per) => Ok(Self { quantity, per }),
            None => Err(Fault::new(format!("`{period}` is no period"), "write s, min, hour or day after the slash")),
        }
    }
}

written_as_text!(Rate, "50/min");
