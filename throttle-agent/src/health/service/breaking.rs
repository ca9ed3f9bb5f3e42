//! The breakers of a service: its own, and those of its backends.
//!
//! Its own goes by what becomes of its clients. Those of backends go by probes and heartbeats, which may all be wrong at once:
//! the check may fail for a reason that no backend is to blame for, and so may the observer. Never is more than half of the
//! backends kept away, so that the only one never is; and where more than half fail, nobody is for that: those who are left
//! would fail with the load of all, and fail already.

use std::cmp::Reverse;

use super::{Control, Observed, Place, ServiceHealth, Terms, Transition, What};
use crate::health::{
    Nanos,
    breaker::State,
    circuit::{Change, Forced, Life, Outcomes, Reason},
    detector::Level,
    trials::{Told, Trials},
};
use throttle_common::speed::Speed;

impl ServiceHealth {
    /// Its breaker, or that in a place, goes on from what an agent before this one left in force, and told of it last where it
    /// was not closed. What nobody is kept away by goes on as it was told, and so does the open one of a backend that is still
    /// dead ([`ServiceHealth::resume_level`] comes first), which the kernel tries by itself while no agent says so; what has
    /// ended meanwhile is taken back.
    pub fn resume_breaker(
        &mut self,
        now: Nanos,
        place: Option<&Place>,
        in_force: Option<State>,
        told: Option<State>,
    ) -> Option<Transition> {
        let acts = self.terms.enforces && self.terms.breaks;
        let is_dead = place.and_then(|place| self.number(place)).is_some_and(|it| self.watch.level(it) == Level::Dead);
        let (state, ended) = match (in_force.unwrap_or(State::Closed), told) {
            (State::HalfOpen { .. }, Some(told @ State::Open { .. })) if is_dead => (told, None),
            (State::Closed, Some(told @ State::Forced(_))) => (told, None),
            (State::Closed, Some(told)) if acts && in_force.is_some() => (State::Closed, Some(told)),
            (State::Closed, Some(told)) => (told, None),
            (state, _) => (state, None),
        };
        let circuit = match place {
            None => &mut self.circuit,
            Some(place) => &mut self.backends[*self.numbers.get(place)?].circuit,
        };
        circuit.breaker = circuit.breaker.clone().resume(now, state);
        let change = |from| Change { from, to: State::Closed, reason: Reason::TimeIsOver };
        ended.map(|from| Transition { at: now, place: place.cloned(), what: What::Breaker(change(from)) })
    }

    /// Has an operator hold the breakers of a backend, in all its places, or that of the service itself; none leaves it to
    /// itself again. Says how many there are.
    pub fn force(&mut self, backend: Option<&str>, forced: Option<Forced>) -> usize {
        let Some(name) = backend else {
            self.circuit.forced = forced;
            return 1;
        };
        let own = self.backends.iter_mut().filter(|it| *it.place.backend == *name);
        own.map(|it| it.circuit.forced = forced).count()
    }

    /// Leaves all breakers to themselves again, but for those that [`ServiceHealth::force`] names after it.
    pub fn release(&mut self) {
        self.circuit.forced = None;
        self.backends.iter_mut().for_each(|it| it.circuit.forced = None);
    }

    /// What the kernel is to be told of the breaker in a place; nothing where no backend is there.
    pub fn published(&self, place: &Place) -> Option<State> {
        let acts = self.terms.enforces && self.terms.breaks;
        self.number(place).map(|number| self.backends[number].circuit.published(acts))
    }

    /// When the open breaker in a place lets the first try; nothing where it is not open, or where its backend is kept away as
    /// a dead one is: then it waits until that is over.
    pub fn tries_at(&self, place: &Place) -> Option<Nanos> {
        let number = self.number(place).filter(|number| self.watch.life(*number) != Life::Dead)?;
        match self.backends[number].circuit.breaker.state() {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen { .. } | State::Forced(_) => None,
        }
    }

    pub(super) fn step_breakers(
        &mut self,
        now: Nanos,
        observed: &Observed,
        dice: &mut impl FnMut() -> f64,
    ) -> Vec<Transition> {
        let Terms { enforces, breaks, .. } = self.terms;
        let mut transitions = Vec::new();
        self.circuit.count(self.outcomes(observed));
        let trials = Trials { taken: observed.taken, all_are: !enforces };
        let change = self.circuit.step(now, breaks, trials, Told::default(), dice());
        transitions.extend(change.map(|change| Transition { at: now, place: None, what: What::Breaker(change) }));
        let Places { kept, mut free } = self.places(now);
        let all_are_slow = self.mends() && self.last.is_some_and(|last| last.delay.is_some_and(|it| it > last.target));
        for (number, backend) in self.backends.iter_mut().enumerate() {
            let taken = observed.backends_taken.get(number).copied().unwrap_or_default();
            let trials = Trials { taken, all_are: true };
            if all_are_slow {
                backend.circuit.excuse_slowness();
            }
            let told = Told { life: self.watch.life(number), spared: !kept[number] && free == 0 };
            let change = backend.circuit.step(now, breaks, trials, told, dice());
            if !kept[number] && backend.circuit.breaker.is_away() {
                free = free.saturating_sub(1);
            }
            let place = Some(backend.place.clone());
            transitions.extend(change.map(|change| Transition { at: now, place, what: What::Breaker(change) }));
        }
        transitions
    }

    /// Forgets what was bad of backends since the last look where the fault may be the observer's.
    pub(super) fn excuse_backends(&mut self, now: Nanos) {
        for (number, backend) in self.backends.iter_mut().enumerate() {
            if self.watch.may_be_at_fault(now, number) {
                backend.circuit.excuse();
            }
        }
    }

    /// Who may be kept away: half of those that no operator keeps away. The dead come first, then who has been kept away
    /// longest. Who is kept away while not all backends have been found, as after a restart, stays so.
    fn places(&self, now: Nanos) -> Places {
        let forced = |number: usize| self.backends[number].circuit.forced;
        let numbers = || (0..self.backends.len()).filter(|it| forced(*it) != Some(Forced::Open));
        let breaker = |number: usize| &self.backends[number].circuit.breaker;
        let own = numbers().count();
        let by_operator = self.backends.len() - own;
        let room = self.declared.saturating_sub(by_operator).max(own) / 2;
        let is_out = |it: &usize| breaker(*it).is_away() || self.watch.is_ejected(*it) && forced(*it).is_none();
        let mut away: Vec<_> = numbers().filter(is_out).collect();
        away.sort_by_key(|it| (Reverse(self.watch.is_ejected(*it)), breaker(*it).since(), *it));
        let failing = numbers().filter(|it| breaker(*it).is_away() || breaker(*it).is_failing(now)).count();
        let all_fail = 2 * failing > own;
        away.truncate(room);
        let free = if all_fail { 0 } else { (own / 2).saturating_sub(away.len()) };
        let mut kept = vec![false; self.backends.len()];
        for number in away {
            kept[number] = true;
        }
        Places { kept, free }
    }

    /// What became of its own connections. What is slow is for the control to mend, as long as it can.
    fn outcomes(&self, observed: &Observed) -> Outcomes {
        if self.mends() { observed.outcomes.but_for_slowness() } else { observed.outcomes }
    }

    /// Whether the control can do something about what is slow.
    fn mends(&self) -> bool {
        match self.terms.control {
            Control::Latency | Control::Aimd => self.last.is_some_and(|last| last.window > self.terms.bounds.least),
            Control::Rate => self.last.is_some_and(|last| last.speed > Speed::LEAST),
            Control::Fixed => false,
        }
    }
}

/// Who may be kept away of its backends.
struct Places {
    /// Those that are, or are dead.
    kept: Vec<bool>,
    /// How many more.
    free: usize,
}
