//! A port or a range of ports.

use super::fault::Fault;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, ops::RangeInclusive, str::FromStr};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, OneOfBuilder, Schema, Type},
    },
};

/// Ports from the first to the last, both included; neither is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports from `first` to `last`.
    pub fn new(first: u64, last: u64) -> Result<Self, Fault> {
        let port = |number: u64| {
            u16::try_from(number)
                .ok()
                .filter(|&port| port > 0)
                .ok_or_else(|| Fault::new(format!("{number} is no port"), "write a number from 1 to 65535"))
        };
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            let reason = format!("the range {first}-{last} is the wrong way round");
            return Err(Fault::new(reason, format!("write \"{last}-{first}\"")));
        }
        Ok(Self { first, last })
    }

    /// One port, which is not 0.
    pub(super) const fn of(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Every port of it.
    pub fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// Whether a port is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl FromStr for PortRange {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let number = |text: &str| {
            let wrong = |_| Fault::new(format!("`{text}` is no port"), "write 80 or \"8000-8080\"");
            text.trim().parse().map_err(wrong)
        };
        match text.split_once('-') {
            Some(("", _)) => Err(Fault::new(format!("`{text}` is negative"), "write 80 or \"8000-8080\"")),
            Some((first, last)) => Self::new(number(first)?, number(last)?),
            None => number(text).and_then(|port| Self::new(port, port)),
        }
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.first == self.last { serializer.serialize_u16(self.first) } else { serializer.collect_str(self) }
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(port) => Self::new(port, port),
            Written::Text(text) => text.parse(),
        }
        .map_err(D::Error::custom)
    }
}

impl PartialSchema for PortRange {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .item(ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(65_535)))
            .item(ObjectBuilder::new().schema_type(Type::String).examples(["8000-8080"]))
            .into()
    }
}

impl ToSchema for PortRange {}
