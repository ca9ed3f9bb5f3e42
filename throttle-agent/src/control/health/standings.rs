//! Since when each backend and each breaker is as it is, and why: an agent that starts goes on from what the one before it
//! wrote down, as long as that is still so. What is otherwise by then changed while nobody watched, and that is said.
//!
//! It is only shown: no verdict follows from it, because what was so may be over. A backend is taken for what it was as soon
//! as there is evidence (a verdict, or an answer); suspicion is not kept, because it comes and goes by itself within moments.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use jiff::Timestamp;

use super::{Control, keeper::Keeper};
use crate::{
    control::Faults,
    health::{
        Nanos, SECOND,
        flapping::LONGEST_HOLD,
        life::Level,
        names,
        service::{Place, Transition, What},
        words,
    },
    store::{Standing, Store},
};

/// How often it is written down where it has changed; what an agent that is killed knew for less is lost.
const PERIOD: Nanos = 5 * SECOND;
/// What has not been watched for so long is forgotten.
const GONE_AFTER: Nanos = LONGEST_HOLD;
/// How many are kept: two of each backend that a policy may declare.
const MOST: usize = 8_192;
/// What is not kept.
const PASSING: &str = "suspect";

/// Of which service, of which of its backends, and of what.
type Subject = (String, Option<(String, SocketAddr)>, &'static str);

/// How something is, and how it was when it was last watched by an agent before this one.
#[derive(Debug, Default)]
struct Entry {
    now: Option<Known>,
    /// Until it is known whether it is still so.
    left: Option<Known>,
    /// Since when nobody watches it any more.
    gone: Option<Nanos>,
}

/// A state with its beginning and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    state: String,
    since: Timestamp,
    why: String,
    /// Whether it began under an agent before this one.
    before: bool,
}

/// Since when something is as it is, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// Only where this agent did not see it begin.
    pub(super) since: Option<Timestamp>,
    /// Nothing where it has been so since it is watched.
    pub(super) why: Option<String>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Standings {
    entries: BTreeMap<Subject, Entry>,
    unkept: bool,
    next: Nanos,
    keeper: Option<Keeper<Standing>>,
}

impl Standings {
    /// Those that an agent before this one left.
    fn of(left: Vec<Standing>) -> Self {
        let entries = left.into_iter().take(MOST).filter_map(|it| {
            let kind = kind(&it.kind)?;
            let known = Known { state: it.state, since: it.since, why: it.why, before: true };
            Some(((it.service, it.backend, kind), Entry { left: Some(known), ..Entry::default() }))
        });
        Self { entries: entries.collect(), ..Self::default() }
    }

    /// This agent saw it change to a state at `at`.
    fn turn(&mut self, subject: Subject, state: &str, at: Timestamp, why: &str) {
        if self.entries.len() >= MOST && !self.entries.contains_key(&subject) {
            return;
        }
        let entry = self.entries.entry(subject).or_default();
        if state == PASSING && entry.left.is_some() {
            return;
        }
        let begins = |why: String| Known { state: state.to_owned(), since: at, why, before: false };
        entry.now = Some(match entry.left.take() {
            Some(left) if left.state == state => left,
            Some(left) => begins(format!("{why}; it was {} when it was last watched", left.state)),
            None => begins(why.to_owned()),
        });
        self.unkept |= state != PASSING;
    }

    /// It is seen to be in a state, and that is certain: what was left of it is so, or has changed meanwhile.
    fn settle(&mut self, subject: &Subject, state: &str, at: Timestamp) {
        let Some(entry) = self.entries.get_mut(subject) else { return };
        let Some(left) = entry.left.take() else { return };
        entry.now = Some(if left.state == state {
            left
        } else {
            let why = format!("it changed while no agent watched; it was {} before", left.state);
            Known { state: state.to_owned(), since: at, why, before: false }
        });
        self.unkept = true;
    }

    /// What is to be shown of something in a state.
    fn shown(&self, subject: &Subject, state: &str) -> Shown {
        let Some(Entry { now, left, .. }) = self.entries.get(subject) else { return Shown::default() };
        let known = [now, left].into_iter().flatten().find(|it| it.state == state);
        known
            .map_or_else(Shown::default, |it| Shown { since: it.before.then_some(it.since), why: Some(it.why.clone()) })
    }

    /// Forgets what has not been watched for [`GONE_AFTER`].
    fn forget(&mut self, now: Nanos, is_watched: impl Fn(&Subject) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|subject, entry| {
            if is_watched(subject) {
                entry.gone = None;
                return true;
            }
            now.saturating_sub(*entry.gone.get_or_insert(now)) < GONE_AFTER
        });
        self.unkept |= self.entries.len() != before;
    }

    /// What is to be kept.
    fn all(&self) -> Vec<Standing> {
        let lasting = |it: &&Known| it.state != PASSING;
        let kept = self.entries.iter().filter_map(|((service, backend, kind), entry)| {
            let known = entry.now.as_ref().filter(lasting).or(entry.left.as_ref())?;
            Some(Standing {
                service: service.clone(),
                backend: backend.clone(),
                kind: (*kind).to_owned(),
                state: known.state.clone(),
                since: known.since,
                why: known.why.clone(),
            })
        });
        kept.collect()
    }
}

const BACKEND: &str = "backend";
const BREAKER: &str = "breaker";

fn kind(name: &str) -> Option<&'static str> {
    [BACKEND, BREAKER].into_iter().find(|it| *it == name)
}

fn subject(service: &str, place: Option<&Place>, kind: &'static str) -> Subject {
    (service.to_owned(), place.map(|it| (it.backend.to_string(), it.address)), kind)
}

impl Control {
    /// At the start: how all was when it was last watched.
    pub(in crate::control) fn resume_standings(&mut self) {
        match self.store.standings() {
            Ok(left) => self.health.standings = Standings::of(left),
            Err(error) => {
                // What is seen next is written in its place.
                tracing::warn!("since when backends and breakers are as they are, is not known from before: {error}");
            }
        }
    }

    /// Notes a change that this agent saw.
    pub(super) fn note_standing(&mut self, service: &str, transition: &Transition) {
        let (kind, why) = match &transition.what {
            What::Level(change) => (BACKEND, words::why_held(change.reason)),
            What::Breaker(change) => (BREAKER, words::why_broken(change.reason)),
            _ => return,
        };
        let (_, _, to, _) = names::change(&transition.what);
        let at = self.clock.wall(transition.at);
        self.health.standings.turn(subject(service, transition.place.as_ref(), kind), to, at, why);
    }

    /// Since when a backend is as it is, and why.
    pub(super) fn standing_of(&self, service: &str, place: &Place, level: Level) -> Shown {
        self.health.standings.shown(&subject(service, Some(place), BACKEND), names::level(level))
    }

    /// The same of a breaker.
    pub(super) fn standing_of_breaker(&self, service: &str, place: Option<&Place>, state: &str) -> Shown {
        self.health.standings.shown(&subject(service, place, BREAKER), state)
    }

    /// Takes what is certain by now, and has it outlive this agent.
    pub(super) fn follow_standings(&mut self) {
        let now = self.datapath.now();
        if now < self.health.standings.next {
            return;
        }
        self.health.standings.next = now + PERIOD;
        self.settle_standings(now);
        let standings = &mut self.health.standings;
        if standings.unkept {
            let all = standings.all();
            let keeper = standings
                .keeper
                .get_or_insert_with(|| Keeper::of("standings", Arc::clone(&self.store), self.faults.clone(), write));
            standings.unkept = !keeper.keep(all);
        }
    }

    fn settle_standings(&mut self, now: Nanos) {
        let at = self.clock.wall(now);
        let (services, standings) = (&self.health.services, &mut self.health.standings);
        for (name, followed) in services {
            if followed.published.is_some() {
                let state = names::state(followed.health.breaker().state());
                standings.settle(&subject(name, None, BREAKER), state, at);
            }
            for (it, detector, _) in followed.health.backends(now) {
                let (level, place) = (detector.level(), Some(it.place()));
                if is_certain(level, detector.was_heard(), it.has_said()) {
                    standings.settle(&subject(name, place, BACKEND), names::level(level), at);
                }
                if followed.published.is_some() {
                    standings.settle(&subject(name, place, BREAKER), names::state(it.breaker().state()), at);
                }
            }
        }
        standings.forget(now, |(service, backend, _)| {
            let place = backend.as_ref().map(|(name, at)| Place { backend: Arc::from(&**name), address: *at });
            let followed = services.get(&**service);
            followed.is_some_and(|it| place.is_none_or(|place| it.health.published(&place).is_some()))
        });
    }

    /// At the end: writes down how all is.
    pub(super) fn keep_standings(&mut self) {
        self.settle_standings(self.datapath.now());
        let standings = &mut self.health.standings;
        standings.keeper = None;
        if std::mem::take(&mut standings.unkept) {
            write(&self.store, &self.faults, &standings.all());
        }
    }
}

/// Whether there is evidence that a backend is so: it is taken to be well before anything is known of it.
const fn is_certain(level: Level, was_heard: bool, has_said: bool) -> bool {
    match level {
        Level::Healthy => was_heard,
        Level::Suspect => false,
        Level::Dead | Level::Recovering | Level::Held => has_said,
    }
}

fn write(store: &Store, faults: &Faults, all: &[Standing]) {
    let fault = |error| format!("since when backends and breakers are as they are, is not kept: {error}");
    faults.note("standings", store.set_standings(all).map_err(fault));
}

#[cfg(test)]
#[path = "standings_tests.rs"]
mod tests;
