//! The breakers of a service: its own, and those of its backends.

use super::{Control, Observed, Place, ServiceHealth, Terms, Transition, What};
use crate::health::{
    Nanos,
    breaker::{Breaker, State},
    circuit::{Forced, Outcomes},
    trials::Trials,
};
use throttle_common::speed::Speed;

impl ServiceHealth {
    /// Its breaker, or that in a place, goes on from what an agent before this one left in force.
    pub fn resume_breaker(&mut self, now: Nanos, place: Option<&Place>, state: State) {
        let circuit = match place {
            None => Some(&mut self.circuit),
            Some(place) => self.number(place).map(|number| &mut self.backends[number].circuit),
        };
        if let Some(circuit) = circuit {
            circuit.breaker = Breaker::resume(now, state);
        }
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

    pub(super) fn step_breakers(
        &mut self,
        now: Nanos,
        observed: &Observed,
        dice: &mut impl FnMut() -> f64,
    ) -> Vec<Transition> {
        let Terms { enforces, breaks, .. } = self.terms;
        let mut transitions = Vec::new();
        self.circuit.ended.add(self.outcomes(observed));
        let trials = Trials { taken: observed.taken, all_are: !enforces };
        let change = self.circuit.step(now, breaks, trials, false, dice());
        transitions.extend(change.map(|change| Transition { at: now, place: None, what: What::Breaker(change) }));
        for (number, backend) in self.backends.iter_mut().enumerate() {
            let taken = observed.backends_taken.get(number).copied().unwrap_or_default();
            let trials = Trials { taken, all_are: true };
            let change = backend.circuit.step(now, breaks, trials, self.watch.is_ejected(number), dice());
            let place = Some(backend.place.clone());
            transitions.extend(change.map(|change| Transition { at: now, place, what: What::Breaker(change) }));
        }
        transitions
    }

    /// What became of its own connections. What is slow is for the control to mend, as long as it can.
    fn outcomes(&self, observed: &Observed) -> Outcomes {
        let Outcomes { good, slow, failed } = observed.outcomes;
        let mends = match self.terms.control {
            Control::Latency | Control::Aimd => self.last.is_some_and(|last| last.window > self.terms.bounds.least),
            Control::Rate => self.last.is_some_and(|last| last.speed > Speed::LEAST),
            Control::Fixed => false,
        };
        if mends { Outcomes { good: good.saturating_add(slow), slow: 0, failed } } else { observed.outcomes }
    }
}
