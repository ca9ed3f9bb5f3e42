//! Overrides: what some have of a limit instead of what all have.

use super::{
    document::Limit,
    guarantee::Guarantee,
    prefix::Prefix,
    units::{Quantity, Rate},
};
use serde::Serialize;
use throttle_common::words::Unit;
use utoipa::ToSchema;

/// Other terms of a limit, for a tenant or for some sources. What it leaves out is as the limit says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Override {
    /// Whose: the tenant's, or, where each source has its own bucket, each of its sources'. Either this or `sources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Whose: each of these sources'; only where each source has its own bucket. Where prefixes overlap, the longest
    /// wins; over a tenant, any of them does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Prefix>,
    /// In the place of the limit's `rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// In the place of the limit's `concurrent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// In the place of the limit's `burst`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Quantity>,
    /// In the place of the limit's `guarantee`; `"0/s"` or `0` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<Guarantee>,
    /// In the place of the limit's `guarantee-burst`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarantee_burst: Option<Quantity>,
}

impl Override {
    /// Whom it is for, for people.
    pub fn whose(&self) -> String {
        match (&self.tenant, self.sources.as_slice()) {
            (Some(tenant), _) => format!("tenant {tenant}"),
            (None, [source]) => source.to_string(),
            (None, [source, others @ ..]) => format!("{source} and {} more", others.len()),
            (None, []) => "nobody".to_owned(),
        }
    }

    /// Whether it is for the same as another.
    pub fn is_for(&self, other: &Self) -> bool {
        self.tenant == other.tenant && self.sources == other.sources
    }
}

impl Limit {
    /// What the limit is to those whom an override is for.
    #[must_use]
    pub fn with(&self, terms: &Override) -> Self {
        Self {
            name: self.name.clone(),
            service: self.service.clone(),
            rate: terms.rate.or(self.rate),
            concurrent: terms.concurrent.or(self.concurrent),
            burst: terms.burst.or(self.burst),
            guarantee: terms.guarantee.or(self.guarantee),
            guarantee_burst: terms.guarantee_burst.or(self.guarantee_burst),
            overrides: Vec::new(),
            ..*self
        }
    }

    /// The same with units in its rates, where they are of bytes and earlier versions took them without.
    #[must_use]
    pub(super) fn with_units(mut self) -> Self {
        if self.unit == Unit::Bytes {
            let guarantees = self.overrides.iter_mut().map(|it| &mut it.guarantee).chain([&mut self.guarantee]);
            guarantees.for_each(|it| *it = it.map(Guarantee::of_bytes));
            let rates = self.overrides.iter_mut().map(|it| &mut it.rate).chain([&mut self.rate]);
            rates.for_each(|it| *it = it.map(Rate::of_bytes));
        }
        self
    }

    /// Whether it, or one of its overrides, guarantees something.
    pub fn guarantees(&self) -> bool {
        self.guarantee.is_some() || self.overrides.iter().any(|it| it.guarantee.is_some())
    }

    /// What tenants have of it that an override is for.
    pub(super) fn by_tenant(&self) -> impl Iterator<Item = (&str, Self)> {
        self.overrides.iter().filter_map(|it| Some((it.tenant.as_deref()?, self.with(it))))
    }
}
