//! How much: a bare number, or bits or bytes with a scale.

use crate::policy::fault::Fault;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, OneOfBuilder, Schema, Type},
    },
};

/// An amount of packets, connections, bits or bytes, as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity {
    amount: u64,
    scale: Scale,
}

/// What the amount of a [`Quantity`] is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The unit of the limit.
    One,
    /// Bits, by 1000.
    Bit,
    /// 1000 bits.
    Kbit,
    /// 10^6 bits.
    Mbit,
    /// 10^9 bits.
    Gbit,
    /// Bytes.
    Byte,
    /// 1000 bytes.
    KB,
    /// 10^6 bytes.
    MB,
    /// 10^9 bytes.
    GB,
    /// 1024 bytes.
    KiB,
    /// 1024^2 bytes.
    MiB,
    /// 1024^3 bytes.
    GiB,
}

/// Every scale that has a suffix, with its bits.
const SUFFIXES: [(Scale, &str, u64); 11] = [
    (Scale::Bit, "bit", 1),
    (Scale::Kbit, "Kbit", 1_000),
    (Scale::Mbit, "Mbit", 1_000_000),
    (Scale::Gbit, "Gbit", 1_000_000_000),
    (Scale::Byte, "B", 8),
    (Scale::KB, "KB", 8_000),
    (Scale::MB, "MB", 8_000_000),
    (Scale::GB, "GB", 8_000_000_000),
    (Scale::KiB, "KiB", 8 << 10),
    (Scale::MiB, "MiB", 8 << 20),
    (Scale::GiB, "GiB", 8 << 30),
];

impl Quantity {
    /// The largest amount: what TOML's integers and 64 bits of a price hold with ease.
    pub const MAX: u64 = 1_000_000_000_000_000;

    /// A bare number.
    pub const fn bare(amount: u64) -> Self {
        Self { amount, scale: Scale::One }
    }

    /// A number with a scale.
    pub const fn new(amount: u64, scale: Scale) -> Self {
        Self { amount, scale }
    }

    /// The number as written.
    pub const fn amount(self) -> u64 {
        self.amount
    }

    /// The scale as written.
    pub const fn scale(self) -> Scale {
        self.scale
    }

    /// How many bits it is; a bare number counts bytes.
    pub fn bits(self) -> u128 {
        let scale = SUFFIXES.iter().find(|(scale, ..)| *scale == self.scale).map_or(8, |&(.., bits)| bits);
        u128::from(self.amount) * u128::from(scale)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = SUFFIXES.iter().find(|(scale, ..)| *scale == self.scale).map_or("", |&(_, suffix, _)| suffix);
        write!(f, "{}{suffix}", self.amount)
    }
}

impl FromStr for Quantity {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        if text.starts_with('-') {
            return Err(Fault::new(format!("`{text}` is negative"), "write a number above 0, as in 50 or 64KiB"));
        }
        if number.is_empty() {
            return Err(Fault::new(format!("`{text}` does not start with a number"), "write it as in 50 or 64KiB"));
        }
        if suffix.starts_with(['.', ',']) {
            let remedy = "write a whole number, of a smaller unit if need be: 1500KB, not 1.5MB";
            return Err(Fault::new(format!("`{text}` is no whole number"), remedy));
        }
        let amount = number.replace('_', "").parse().ok().filter(|&amount| amount <= Self::MAX);
        let Some(amount) = amount else {
            return Err(Fault::new(
                format!("`{number}` is too large a number"),
                format!("write at most {}", Self::MAX),
            ));
        };
        let suffix = suffix.trim_start();
        if suffix.is_empty() {
            return Ok(Self::bare(amount));
        }
        SUFFIXES
            .iter()
            .find(|(_, name, _)| same_suffix(name, suffix))
            .map(|&(scale, ..)| Self { amount, scale })
            .ok_or_else(|| {
                let remedy = "write bit, Kbit, Mbit, Gbit, B, KB, MB, GB (by 1000), KiB, MiB or GiB (by 1024)";
                Fault::new(format!("`{suffix}` is no unit of size"), remedy)
            })
    }
}

/// `k` may stand for `K`; but `b` never for `B`, because one person's `Mb` is bits and the next one's bytes.
fn same_suffix(name: &str, text: &str) -> bool {
    name.eq_ignore_ascii_case(text) && name.ends_with('B') == text.ends_with('B')
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.scale == Scale::One { serializer.serialize_u64(self.amount) } else { serializer.collect_str(self) }
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(amount) => amount.to_string().parse(),
            Written::Text(text) => text.parse(),
        }
        .map_err(serde::de::Error::custom)
    }
}

impl PartialSchema for Quantity {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .item(ObjectBuilder::new().schema_type(Type::Integer).examples([50]))
            .item(ObjectBuilder::new().schema_type(Type::String).examples(["64KiB"]))
            .into()
    }
}

impl ToSchema for Quantity {}
