//! What a tenant or a service has of a limit whatever others do.

use super::{
    document::{LARGEST_FRAME, Limit},
    fault::Fault,
    overrides::Override,
    units::{Quantity, Rate, Scale},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};
use throttle_common::words::{Algorithm, Per, Unit};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, OneOfBuilder, Schema, Type},
    },
};

/// How much is guaranteed: of a limit on a rate a rate, of one on open connections their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// So much in so long.
    Rate(Rate),
    /// So many open at once.
    Connections(u32),
}

/// What follows the name of a limit in that of its guarantee. No name that anybody writes has a colon.
pub(super) const SUFFIX: &str = ":guarantee";

impl Limit {
    /// Its guarantee as a limit of its own.
    pub(super) fn guaranteed(&self) -> Option<Self> {
        let guarantee = self.guarantee?;
        let (rate, concurrent, algorithm, burst) = match guarantee {
            Guarantee::Rate(rate) => (Some(rate), None, Algorithm::TokenBucket, Some(self.guaranteed_burst(rate))),
            Guarantee::Connections(connections) => (None, Some(connections), Algorithm::Concurrency, None),
        };
        let (guarantee, guarantee_burst) = (None, None);
        Some(Self { rate, concurrent, algorithm, burst, guarantee, guarantee_burst, ..self.beside() })
    }

    /// What it allows and what it guarantees, for people: `50/min, 10/min guaranteed`.
    pub fn allowance_with_guarantee(&self) -> String {
        let guarantee = self.guarantee.map_or_else(String::new, |guarantee| format!(", {guarantee} guaranteed"));
        self.allowance() + &guarantee
    }

    /// The name of its guarantee in the kernel.
    pub fn guarantee_name(&self) -> String {
        format!("{}{SUFFIX}", self.name)
    }

    /// The name and the kind of its guarantee in the kernel, also where only overrides guarantee something.
    pub(super) fn beside(&self) -> Self {
        let name = self.guarantee_name();
        let algorithm = if self.concurrent.is_some() { Algorithm::Concurrency } else { Algorithm::TokenBucket };
        Self { name, algorithm, ..self.with(&Override::default()) }
    }

    /// How many share what it allows, from each source by itself to all: guarantees pass the limits that are as wide as
    /// theirs, or wider. A tenant's part of a service is narrower than its part of the host.
    pub(super) fn reach(&self) -> u8 {
        match (self.per, &self.service) {
            (Per::Source, _) => 0,
            (Per::Tenant, Some(_)) => 1,
            (Per::Tenant, None) => 2,
            (Per::Service, _) => 3,
            (Per::Host, _) => 4,
        }
    }

    /// What of the guarantee may be used at once. By default what it names, but no more than the limit admits at once.
    fn guaranteed_burst(&self, rate: Rate) -> Quantity {
        let due = rate.units(self.unit);
        let amount = if self.unit == Unit::Bytes { due.max(LARGEST_FRAME) } else { due }.min(self.burst_units());
        let scale = if self.unit == Unit::Bytes { Scale::Byte } else { Scale::One };
        self.guarantee_burst.unwrap_or(Quantity::new(amount, scale))
    }

    /// How much is guaranteed: bits a day, of which a packet or connection counts as eight, or connections.
    pub(super) fn guaranteed_amount(&self) -> u128 {
        match self.guarantee {
            None => 0,
            Some(Guarantee::Rate(rate)) => rate.a_day(),
            Some(Guarantee::Connections(connections)) => connections.into(),
        }
    }

    /// Likewise, how much it allows.
    pub(super) fn amount(&self) -> u128 {
        self.rate.map_or_else(|| self.concurrent.unwrap_or_default().into(), Rate::a_day)
    }
}

impl Guarantee {
    /// The same with its unit, where it is one of bytes.
    pub(super) fn of_bytes(self) -> Self {
        match self {
            Self::Rate(rate) => Self::Rate(rate.of_bytes()),
            Self::Connections(_) => self,
        }
    }
}

impl FromStr for Guarantee {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        text.parse().map(Self::Connections).or_else(|_| text.parse().map(Self::Rate))
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => rate.fmt(f),
            Self::Connections(connections) => connections.fmt(f),
        }
    }
}

impl Serialize for Guarantee {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Rate(rate) => rate.serialize(serializer),
            Self::Connections(connections) => connections.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Guarantee {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u32),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(connections) => Ok(Self::Connections(connections)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl PartialSchema for Guarantee {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .item(ObjectBuilder::new().schema_type(Type::String).examples(["1000/s"]))
            .item(ObjectBuilder::new().schema_type(Type::Integer).examples([20]))
            .into()
    }
}

impl ToSchema for Guarantee {}
