//! The penalty box: who is sentenced, for how long, and when that is forgotten.
//!
//! Pure: offences and the time come in, rulings come out. A source is sentenced under one limit at a time and by itself; its
//! first sentence lasts as long as policy says, each further one twice as long as the one before, up to a bound. Whoever has
//! not been sentenced for as long as that bound, counted from the end of its last sentence, is one that never was.
//!
//! What is remembered is bounded: where there is no room, whoever has been quiet for longest is forgotten first, and where
//! all that are remembered serve their time, nobody else is sentenced.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::policy::{Penalty, units::Span};

/// Sentences that are remembered, those that are being served included.
pub const MOST: usize = 1 << 16;

/// A source, as a limit sees it, and the limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offender {
    /// The source.
    pub prefix: IpNet,
    /// The limit's name.
    pub limit: String,
}

/// A sentence, served or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sentence {
    /// Which one it is, from 1 on.
    pub times: u32,
    /// When it began.
    pub since: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// When it is forgotten.
    pub forgotten: Timestamp,
    /// Whether it is only observed what would be: nobody is blocked.
    pub observed: bool,
}

/// What comes of an offence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// A sentence.
    Sentenced(Sentence),
    /// Nothing: one is being served.
    Serves,
    /// Nothing: as many are being served as there is room for.
    Full,
}

/// All sentences that are remembered.
#[derive(Clone, Debug)]
pub struct Book {
    held: BTreeMap<Offender, Sentence>,
    /// The same, by their ends.
    ends: BTreeSet<(Timestamp, Offender)>,
    most: usize,
}

impl Sentence {
    /// Why somebody is blocked, for people.
    pub fn reason(&self, limit: &str) -> String {
        format!("penalty: limit `{limit}`, {} time", ordinal(self.times))
    }
}

/// How long the sentence of that number lasts, from 1 on.
pub fn length(penalty: &Penalty, times: u32) -> Span {
    let doublings = times.saturating_sub(1).min(63);
    let millis = u128::from(penalty.block.millis()) << doublings;
    penalty.at_most.min(Span::of_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
}

/// `1st`, `2nd`, `3rd`, `4th`.
pub fn ordinal(number: u32) -> String {
    let suffix = match (number % 10, number % 100) {
        (1, rest) if rest != 11 => "st",
        (2, rest) if rest != 12 => "nd",
        (3, rest) if rest != 13 => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
}

impl Book {
    /// One that has room for so many.
    pub fn new(most: usize) -> Self {
        Self { held: BTreeMap::new(), ends: BTreeSet::new(), most }
    }

    /// Remembers a sentence.
    pub fn enter(&mut self, offender: Offender, sentence: Sentence) {
        self.strike(&offender);
        self.ends.insert((sentence.until, offender.clone()));
        self.held.insert(offender, sentence);
    }

    fn strike(&mut self, offender: &Offender) -> Option<Sentence> {
        let sentence = self.held.remove(offender)?;
        self.ends.remove(&(sentence.until, offender.clone()));
        Some(sentence)
    }

    /// Rules over an offence; gives whom it has forgotten to make room, too.
    pub fn judge(
        &mut self,
        offender: &Offender,
        penalty: &Penalty,
        observed: bool,
        now: Timestamp,
    ) -> (Ruling, Option<Offender>) {
        let before = self.held.get(offender).filter(|it| it.forgotten > now && it.observed == observed);
        if before.is_some_and(|it| it.until > now) {
            return (Ruling::Serves, None);
        }
        let times = before.map_or(1, |it| it.times.saturating_add(1));
        let mut forgotten = None;
        if !self.held.contains_key(offender) && self.held.len() >= self.most {
            let quietest = self.ends.first().filter(|(until, _)| *until <= now).map(|(_, offender)| offender.clone());
            let Some(quietest) = quietest else { return (Ruling::Full, None) };
            self.strike(&quietest);
            forgotten = Some(quietest);
        }
        let after = |from: Timestamp, span: Span| {
            let millis = i64::try_from(span.millis()).unwrap_or(i64::MAX);
            from.saturating_add(SignedDuration::from_millis(millis)).unwrap_or(Timestamp::MAX)
        };
        let until = after(now, length(penalty, times));
        let forgotten_at = after(until, penalty.at_most);
        let sentence = Sentence { times, since: now, until, forgotten: forgotten_at, observed };
        self.enter(offender.clone(), sentence);
        (Ruling::Sentenced(sentence), forgotten)
    }

    /// Forgets all sentences of exactly these sources, as if there had been none, and names them.
    pub fn forgive(&mut self, prefix: IpNet) -> Vec<Offender> {
        let gone: Vec<_> = self.of(prefix).map(|(offender, _)| offender.clone()).collect();
        for offender in &gone {
            self.strike(offender);
        }
        gone
    }

    /// Forgets whom nothing is held against any more, and names them.
    pub fn forget(&mut self, now: Timestamp) -> Vec<Offender> {
        let over = self.held.iter().filter(|(_, sentence)| sentence.forgotten <= now);
        let gone: Vec<_> = over.map(|(offender, _)| offender.clone()).collect();
        for offender in &gone {
            self.strike(offender);
        }
        gone
    }

    /// The sentences of exactly that source that are remembered, by limit.
    pub fn of(&self, prefix: IpNet) -> impl Iterator<Item = (&Offender, &Sentence)> {
        let from = Offender { prefix, limit: String::new() };
        self.held.range(from..).take_while(move |(offender, _)| offender.prefix == prefix)
    }

    /// The sentences that are being served.
    pub fn served(&self, now: Timestamp) -> impl Iterator<Item = (&Offender, &Sentence)> {
        let serving = self.ends.iter().rev().take_while(move |(until, _)| *until > now);
        serving.filter_map(|(_, offender)| self.held.get_key_value(offender))
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests;
