//! A change of one limit.

use super::{PenaltyChange, replace};
use crate::policy::{
    check::rate_and_concurrent,
    document::{Lengths, Limit, Mode},
    edit::EditError,
    fault::Fault,
    guarantee::Guarantee,
    units::{Quantity, Rate},
    word,
};
use serde::{Deserialize, Serialize};
use throttle_common::words::{Action, Algorithm, Overflow, Per, Unit};
use utoipa::ToSchema;

/// What becomes of a limit. One that is not there yet needs a `unit` and a `rate`, or `concurrent`.
///
/// What would contradict what is named goes: a rate ends the counting of open connections and the other way round, another
/// unit forgets the burst, and aggregates stay larger than sources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LimitChange {
    /// What it counts. Another unit needs another `rate`.
    #[serde(with = "word::optional", skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = word::schema::<Unit>)]
    pub unit: Option<Unit>,
    /// What it allows in the long run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// How many connections may be open at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// How it decides.
    #[serde(with = "word::optional", skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = word::schema::<Algorithm>)]
    pub algorithm: Option<Algorithm>,
    /// Who shares what it allows.
    #[serde(with = "word::optional", skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = word::schema::<Per>)]
    pub per: Option<Per>,
    /// What it allows at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<Quantity>,
    /// What it always leaves to each tenant, or to the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<Guarantee>,
    /// What of that may be used at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guarantee_burst: Option<Quantity>,
    /// Whether it guarantees nothing any more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_guarantee: bool,
    /// The service whose packets it counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What becomes of what it refuses.
    #[serde(with = "word::optional", skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = word::schema::<Action>)]
    pub action: Option<Action>,
    /// Whether it refuses, or only counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// What becomes of a source that it refuses again and again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub penalty: Option<PenaltyChange>,
    /// Whether that is nothing any more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_penalty: bool,
    /// What becomes of a source that finds no place.
    #[serde(with = "word::optional", skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = word::schema::<Overflow>)]
    pub overflow: Option<Overflow>,
    /// The bits of an IPv4 address that make a source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_v4: Option<u8>,
    /// The bits of an IPv6 address that make a source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_v6: Option<u8>,
    /// How many sources of each family to have room for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<u32>,
}

impl LimitChange {
    /// The limit of that name, changed, or made where there is none.
    pub fn of(&self, name: &str, held: Option<&Limit>) -> Result<Limit, EditError> {
        let wrong = |fault: Fault| EditError::Wrong(fault.at(format!("limit `{name}`")));
        if self.rate.is_some() && self.concurrent.is_some() {
            return Err(wrong(rate_and_concurrent()));
        }
        let mut limit = match (held, self.unit, self.rate, self.concurrent) {
            (Some(held), ..) => held.clone(),
            (None, Some(unit), Some(rate), _) => Limit::new(name, unit, rate),
            (None, _, _, Some(connections)) => Limit::concurrent(name, connections),
            (None, ..) => {
                let reason = "there is none of that name yet, and a new one needs a unit with a rate, or `concurrent`";
                let remedy = format!("e.g. `throttle limit set {name} --unit packets --rate 1000/s`");
                return Err(wrong(Fault::new(reason, remedy)));
            }
        };
        if self.rate.is_some() {
            (limit.rate, limit.concurrent) = (self.rate, None);
            if limit.algorithm == Algorithm::Concurrency {
                limit.algorithm = Algorithm::TokenBucket;
            }
        }
        if self.concurrent.is_some() {
            (limit.unit, limit.rate, limit.burst, limit.concurrent) = (Unit::Connections, None, None, self.concurrent);
            limit.algorithm = Algorithm::Concurrency;
        }
        if let Some(algorithm) = self.algorithm {
            // Only a token bucket has a burst.
            limit.burst = limit.burst.filter(|_| algorithm == Algorithm::TokenBucket);
            limit.algorithm = algorithm;
        }
        if self.unit.is_some_and(|unit| unit != limit.unit) {
            if limit.concurrent.is_some() {
                let reason = "what is open at once is connections, and has no other unit";
                return Err(wrong(Fault::new(reason, "leave the unit out; for a rate name the unit and the rate")));
            }
            if self.rate.is_none() {
                return Err(wrong(Fault::new("a rate in another unit means nothing", "name the unit and the rate")));
            }
            // So does a burst.
            limit.burst = None;
        }
        self.replace(&mut limit);
        if let Some(change) = self.penalty {
            limit.penalty = Some(change.of(name, limit.penalty).map_err(wrong)?);
        }
        limit.penalty = limit.penalty.filter(|_| !self.no_penalty);
        Ok(limit)
    }

    /// Puts what is named in the place of what is there.
    fn replace(&self, limit: &mut Limit) {
        replace(&mut limit.unit, self.unit);
        replace(&mut limit.per, self.per);
        replace(&mut limit.action, self.action);
        replace(&mut limit.overflow, self.overflow);
        replace(&mut limit.sources, self.sources);
        replace(&mut limit.mode, self.mode);
        replace(&mut limit.prefix.ipv4, self.prefix_v4);
        replace(&mut limit.prefix.ipv6, self.prefix_v6);
        limit.aggregate = shorter(limit.aggregate, limit.prefix);
        limit.burst = self.burst.or(limit.burst);
        limit.guarantee = self.guarantee.or(limit.guarantee).filter(|_| !self.no_guarantee);
        limit.guarantee_burst = self.guarantee_burst.or(limit.guarantee_burst).filter(|_| !self.no_guarantee);
        if self.service.is_some() {
            limit.service.clone_from(&self.service);
        }
    }
}

/// Aggregates that are larger than the sources, so that another prefix needs no second word: 8 and 16 bits less.
fn shorter(aggregate: Lengths, prefix: Lengths) -> Lengths {
    let fit = |aggregate: u8, prefix: u8, step: u8| {
        if aggregate < prefix { aggregate } else { prefix.saturating_sub(step).max(1) }
    };
    Lengths { ipv4: fit(aggregate.ipv4, prefix.ipv4, 8), ipv6: fit(aggregate.ipv6, prefix.ipv6, 16) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn a_new_limit_needs_a_unit_and_a_rate() {
        let error = LimitChange::default().of("web", None).unwrap_err().to_string();
        assert!(error.starts_with("limit `web`: there is none of that name yet"), "{error}");
        let full = LimitChange {
            unit: Some(Unit::Packets),
            rate: Some(rate("10/s")),
            mode: Some(Mode::Observe),
            ..LimitChange::default()
        };
        let expected = Limit { mode: Mode::Observe, ..Limit::new("web", Unit::Packets, rate("10/s")) };
        assert_eq!(full.of("web", None).unwrap(), expected);
    }

    #[test]
    fn what_is_not_named_stays() {
        let held = Limit {
            service: Some("http".to_owned()),
            burst: Some(Quantity::bare(7)),
            mode: Mode::Observe,
            ..Limit::new("web", Unit::Connections, rate("50/min"))
        };
        let change = LimitChange { rate: Some(rate("60/min")), mode: Some(Mode::Enforce), ..LimitChange::default() };
        let changed = change.of("web", Some(&held)).unwrap();
        assert_eq!(changed, Limit { rate: Some(rate("60/min")), mode: Mode::Enforce, ..held });
    }

    #[test]
    fn another_unit_needs_another_rate_and_forgets_the_burst() {
        let held = Limit { burst: Some(Quantity::bare(7)), ..Limit::new("web", Unit::Packets, rate("10/s")) };
        let unit = LimitChange { unit: Some(Unit::Bytes), ..LimitChange::default() };
        assert!(matches!(unit.of("web", Some(&held)), Err(EditError::Wrong(_))));
        let both = LimitChange { rate: Some(rate("1MB/s")), ..unit };
        assert_eq!(both.of("web", Some(&held)).unwrap().burst, None);
    }

    #[test]
    fn what_is_open_at_once_has_no_other_unit() {
        let change = LimitChange { unit: Some(Unit::Packets), concurrent: Some(5), ..LimitChange::default() };
        let error = change.of("web", None).unwrap_err().to_string();
        assert!(error.contains("has no other unit") && error.contains("leave the unit out"), "{error}");
        let both = LimitChange { rate: Some(rate("10/s")), ..change.clone() };
        assert!(both.of("web", None).unwrap_err().to_string().contains("not both"));
        let unit = LimitChange { concurrent: None, ..change };
        let error = unit.of("web", Some(&Limit::concurrent("web", 5))).unwrap_err().to_string();
        assert!(error.contains("has no other unit"), "{error}");
    }

    #[test]
    fn the_aggregate_stays_larger_than_the_source() {
        let held = Limit::new("web", Unit::Packets, rate("10/s"));
        let change = LimitChange { prefix_v4: Some(24), prefix_v6: Some(48), ..LimitChange::default() };
        assert_eq!(change.of("web", Some(&held)).unwrap().aggregate, Lengths { ipv4: 16, ipv6: 32 });
    }

    #[test]
    fn a_change_is_read_as_it_is_written() {
        let change = LimitChange {
            unit: Some(Unit::Bytes),
            rate: Some(rate("1MB/s")),
            per: Some(Per::Tenant),
            no_guarantee: true,
            ..LimitChange::default()
        };
        let json = serde_json::to_string(&change).unwrap();
        assert_eq!(json, r#"{"unit":"bytes","rate":"1MB/s","per":"tenant","no-guarantee":true}"#);
        assert_eq!(serde_json::from_str::<LimitChange>(&json).unwrap(), change);
    }
}
