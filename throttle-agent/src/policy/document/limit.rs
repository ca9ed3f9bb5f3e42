//! Limits: bounds on what a source may do, or all that share a bucket.

use super::{Mode, Penalty, default};
use crate::policy::{
    guarantee::Guarantee,
    overrides::Override,
    units::{Quantity, Rate},
    word,
};
use serde::Serialize;
use throttle_common::words::{Action, Algorithm, Overflow, Per, Unit};
use utoipa::ToSchema;

/// Bytes of the largest frames, such as devices make of several that they join; a bucket that holds fewer never lets one pass.
pub(in crate::policy) const LARGEST_FRAME: u64 = 64 << 10;

/// A bound on what a source may do, or all that share a bucket.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Limit {
    /// Unique among limits, as for services. What the limit remembers of sources is kept by this name.
    pub name: String,
    /// The service whose packets it counts. Default: every packet of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What it counts: `packets`, `bytes` of whole frames, or TCP `connections`: new ones at a `rate`, or those that are
    /// open at once (`concurrent`).
    #[serde(with = "word")]
    #[schema(schema_with = word::schema::<Unit>)]
    pub unit: Unit,
    /// What a source may do in the long run: `1000/s`, `50/min`, `10Mbit/s`. Either this or `concurrent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// How many connections it may have open at once. Either this or `rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// How it decides: by a `token-bucket`, a `leaky-bucket` without a burst, in a `fixed-window` or a `sliding-window` as
    /// long as the rate's period; `concurrency` with `concurrent`. Default `token-bucket`.
    #[serde(default = "default::algorithm", with = "word")]
    #[schema(schema_with = word::schema::<Algorithm>)]
    pub algorithm: Algorithm,
    /// Who shares what it allows: each `source` by itself, the sources of a `tenant`, all of the `service`, or all of the
    /// `host`. Default `source`.
    #[serde(default = "default::per", with = "word")]
    #[schema(schema_with = word::schema::<Per>)]
    pub per: Per,
    /// What it may do at once, where it is a token bucket. Default: the amount that the rate names, for bytes at least 64
    /// KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Quantity>,
    /// What each tenant or the service always has of it, whatever others do; the rest of it is lent to whoever wants it,
    /// and back at once: `100/s`. Of open connections a number, which is reserved and never lent. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<Guarantee>,
    /// What of the guarantee may be used at once. Default: what it names, but no more than the limit admits at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarantee_burst: Option<Quantity>,
    /// `drop` refuses without a word; `reject` tells the sender. Default `drop`.
    #[serde(default = "default::action", with = "word")]
    #[schema(schema_with = word::schema::<Action>)]
    pub action: Action,
    /// `observe` only counts what this limit would refuse. Default `enforce`; the host's `observe` wins.
    #[serde(default = "default::mode")]
    pub mode: Mode,
    /// What becomes of a source that it refuses again and again: a block that ends. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub penalty: Option<Penalty>,
    /// What becomes of a source that the table has no room for: it shares its `aggregate`'s bucket, is `refuse`d, or
    /// is `admit`ted uncounted. Default `aggregate`.
    #[serde(default = "default::overflow", with = "word")]
    #[schema(schema_with = word::schema::<Overflow>)]
    pub overflow: Overflow,
    /// The bits of an address that make a source: 1 to 32 and 1 to 128. Default 32 and 64.
    #[serde(default = "default::prefix")]
    pub prefix: Lengths,
    /// The bits of an address that make an aggregate, less than `prefix` and at most 64. Default 24 and 48.
    #[serde(default = "default::aggregate")]
    pub aggregate: Lengths,
    /// How many sources of each family to have room for, at 24 bytes of kernel memory each, 48 where windows slide.
    /// `throttle policy check` shows the flood that fills it. Default 196608.
    #[serde(default = "default::sources")]
    pub sources: u32,
    /// What single tenants or sources have of it instead.
    #[serde(default, rename = "override", skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
}

/// Lengths of a prefix in both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Lengths {
    /// In bits of an IPv4 address.
    pub ipv4: u8,
    /// In bits of an IPv6 address.
    pub ipv6: u8,
}

impl Limit {
    /// A limit on a rate that says only what it must; the rest is the default.
    pub fn new(name: impl Into<String>, unit: Unit, rate: Rate) -> Self {
        Self { rate: Some(rate), ..Self::unbounded(name.into(), unit) }
    }

    /// A limit on open connections that says only what it must.
    pub fn concurrent(name: impl Into<String>, connections: u32) -> Self {
        let algorithm = Algorithm::Concurrency;
        Self { concurrent: Some(connections), algorithm, ..Self::unbounded(name.into(), Unit::Connections) }
    }

    fn unbounded(name: String, unit: Unit) -> Self {
        Self {
            name,
            service: None,
            unit,
            rate: None,
            concurrent: None,
            algorithm: default::algorithm(),
            per: default::per(),
            burst: None,
            action: default::action(),
            mode: default::mode(),
            penalty: None,
            overflow: default::overflow(),
            prefix: default::prefix(),
            aggregate: default::aggregate(),
            sources: default::sources(),
            guarantee: None,
            guarantee_burst: None,
            overrides: Vec::new(),
        }
    }

    /// What a source may do at once, in the limit's unit.
    pub fn burst_units(&self) -> u64 {
        let due = self.rate.map_or_else(|| self.concurrent.unwrap_or_default().into(), |rate| rate.units(self.unit));
        match (self.algorithm, self.unit) {
            // One unit; of bytes, one frame.
            (Algorithm::LeakyBucket, Unit::Bytes) => return LARGEST_FRAME,
            (Algorithm::LeakyBucket, _) => return 1,
            (Algorithm::FixedWindow | Algorithm::SlidingWindow, _) => return due,
            (Algorithm::TokenBucket | Algorithm::Concurrency, _) => {}
        }
        match (self.burst, self.unit) {
            (Some(burst), Unit::Bytes) => u64::try_from(burst.bits() / 8).unwrap_or(u64::MAX),
            (Some(burst), _) => burst.amount(),
            (None, Unit::Bytes) => due.max(LARGEST_FRAME),
            (None, _) => due,
        }
    }

    /// What it allows, for people: `50/min` or `50 at once`.
    pub fn allowance(&self) -> String {
        match (self.rate, self.concurrent) {
            (Some(rate), _) => rate.to_string(),
            (None, concurrent) => format!("{} at once", concurrent.unwrap_or_default()),
        }
    }
}
