//! Which events a reader wants.

use std::{collections::BTreeSet, fmt::Display, str::FromStr};

use ipnet::IpNet;
use throttle_common::words::{Outcome, Reason};

use crate::{
    api::wire::{Event, EventFilter, Problem, ProblemKind},
    policy::{Prefix, word::one_of},
};

/// A filter, read: see [`EventFilter`] for what it means.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    source: Terms<IpNet>,
    limit: Terms<String>,
    service: Terms<String>,
    reason: Terms<String>,
    outcome: Terms<String>,
}

/// The names that events can bear: of what policy has now, and of what the events that are kept remember.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// Of limits.
    pub limits: BTreeSet<String>,
    /// Of services.
    pub services: BTreeSet<String>,
}

/// The items of one field.
#[derive(Clone, Debug)]
struct Terms<T> {
    wanted: Vec<T>,
    unwanted: Vec<T>,
}

impl<T> Default for Terms<T> {
    fn default() -> Self {
        Self { wanted: Vec::new(), unwanted: Vec::new() }
    }
}

impl<T> Terms<T> {
    fn read(field: Option<&str>, read: impl Fn(&str) -> Result<T, Problem>) -> Result<Self, Problem> {
        let mut terms = Self::default();
        for item in field.into_iter().flat_map(|field| field.split(',')).map(str::trim).filter(|item| !item.is_empty())
        {
            match item.strip_prefix('!') {
                Some(item) => terms.unwanted.push(read(item.trim())?),
                None => terms.wanted.push(read(item)?),
            }
        }
        Ok(terms)
    }

    fn pass(&self, matches: impl Fn(&T) -> bool) -> bool {
        (self.wanted.is_empty() || self.wanted.iter().any(&matches)) && !self.unwanted.iter().any(matches)
    }
}

impl Terms<String> {
    /// Reads names, each of which must be among those that an event can have.
    fn words(what: &str, field: Option<&str>, names: &[&str]) -> Result<Self, Problem> {
        Self::read(field, |item| {
            if names.contains(&item) {
                return Ok(item.to_owned());
            }
            let remedy = if names.is_empty() { "there are none".to_owned() } else { one_of(item, names) };
            Err(Problem::new(ProblemKind::Malformed, format!("no event is of a {what} `{item}`; {remedy}")))
        })
    }

    fn pass_name(&self, name: Option<&str>) -> bool {
        self.pass(|term| name == Some(term.as_str()))
    }
}

impl Filter {
    /// Reads a query; a word that no event can have is refused, for it would only ever show nothing.
    pub fn read(query: &EventFilter, named: &Named) -> Result<Self, Problem> {
        let reasons: Vec<_> = Reason::ALL.iter().map(|word| word.name()).collect();
        let outcomes: Vec<_> = Outcome::ALL.iter().map(|word| word.name()).collect();
        let limits: Vec<_> = named.limits.iter().map(String::as_str).collect();
        let services: Vec<_> = named.services.iter().map(String::as_str).collect();
        Ok(Self {
            source: Terms::read(query.source.as_deref(), |item| parse::<Prefix>("source", item).map(Prefix::net))?,
            limit: Terms::words("limit", query.limit.as_deref(), &limits)?,
            service: Terms::words("service", query.service.as_deref(), &services)?,
            reason: Terms::words("reason", query.reason.as_deref(), &reasons)?,
            outcome: Terms::words("outcome", query.outcome.as_deref(), &outcomes)?,
        })
    }

    /// Whether the reader wants this event.
    pub fn pass(&self, event: &Event) -> bool {
        self.source.pass(|prefix| event.source.is_some_and(|source| prefix.contains(&source)))
            && self.limit.pass_name(event.limit.as_deref())
            && self.service.pass_name(event.service.as_deref())
            && self.reason.pass_name(Some(&event.reason))
            && self.outcome.pass_name(Some(&event.outcome))
    }
}

fn parse<T: FromStr<Err: Display>>(field: &str, item: &str) -> Result<T, Problem> {
    item.parse().map_err(|error| Problem::new(ProblemKind::Malformed, format!("{field}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(source: &str, limit: Option<&str>) -> Event {
        Event {
            time: jiff::Timestamp::UNIX_EPOCH,
            reason: "source-limit".to_owned(),
            outcome: "drop".to_owned(),
            source: Some(source.parse().unwrap()),
            destination: None,
            source_port: None,
            destination_port: None,
            protocol: None,
            limit: limit.map(str::to_owned),
            service: None,
            interface: "eth0".to_owned(),
            length: 60,
        }
    }

    fn filter(source: &str, limit: &str, reason: &str) -> Filter {
        let query = EventFilter {
            source: Some(source.to_owned()),
            limit: Some(limit.to_owned()),
            reason: Some(reason.to_owned()),
            ..EventFilter::default()
        };
        Filter::read(&query, &named()).unwrap()
    }

    fn named() -> Named {
        Named { limits: ["a", "b"].map(str::to_owned).into(), services: BTreeSet::new() }
    }

    #[test]
    fn an_empty_filter_passes_everything() {
        assert!(Filter::default().pass(&event("192.0.2.7", None)));
        assert!(filter("", "", "").pass(&event("192.0.2.7", None)));
    }

    #[test]
    fn a_term_turned_round_takes_away_from_what_is_wanted() {
        let filter = filter("192.0.2.0/24,!192.0.2.7", "", "");
        assert!(filter.pass(&event("192.0.2.8", None)));
        assert!(!filter.pass(&event("192.0.2.7", None)));
        assert!(!filter.pass(&event("198.51.100.1", None)));
    }

    #[test]
    fn an_event_without_the_field_matches_no_term() {
        assert!(!filter("", "a", "").pass(&event("192.0.2.7", None)));
        assert!(filter("", "!a", "").pass(&event("192.0.2.7", None)));
        assert!(!filter("", "!a", "").pass(&event("192.0.2.7", Some("a"))));
    }

    #[test]
    fn every_field_must_agree() {
        assert!(filter("192.0.2.0/24", "a,b", "source-limit").pass(&event("192.0.2.7", Some("b"))));
        assert!(!filter("192.0.2.0/24", "a,b", "blocked").pass(&event("192.0.2.7", Some("b"))));
    }

    #[test]
    fn a_word_that_cannot_occur_is_refused() {
        let query = EventFilter { reason: Some("source-limits".to_owned()), ..EventFilter::default() };
        let detail = |query: &EventFilter| Filter::read(query, &named()).unwrap_err().detail;
        assert!(detail(&query).ends_with("did you mean `source-limit`?"));
        let query = EventFilter { source: Some("192.0.2.300".to_owned()), ..EventFilter::default() };
        assert!(detail(&query).starts_with("source: "));
        let query = EventFilter { limit: Some("a,!nosuch".to_owned()), ..EventFilter::default() };
        assert_eq!(detail(&query), "no event is of a limit `nosuch`; write one of `a`, `b`");
        let query = EventFilter { service: Some("web".to_owned()), ..EventFilter::default() };
        assert_eq!(detail(&query), "no event is of a service `web`; there are none");
    }
}
