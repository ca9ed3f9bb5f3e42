//! Which flood a limit withstands: how full its region is, and how many new sources find no place in it.
//!
//! A packet of a new source keeps a slot busy for as long as it costs. In each set three slots are open to any source,
//! and a flood from random addresses falls on the sets evenly: each is a loss system with Poisson arrivals, three
//! servers and no queue (Erlang 1917). A window keeps all its slots until it ends, one that slides until the next has
//! ended: there each window is a draw of new sources for the slots that the one before has left. What finds no place
//! meets the limit's overflow rule.

use super::layout::Compiled;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use throttle_common::{
    gcra::TICKS_PER_NANO,
    packet::Family,
    records::{Limit, name_str},
    table::{OPEN_WAYS, WAYS},
    words::{Algorithm, Overflow, Unit},
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
    /// How it decides: in windows a slot is busy until the window ends, or, where they slide, the next one.
    #[serde(with = "super::word")]
    #[schema(schema_with = super::word::schema::<Algorithm>)]
    pub algorithm: Algorithm,
    /// What becomes of sources without a place.
    #[serde(with = "super::word")]
    #[schema(schema_with = super::word::schema::<Overflow>)]
    pub overflow: Overflow,
    /// `ipv4` or `ipv6`.
    #[serde(serialize_with = "family_name")]
    #[schema(value_type = String)]
    pub family: Family,
    /// Sets that sources of no tenant have in the region, of four slots each.
    pub sets: u32,
    /// Those that the sources of one tenant have, where it is divided among tenants.
    pub tenant_sets: Option<u32>,
    /// How long one packet of a new source keeps a slot busy; at the beginning of a window, where it counts in such.
    pub busy_seconds: f64,
    /// The flood from ever new sources, in packets each second, at which one in a hundred finds no place.
    pub full_at: f64,
}

/// How a region fares under a flood.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Load {
    /// The share of all slots that are busy, 0 to 0.75: the fourth is kept for proven sources. At the end of a window,
    /// where it counts in such.
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
        let mut compartments = limit.region(family).divided().map(|(_, compartment)| compartment.sets);
        let (sets, tenant_sets) = (compartments.next()?, compartments.next());
        let (unit, overflow) = (Unit::from_number(limit.unit)?, Overflow::from_number(limit.overflow)?);
        let cost = limit.price.cost(if unit == Unit::Bytes { FLOOD_FRAME } else { 1 });
        // No flood fills a region of open connections, where only who completes a handshake has a place, nor one of buckets
        // that sources share.
        if sets == 0 || cost == 0 || limit.is_concurrency() || limit.is_shared() {
            return None;
        }
        let algorithm = Algorithm::from_number(limit.algorithm)?;
        let busy = match algorithm {
            Algorithm::FixedWindow => limit.window,
            Algorithm::SlidingWindow => 2 * limit.window,
            _ => cost,
        };
        let busy_seconds = busy as f64 / (TICKS_PER_NANO as f64 * 1e9);
        let limit = name_str(&limit.name).to_owned();
        let forecast = Self { limit, unit, algorithm, overflow, family, sets, tenant_sets, busy_seconds, full_at: 0.0 };
        let full_at = forecast.offered_at(FULL) * f64::from(sets) / forecast.draw_seconds();
        Some(Self { full_at, ..forecast })
    }

    /// The same of the part that the sources of one tenant have to themselves, where the region is divided.
    pub fn of_a_tenant(&self) -> Option<Self> {
        let sets = self.tenant_sets?;
        let full_at = self.full_at * f64::from(sets) / f64::from(self.sets);
        Some(Self { sets, tenant_sets: None, full_at, ..self.clone() })
    }

    /// How the region fares under a flood.
    pub fn at(&self, packets_per_second: f64) -> Load {
        let offered = packets_per_second * self.draw_seconds() / f64::from(self.sets);
        let (busy, overflow) = self.fare(offered);
        Load { occupancy: busy / WAYS as f64, overflow }
    }

    /// The time over which arrivals at a set are added up.
    fn draw_seconds(&self) -> f64 {
        if self.algorithm == Algorithm::SlidingWindow { self.busy_seconds / 2.0 } else { self.busy_seconds }
    }

    /// Busy slots of a set, and the share of arrivals without one, where so many arrive in [`Forecast::draw_seconds`].
    fn fare(&self, offered: f64) -> (f64, f64) {
        match self.algorithm {
            Algorithm::FixedWindow => windows(offered, false),
            Algorithm::SlidingWindow => windows(offered, true),
            _ => {
                let blocked = erlang_b(offered);
                (offered * (1.0 - blocked), blocked)
            }
        }
    }

    /// The load at which that share is reached, by bisection: it rises everywhere.
    fn offered_at(&self, share: f64) -> f64 {
        let (mut low, mut high) = (0.0, 1e6);
        for _ in 0..100 {
            let middle = f64::midpoint(low, high);
            if self.fare(middle).1 < share { low = middle } else { high = middle }
        }
        low
    }
}

/// Busy slots of a set at the end of a window, and the share of arrivals without one, where so many arrive in a window
/// (Poisson); `keeps` where the slots of a window are busy through the next.
fn windows(offered: f64, keeps: bool) -> (f64, f64) {
    if offered == 0.0 {
        return (0.0, 0.0);
    }
    // The chance of each number of arrivals that leaves an open slot.
    let mut chances = [0.0; OPEN_WAYS];
    (0..OPEN_WAYS).fold((-offered).exp(), |chance, arrivals| {
        chances[arrivals] = chance;
        chance * offered / (arrivals + 1) as f64
    });
    // The chance that a window takes so many slots of those that are left to it.
    let takes = |taken: usize, left: usize| match taken {
        taken if taken < left => chances[taken],
        taken if taken == left => 1.0 - chances[..left].iter().sum::<f64>(),
        _ => 0.0,
    };
    // How many the window before has kept. Half of each step stands still, so that the chain settles whatever its period.
    let mut kept = [0.0; OPEN_WAYS + 1];
    kept[0] = 1.0;
    for _ in 0..if keeps { 500 } else { 0 } {
        let next = |taken: usize| (0..=OPEN_WAYS).map(|held| kept[held] * takes(taken, OPEN_WAYS - held)).sum::<f64>();
        kept = std::array::from_fn(|taken| f64::midpoint(kept[taken], next(taken)));
    }
    let placed: f64 = (0..=OPEN_WAYS)
        .flat_map(|held| (0..=OPEN_WAYS - held).map(move |taken| (held, taken)))
        .map(|(held, taken)| kept[held] * takes(taken, OPEN_WAYS - held) * taken as f64)
        .sum();
    (if keeps { 2.0 * placed } else { placed }, (1.0 - placed / offered).max(0.0))
}

/// The share of arrivals that find all open ways of a set busy, by Erlang's B formula.
fn erlang_b(offered: f64) -> f64 {
    (1..=OPEN_WAYS).fold(1.0, |blocked, servers| offered * blocked / (servers as f64 + offered * blocked))
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
            "{} ({}): room for {} sources at once; one {packet} holds a place {}, so a flood of {} {packet}s/s from \
             ever new sources leaves 1 % of them without one: {fate}",
            self.limit,
            family(self.family),
            grouped(u64::from(self.sets) * OPEN_WAYS as u64),
            match self.algorithm {
                Algorithm::FixedWindow => format!("until its window of {} ends", seconds(self.draw_seconds())),
                Algorithm::SlidingWindow => {
                    format!("until the window of {} after its own ends", seconds(self.draw_seconds()))
                }
                _ => format!("for {}", seconds(self.busy_seconds)),
            },
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
