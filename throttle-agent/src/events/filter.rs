//! Which events a reader wants.

use std::{fmt::Display, str::FromStr};

use ipnet::IpNet;
use throttle_common::words::{Outcome, Reason};

use crate::{
    api::wire::{Event, EventFilter, Problem, ProblemKind},
    policy::Prefix,
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
    fn pass_name(&self, name: Option<&str>) -> bool {
        self.pass(|term| name == Some(term.as_str()))
    }
}

impl Filter {
    /// Reads a query; a word that no event can have is refused, for it would only ever show nothing.
    pub fn read(query: &EventFilter) -> Result<Self, Problem> {
        let name = |item: &str| Ok(item.to_owned());
        Ok(Self {
            source: Terms::read(query.source.as_deref(), |item| parse::<Prefix>("source", item).map(Prefix::net))?,
            limit: Terms::read(query.limit.as_deref(), name)?,
            service: Terms::read(query.service.as_deref(), name)?,
            reason: Terms::read(query.reason.as_deref(), |item| {
                word("reason", item, Reason::from_name(item).is_some(), Reason::ALL.iter().map(|word| word.name()))
            })?,
            outcome: Terms::read(query.outcome.as_deref(), |item| {
                word("outcome", item, Outcome::from_name(item).is_some(), Outcome::ALL.iter().map(|word| word.name()))
            })?,
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

fn word<'n>(field: &str, item: &str, known: bool, names: impl Iterator<Item = &'n str>) -> Result<String, Problem> {
    if known {
        return Ok(item.to_owned());
    }
    let names = names.collect::<Vec<_>>().join(", ");
    Err(Problem::new(ProblemKind::Malformed, format!("{field}: `{item}` is none of {names}")))
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
        Filter::read(&query).unwrap()
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
        assert!(Filter::read(&query).unwrap_err().detail.contains("source-limit"));
        let query = EventFilter { source: Some("192.0.2.300".to_owned()), ..EventFilter::default() };
        assert!(Filter::read(&query).is_err());
    }
}
