//! What others have been told and is not over: the next agent goes on from it, so that nothing is told twice and all is
//! taken back. It counts as told when a webhook has answered that it is; where there is none, nobody is told anything.
//! Suspicion is not kept, because it comes and goes by itself within moments.
//!
//! A thread of its own writes it down ([`Keeper`]), once a second at most, because the loop waits for no disk. What others
//! were told within the last moment of an agent that is killed the next one may tell once more.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use throttle_common::breakers::{Forced, State};

use super::{Control, Notice, keeper::Keeper};
use crate::{
    control::Faults,
    health::{
        Nanos, SECOND,
        breaker::{OPEN_TIME, TRIALS},
        flapping::LONGEST_HOLD,
        life::Level,
        names,
        service::{Place, Transition, What},
    },
    store::{Alert, Store},
};

/// What has not been watched for so long is gone: as long as what is known of a backend is kept that goes and may come back.
const GONE_AFTER: Nanos = LONGEST_HOLD;
/// What was told longer ago than this, and is not over, may be told again by the next agent: nobody remembers it.
const REMEMBERED_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How often it is looked at, and written down where it has changed.
const PERIOD: Nanos = SECOND;

/// Of which service, of which of its backends, and of what.
type Subject = (String, Option<(String, SocketAddr)>, String);

/// The last word on something.
#[derive(Debug)]
struct Told {
    to: String,
    at: Timestamp,
    /// Its number among the changes of this agent; 0 where an agent before it told.
    number: u64,
    /// Since when nobody watches that any more.
    gone: Option<Nanos>,
    /// Whether others are being told that.
    ended: bool,
}

impl Told {
    fn is_over(&self) -> bool {
        self.ended || matches!(&*self.to, "healthy" | "closed" | "no" | "unwatched")
    }
}

/// What is told, by what it is of.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    told: BTreeMap<Subject, Told>,
    /// Whether that is not written down yet, and when it may be.
    unkept: bool,
    next: Nanos,
    keeper: Option<Keeper<Alert>>,
}

impl Alerts {
    /// Those that an agent before this one left, at `now`.
    pub(super) fn of(left: Vec<Alert>, now: Timestamp) -> Self {
        let remembered = left.into_iter().filter(|it| now.duration_since(it.at) < REMEMBERED_FOR);
        let told = remembered.map(|Alert { service, backend, kind, to, at }| {
            ((service, backend, kind), Told { to, at, number: 0, gone: None, ended: false })
        });
        Self { told: told.collect(), ..Self::default() }
    }

    /// Others have been told this.
    fn note(&mut self, notice: &Notice) {
        if notice.to == "suspect" {
            return;
        }
        let backend = notice.backend.clone().zip(notice.address);
        let subject = (notice.service.clone(), backend, notice.kind.clone());
        let told = Told { to: notice.to.clone(), at: notice.time, number: notice.number, gone: None, ended: false };
        let kept = |it: &Told| (!it.is_over()).then(|| it.to.clone());
        let after = kept(&told);
        let before = match self.told.get(&subject) {
            // A webhook that is slow to answer was told something older.
            Some(before) if before.number > notice.number => return,
            before => before.and_then(kept),
        };
        self.unkept |= before != after;
        self.told.insert(subject, told);
    }

    /// What others were told last of a backend, where it is not well.
    pub(super) fn level(&self, service: &str, place: &Place) -> Option<Level> {
        names::level_named(self.of_kind(service, Some(place), "backend")?)
    }

    /// What they were told last of a breaker that is not closed, as it goes on at `now`.
    pub(super) fn breaker(&self, now: Nanos, service: &str, place: Option<&Place>) -> Option<State> {
        Some(match self.of_kind(service, place, "breaker")? {
            "held-open" => State::Forced(Forced::Open),
            "held-closed" => State::Forced(Forced::Closed),
            "half-open" => State::HalfOpen { left: TRIALS },
            _ => State::Open { until: now + OPEN_TIME },
        })
    }

    /// Whether they were told so of a service itself.
    pub(super) fn is_told(&self, service: &str, what: &What) -> bool {
        let (kind, _, to, _) = names::change(what);
        self.of_kind(service, None, kind) == Some(to)
    }

    fn of_kind(&self, service: &str, place: Option<&Place>, kind: &str) -> Option<&str> {
        let subject = (service.to_owned(), place.map(|it| (it.backend.to_string(), it.address)), kind.to_owned());
        self.told.get(&subject).filter(|it| !it.is_over()).map(|it| &*it.to)
    }

    /// Ends what has not been watched for [`GONE_AFTER`], and says what others are to be told of it.
    fn end_unwatched(
        &mut self,
        now: Nanos,
        is_watched: impl Fn(&str, Option<&Place>) -> bool,
    ) -> Vec<(Arc<str>, Transition)> {
        let mut ended = Vec::new();
        self.told.retain(|(service, backend, kind), told| {
            let place = backend.as_ref().map(|(name, at)| Place { backend: Arc::from(&**name), address: *at });
            if is_watched(service, place.as_ref()) {
                told.gone = None;
                return true;
            }
            if now.saturating_sub(*told.gone.get_or_insert(now)) < GONE_AFTER {
                return true;
            }
            if told.is_over() {
                return told.ended;
            }
            told.ended = true;
            if let Some((kind, was)) = names::known(kind, &told.to) {
                let what = What::Unwatched { kind, was };
                ended.push((Arc::from(&**service), Transition { at: now, place, what }));
            }
            true
        });
        ended
    }

    /// What is not over; what is being ended is not until others know.
    fn all(&self) -> Vec<Alert> {
        let left = self.told.iter().filter(|(_, it)| it.ended || !it.is_over());
        let alert = |((service, backend, kind), it): (&Subject, &Told)| Alert {
            service: service.clone(),
            backend: backend.clone(),
            kind: kind.clone(),
            to: it.to.clone(),
            at: it.at,
        };
        left.map(alert).collect()
    }
}

impl Control {
    /// At the start: what others were told before is known.
    pub(in crate::control) fn resume_alerts(&mut self) {
        match self.store.alerts() {
            Ok(left) => self.health.alerts = Alerts::of(left, Timestamp::now()),
            Err(error) => {
                // The next word is written in its place.
                tracing::warn!("what others were told of health is not known, and may be told again: {error}");
            }
        }
    }

    /// Takes what others have been told by now, ends what nobody watches any more, and has what is not over outlive this
    /// agent.
    pub(super) fn follow_alerts(&mut self) {
        self.note_told();
        let now = self.datapath.now();
        if now < self.health.alerts.next {
            return;
        }
        self.health.alerts.next = now + PERIOD;
        let services = &self.health.services;
        let is_watched = |service: &str, place: Option<&Place>| {
            let followed = services.get(service);
            followed.is_some_and(|it| place.is_none_or(|place| it.health.published(place).is_some()))
        };
        let ended = self.health.alerts.end_unwatched(now, is_watched);
        self.tell(ended);
        let alerts = &mut self.health.alerts;
        if alerts.unkept {
            let all = alerts.all();
            let keeper = alerts
                .keeper
                .get_or_insert_with(|| Keeper::of("alerts", Arc::clone(&self.store), self.faults.clone(), write));
            alerts.unkept = !keeper.keep(all);
        }
    }

    /// At the end: writes down what others have been told by now, and how all is.
    pub fn keep_alerts(&mut self) {
        self.keep_standings();
        self.note_told();
        let alerts = &mut self.health.alerts;
        alerts.keeper = None;
        if std::mem::take(&mut alerts.unkept) {
            write(&self.store, &self.faults, &alerts.all());
        }
    }

    fn note_told(&mut self) {
        for notice in self.health.notices.take_told() {
            self.health.alerts.note(&notice);
        }
    }
}

fn write(store: &Store, faults: &Faults, all: &[Alert]) {
    let fault = |error| format!("what others were told of health is not kept, and may be told again: {error}");
    faults.note("alerts", store.set_alerts(all).map_err(fault));
}

#[cfg(test)]
#[path = "alerts_tests.rs"]
mod tests;
