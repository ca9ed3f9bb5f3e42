//! Which flood a limit withstands: how full its region is, and how many new sources find no place in it.
//!
//! A packet of a new source keeps a slot busy for as long as it costs. In each set three slots are open to any source,
//! and a flood from random addresses falls on the sets evenly: each is a loss system with Poisson arrivals, three
//! servers and no queue (Erlang 1917). What finds no place meets the limit's overflow rule.

use super::layout::Compiled;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use throttle_common::{
    gcra::TICKS_PER_NANO,
    packet::Family,
    records::{Limit, name_str},
    table::{OPEN_WAYS, WAYS},
    words::{Overflow, Unit},
};
use utoipa::ToSchema;

/// The frame that a flood is made of: the smallest that Ethernet carries.
pub const FLOOD_FRAME: u32 = 64;

/// The share of new sources without a place at which a region counts as full.
pub const FULL: f64 = 0.01;

/// What a limit's region for one family withstands.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Forecast {
    /// The limit's name.
    pub limit: String,
    /// What it counts: a flood of `connections` is one of SYNs, one of `bytes` of 64-byte frames.
    #[serde(with = "super::word")]
    #[schema(schema_with = super::word::schema::<Unit>)]
    pub unit: Unit,
    /// What becomes of sources without a place.
    #[serde(with = "super::word")]
    #[schema(schema_with = super::word::schema::<Overflow>)]
    pub overflow: Overflow,
    /// `ipv4` or `ipv6`.
    #[serde(serialize_with = "family_name")]
    #[schema(value_type = String)]
    pub family: Family,
    /// Sets of the region, of four slots each.
    pub sets: u32,
    /// How long one packet of a new source keeps a slot busy.
    pub busy_seconds: f64,
    /// The flood from ever new sources, in packets each second, at which one in a hundred finds no place.
    pub full_at: f64,
}

/// How a region fares under a flood.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Load {
    /// The share of all slots that are busy, 0 to 0.75: the fourth is kept for proven sources.
    pub occupancy: f64,
    /// The share of new sources that find no place, 0 to 1.
    pub overflow: f64,
}

/// The forecasts of all limits of a compiled policy, for each family that they meet.
pub fn forecasts(compiled: &Compiled) -> Vec<Forecast> {
    let of = |(_, limit): &(u16, Limit)| [Family::V4, Family::V6].map(|family| Forecast::of(limit, family));
    compiled.limits.iter().flat_map(of).flatten().collect()
}

/// How the limit's region for a family fares when that many packets a second come from ever new sources. `None` where
/// the limit has no region for the family.
pub fn forecast(limit: &Limit, family: Family, packets_per_second: f64) -> Option<Load> {
    Forecast::of(limit, family).map(|forecast| forecast.at(packets_per_second))
}

impl Forecast {
    /// What the limit's region for a family withstands, if there is one.
    pub fn of(limit: &Limit, family: Family) -> Option<Self> {
        let sets = limit.region(family).sets;
        let (unit, overflow) = (Unit::from_number(limit.unit)?, Overflow::from_number(limit.overflow)?);
        let cost = limit.price.cost(if unit == Unit::Bytes { FLOOD_FRAME } else { 1 });
        // No flood fills a region of open connections, where only who completes a handshake has a place, nor one of buckets
        // that sources share.
        if sets == 0 || cost == 0 || limit.is_concurrency() || limit.is_shared() {
            return None;
        }
        let busy_seconds = cost as f64 / (TICKS_PER_NANO as f64 * 1e9);
        let full_at = offered_at(FULL) * f64::from(sets) / busy_seconds;
        Some(Self { limit: name_str(&limit.name).to_owned(), unit, overflow, family, sets, busy_seconds, full_at })
    }

    /// How the region fares under a flood.
    pub fn at(&self, packets_per_second: f64) -> Load {
        let offered = packets_per_second * self.busy_seconds / f64::from(self.sets);
        let overflow = erlang_b(offered);
        Load { occupancy: offered * (1.0 - overflow) / WAYS as f64, overflow }
    }
}

/// The share of arrivals that find all open ways of a set busy, by Erlang's B formula.
fn erlang_b(offered: f64) -> f64 {
    (1..=OPEN_WAYS).fold(1.0, |blocked, servers| offered * blocked / (servers as f64 + offered * blocked))
}

/// The load at which [`erlang_b`] reaches `share`, by bisection: the formula rises everywhere.
fn offered_at(share: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1e6);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if erlang_b(middle) < share { low = middle } else { high = middle }
    }
    low
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packet = match self.unit {
            Unit::Packets => "packet",
            Unit::Bytes => "64-byte frame",
            Unit::Connections => "SYN",
        };
        let fate = match self.overflow {
            Overflow::Aggregate => "these share the bucket of their aggregate",
            Overflow::Refuse => "these are refused",
            Overflow::Admit => "these pass uncounted",
        };
        write!(
            f,
            "{} ({}): room for {} sources at once; one {packet} holds a place for {}, so a flood of {} {packet}s/s from \
             ever new sources leaves 1 % of them without one: {fate}",
            self.limit,
            family(self.family),
            grouped(u64::from(self.sets) * OPEN_WAYS as u64),
            seconds(self.busy_seconds),
            grouped(rounded(self.full_at)),
        )
    }
}

fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn family_name<S: Serializer>(value: &Family, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(family(*value))
}

/// A time with three digits and the unit that suits it.
fn seconds(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.1} s"),
        s if s >= 1e-3 => format!("{:.1} ms", s * 1e3),
        s if s >= 1e-6 => format!("{:.1} us", s * 1e6),
        s => format!("{:.1} ns", s * 1e9),
    }
}

/// A number with two significant digits.
#[expect(clippy::cast_sign_loss, reason = "rates of packets are not negative")]
fn rounded(number: f64) -> u64 {
    let step = 10f64.powf((number.max(1.0).log10().floor() - 1.0).max(0.0));
    ((number / step).floor() * step) as u64
}

/// A number with a space between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
