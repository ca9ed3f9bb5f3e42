//! What is decided goes to the kernel, and what has changed to the log, to the list of changes, and to who wants to know.

use std::sync::Arc;

use anyhow::Result;
use throttle_common::{breakers::State, speed::Speed};

use super::{Control, notices};
use crate::{
    health::{
        circuit,
        life::Level,
        service::{Decision, Place, Transition, What},
        words,
    },
    policy::Mode,
};

impl Control {
    /// Puts in force what a service has decided: a window and a half-open breaker each time, because that renews their
    /// leases; all else where it has changed. Of a backend whose round of trials is used up the lease is not renewed: its
    /// heartbeats may yet take long to say what came of them, and the kernel lets others try when they have expired; that an
    /// agent is here is said then, because who is alone lets in more and more.
    pub(super) fn publish_decision(&mut self, name: &str, decision: Decision) {
        let published = self.put_in_force(name, &decision);
        let outcome = published.map_err(|error| format!("what {name} decided is not in force: {error:#}"));
        let done = outcome.is_ok();
        self.faults.note("health", outcome);
        if let Some(followed) = self.health.services.get_mut(name) {
            followed.published = done.then_some(decision);
        }
    }

    fn put_in_force(&mut self, name: &str, decision: &Decision) -> Result<()> {
        let Some(followed) = self.health.services.get(name) else { return Ok(()) };
        let (clock, before) = (followed.clock, followed.published.as_ref());
        let window_before =
            before.map_or_else(|| self.datapath.window_state(clock).map(|it| it.connections), |it| it.window);
        if decision.window.is_some() || window_before.is_some() {
            self.datapath.publish_window(clock, decision.window)?;
        }
        let half_open = matches!(decision.breaker, State::HalfOpen { .. });
        let is_said = half_open || before.map(|it| it.breaker) != Some(decision.breaker);
        let own = followed.breaker.filter(|_| is_said).map(|number| (number, decision.breaker));
        let backends = followed.breakers.iter().zip(&decision.backends).enumerate();
        let backends = backends.filter_map(|(place, (number, state))| {
            let before = before.filter(|it| it.backends.len() == decision.backends.len()).map(|it| it.backends[place]);
            let is_said = before != Some(*state) || matches!(state, State::HalfOpen { left: 1.. });
            number.filter(|_| is_said).map(|number| (number, *state))
        });
        for (number, state) in own.into_iter().chain(backends) {
            self.datapath.publish_breaker(number, self.joined(number).unwrap_or(state))?;
        }
        for &number in followed.breakers.iter().flatten() {
            if self.datapath.goes_on_alone(number) {
                self.datapath.publish_breaker(number, self.datapath.breaker_state(number))?;
            }
        }
        let speed = self.put_speed_in_force(name, clock, decision.speed)?;
        if let Some(followed) = self.health.services.get_mut(name) {
            followed.speed = Some(speed);
        }
        Ok(())
    }

    /// Has a service's clock run as its health says, or as it was set by hand: the slower wins.
    pub(super) fn put_speed_in_force(&mut self, name: &str, clock: u16, by_health: Speed) -> Result<Speed> {
        let by_hand = self.speed_by_hand(name).filter(|(by_hand, _)| *by_hand <= by_health);
        let (speed, end) = by_hand.map_or((by_health, None), |(speed, rest)| (speed, self.end_of(rest)));
        if self.health.services.get(name).and_then(|it| it.speed) != Some(speed) {
            self.datapath.publish_speed(clock, speed, end)?;
        }
        Ok(speed)
    }

    /// What the health of a service says of the speed of its clock; nothing where it says nothing.
    pub(in crate::control) fn speed_by_health(&self, name: &str) -> Option<Speed> {
        let published = self.health.services.get(name)?.published.as_ref()?;
        Some(published.speed).filter(|&speed| speed != Speed::ONE)
    }

    /// Tells of changes.
    pub(super) fn tell(&mut self, transitions: impl IntoIterator<Item = (Arc<str>, Transition)>) {
        for (service, transition) in transitions {
            let said = words::sentence(&service, &transition, self.acts(&service, transition.place.as_ref()));
            self.note_standing(&service, &transition);
            if is_bad(&transition.what) {
                tracing::warn!(service = &*service, "{said}");
            } else {
                tracing::info!(service = &*service, "{said}");
            }
            let (at, number) = (self.clock.wall(transition.at), self.health.chronicle.count() + 1);
            let notice = || notices::view(number, &service, &transition, at, said.clone());
            self.health.notices.send_change(&transition, notice);
            self.health.chronicle.add(service, transition, said);
        }
    }

    /// Whether what is decided of a service, or of the breaker in a place, is in force: its health may only observe, the whole
    /// host may, and of some backends the kernel knows no new connection.
    pub(super) fn acts(&self, service: &str, place: Option<&Place>) -> bool {
        let Some(followed) = self.health.services.get(service) else { return true };
        let breaker = |place: &Place| *followed.breakers.get(followed.health.number(place)?)?;
        followed.health.terms().enforces
            && self.mode() == Mode::Enforce
            && place.is_none_or(|place| breaker(place).is_some())
    }
}

/// Whether a person on call should look.
fn is_bad(what: &What) -> bool {
    match what {
        What::Level(change) => matches!(change.to, Level::Suspect | Level::Dead | Level::Held),
        What::Breaker(change) => {
            matches!(change.to, State::Open { .. } | State::Forced(circuit::Forced::Open))
        }
        What::Signal { from, to } => to > from,
        What::Doubt(doubts) => *doubts,
        What::ScaleOut(wants) => *wants,
        What::Unwatched { .. } => false,
    }
}
