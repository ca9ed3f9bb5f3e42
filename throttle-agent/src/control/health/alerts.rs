//! What others were told and is not over: the next agent goes on from it, so that nothing is told twice and all is taken back.
//!
//! It is kept by a thread of its own ([`Keeper`]), because the loop waits for no disk. An agent that is killed within the
//! moment that this takes leaves the former word, and the next one may say the last once more.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use throttle_common::breakers::{Forced, State};

use super::Control;
use crate::{
    control::Faults,
    health::{
        Nanos,
        breaker::{OPEN_TIME, TRIALS},
        life::Level,
        names,
        service::{Place, Transition, What},
    },
    store::{Alert, Store},
};

/// Of which service, of which of its backends, and of what.
type Subject = (String, Option<(String, SocketAddr)>, String);

/// What is told and not over, by what it is of.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    told: BTreeMap<Subject, String>,
    keeper: Option<Keeper>,
}

impl Alerts {
    /// Those that an agent before this one left.
    pub(super) fn of(left: Vec<Alert>) -> Self {
        let told = left.into_iter().map(|it| ((it.service, it.backend, it.kind), it.to));
        Self { told: told.collect(), keeper: None }
    }

    /// Takes a change that others are told, and says whether that changes what is to be kept.
    pub(super) fn note(&mut self, service: &str, transition: &Transition) -> bool {
        if matches!(transition.what, What::Signal { .. }) {
            return false;
        }
        let (kind, _, to, _) = names::change(&transition.what);
        let subject = subject(service, transition.place.as_ref(), kind);
        if matches!(to, "healthy" | "closed" | "no") {
            self.told.remove(&subject).is_some()
        } else {
            self.told.insert(subject, to.to_owned()).as_deref() != Some(to)
        }
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
        self.told.get(&subject(service, place, kind)).map(String::as_str)
    }

    /// Forgets what is of services, or of backends, that are no longer there; says whether there was any.
    fn retain(&mut self, is_there: impl Fn(&str, Option<&str>) -> bool) -> bool {
        let before = self.told.len();
        self.told.retain(|(service, backend, _), _| is_there(service, backend.as_ref().map(|(name, _)| name.as_str())));
        self.told.len() != before
    }

    fn all(&self) -> Vec<Alert> {
        let alert = |((service, backend, kind), to): (&Subject, &String)| Alert {
            service: service.clone(),
            backend: backend.clone(),
            kind: kind.clone(),
            to: to.clone(),
        };
        self.told.iter().map(alert).collect()
    }
}

fn subject(service: &str, place: Option<&Place>, kind: &str) -> Subject {
    (service.to_owned(), place.map(|it| (it.backend.to_string(), it.address)), kind.to_owned())
}

impl Control {
    /// At the start: what others were told before is known.
    pub(in crate::control) fn resume_alerts(&mut self) {
        match self.store.alerts() {
            Ok(left) => self.health.alerts = Alerts::of(left),
            Err(error) => {
                // The next word is written in its place.
                tracing::warn!("what others were told of health is not known, and may be told again: {error}");
            }
        }
    }

    /// After a change of policy: forgets what is of others than its services and backends.
    pub(super) fn forget_alerts(&mut self) {
        let (document, health) = (self.in_force().clone(), &mut self.health);
        let services = &health.services;
        let is_there = |service: &str, backend: Option<&str>| {
            let declared = |name| document.backends.iter().any(|it| it.service == service && it.name == name);
            services.contains_key(service) && backend.is_none_or(declared)
        };
        if health.alerts.retain(is_there) {
            self.keep_alerts();
        }
    }

    /// Has what is told, and not over, outlive this agent.
    pub(super) fn keep_alerts(&mut self) {
        let alerts = &mut self.health.alerts;
        let all = alerts.all();
        alerts.keeper.get_or_insert_with(|| Keeper::of(Arc::clone(&self.store), self.faults.clone())).keep(all);
    }
}

/// Who writes it down, each time the last word; what it was given is written when this is dropped.
#[derive(Debug)]
struct Keeper {
    queue: Option<mpsc::Sender<Vec<Alert>>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    fn of(store: Arc<Store>, faults: Faults) -> Self {
        let (queue, waiting) = mpsc::channel::<Vec<Alert>>();
        let write = move || {
            while let Ok(mut all) = waiting.recv() {
                while let Ok(later) = waiting.try_recv() {
                    all = later;
                }
                let kept = store.set_alerts(&all);
                let fault =
                    |error| format!("what others were told of health is not kept, and may be told again: {error}");
                faults.note("alerts", kept.map_err(fault));
            }
        };
        match thread::Builder::new().name("alerts".to_owned()).spawn(write) {
            Ok(thread) => Self { queue: Some(queue), thread: Some(thread) },
            Err(_) => Self { queue: None, thread: None },
        }
    }

    fn keep(&self, all: Vec<Alert>) {
        // Where there is no thread nothing is kept; the next agent begins anew.
        _ = self.queue.as_ref().map(|queue| queue.send(all));
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.queue = None;
        _ = self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_goes_on_in_the_state_that_was_told() {
        let told = |to: &str| Alert { service: "web".into(), backend: None, kind: "breaker".into(), to: to.into() };
        let resumed = |to| Alerts::of(vec![told(to)]).breaker(7, "web", None);
        assert_eq!(resumed("half-open"), Some(State::HalfOpen { left: TRIALS }), "nothing is told of it once more");
        assert_eq!(resumed("open"), Some(State::Open { until: 7 + OPEN_TIME }));
        assert_eq!(resumed("held-open"), Some(State::Forced(Forced::Open)));
    }
}
