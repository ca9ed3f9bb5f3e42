//! What may stand before the backends: the agent's health of a service, or a limit of the whole.

use super::{BACKENDS, Fault, backend::QUICK};
use crate::simulator::{
    dice::Dice,
    limits::{Limit, View},
    scenario::{MEAN, OBJECTIVE},
};
use std::{net::SocketAddr, sync::Arc};
use throttle_agent::health::{
    Nanos,
    breaker::State,
    controller,
    detector::{CONFIRM_EVERY, INTERVAL, Sign},
    life::Said,
    service::{Control, Observed, Place, ServiceHealth, Terms, Wanted},
    signals::{Aged, Flow, Latency, Signals},
    whole,
};
use throttle_common::breakers::{Admission, Taken, Word};

/// How long a probe has: four objectives, as where policy says nothing.
const PROBE: Nanos = 4 * OBJECTIVE;

/// What decides whether a request may begin, and whether a backend gets it.
pub trait Guard {
    /// Whether one more may begin, where so many are under way.
    fn admit(&mut self, now: Nanos, in_flight: u32) -> bool;

    /// Whether a connection to a backend passes.
    fn connects(&mut self, now: Nanos, backend: usize) -> bool;

    /// Whether a backend is kept away.
    fn is_away(&self, backend: usize) -> bool;

    /// Looks at the backends: how each fails, and how long a probe would wait there for a worker.
    fn watch(&mut self, now: Nanos, backends: &[(Option<Fault>, Nanos)], dice: &mut Dice);

    /// Takes what was seen within a period.
    fn look(&mut self, now: Nanos, view: &View<'_>, dice: &mut Dice);
}

/// A limit of the service as a whole, which knows of no backend.
pub struct Only<L>(pub L);

impl<L: Limit> Guard for Only<L> {
    fn admit(&mut self, now: Nanos, in_flight: u32) -> bool {
        self.0.admit(now, in_flight)
    }

    fn connects(&mut self, _: Nanos, _: usize) -> bool {
        true
    }

    fn is_away(&self, _: usize) -> bool {
        false
    }

    fn watch(&mut self, _: Nanos, _: &[(Option<Fault>, Nanos)], _: &mut Dice) {}

    fn look(&mut self, now: Nanos, view: &View<'_>, _: &mut Dice) {
        self.0.look(now, view);
    }
}

/// A backend as the agent and the kernel have it.
#[derive(Debug)]
struct Seen {
    place: Place,
    /// The breaker where it lies in the kernel's map.
    word: Word,
    taken: Taken,
    next_probe: Nanos,
    /// What probes come to, and when.
    coming: Vec<(Nanos, Said)>,
}

/// The agent's health of a service with its window, its detector and its breakers, in force.
pub struct Health {
    service: ServiceHealth,
    backends: Vec<Seen>,
    window: u32,
}

impl Default for Health {
    /// One whose policy allows 1 000 at once, and 100 where nothing is known.
    fn default() -> Self {
        let bounds = controller::Terms { objective: OBJECTIVE, least: 2, most: 1_000, fixed: 100, rate: None };
        let terms = Terms { control: Control::Latency, enforces: true, breaks: true, closes: false, bounds };
        let mut service = ServiceHealth::new(0, terms);
        let seen = |number: usize| Seen {
            place: Place {
                backend: Arc::from(format!("web-{number}")),
                address: SocketAddr::from(([10, 0, 0, number as u8], 80)),
            },
            word: Word::default(),
            taken: Taken::default(),
            next_probe: number as Nanos * INTERVAL / BACKENDS as Nanos,
            coming: Vec::new(),
        };
        let backends: Vec<_> = (0..BACKENDS).map(seen).collect();
        let wanted: Vec<_> = backends.iter().map(|it| (it.place.clone(), INTERVAL)).collect();
        service.set_backends(0, &wanted, BACKENDS);
        Self { service, backends, window: bounds.fixed }
    }
}

/// A probe, which has so long: when it comes to something, and to what.
fn probe(now: Nanos, fault: Option<Fault>, waits: Nanos, within: Nanos) -> (Nanos, Said) {
    let times = if let Some(Fault::Slow(times)) = fault { Nanos::from(times) } else { 1 };
    let works = (waits + MEAN) * times;
    let (takes, sign, good) = match fault {
        Some(Fault::Silent) => (within, Sign::Unanswered, false),
        Some(Fault::Hangs) => (within, Sign::Mute, false),
        Some(Fault::Errors) => (QUICK, Sign::Answered, false),
        Some(Fault::Slow(_)) | None if works >= within => (within, Sign::Mute, false),
        Some(Fault::Slow(_)) | None => (works, Sign::Answered, true),
    };
    let latency = (sign == Sign::Answered).then_some(takes);
    (now + takes, Said { sign, latency, good: Some(good), overloaded: false })
}

impl Guard for Health {
    fn admit(&mut self, _: Nanos, in_flight: u32) -> bool {
        in_flight < self.window
    }

    fn connects(&mut self, now: Nanos, backend: usize) -> bool {
        let Seen { word, taken, .. } = &mut self.backends[backend];
        match word.admit(*taken, now) {
            Admission::Pass => true,
            Admission::Trial => {
                *taken = word.one_more(*taken, now);
                true
            }
            Admission::Refuse => false,
        }
    }

    fn is_away(&self, backend: usize) -> bool {
        !self.backends[backend].word.is_closed()
    }

    fn watch(&mut self, now: Nanos, backends: &[(Option<Fault>, Nanos)], dice: &mut Dice) {
        for (seen, &(fault, waits)) in self.backends.iter_mut().zip(backends) {
            if now >= seen.next_probe {
                seen.coming.push(probe(now, fault, waits, PROBE));
                seen.next_probe = now + whole(INTERVAL as f64 * (0.9 + 0.2 * dice.unit()));
            }
            let (due, coming) = seen.coming.iter().partition(|(at, _)| *at <= now);
            seen.coming = coming;
            let due: Vec<(Nanos, Said)> = due;
            for (at, said) in due {
                self.service.see(at, &seen.place, said);
            }
        }
        self.service.look(now, false);
        for (place, wanted) in self.service.probes(now) {
            let Some(number) = self.backends.iter().position(|it| it.place == place) else { continue };
            let (seen, (fault, waits)) = (&mut self.backends[number], backends[number]);
            match wanted {
                Wanted::Trial => seen.coming.push(probe(now, fault, waits, PROBE)),
                Wanted::Confirmation => {
                    let (at, said) = probe(now, fault, waits, CONFIRM_EVERY);
                    let said = Said { good: said.good.filter(|_| said.sign == Sign::Answered), ..said };
                    seen.coming.push((at, said));
                    if fault != Some(Fault::Silent) {
                        let knock = Said { sign: Sign::Packet, latency: None, good: None, overloaded: false };
                        seen.coming.push((now + QUICK, knock));
                    }
                }
            }
        }
    }

    fn look(&mut self, now: Nanos, view: &View<'_>, dice: &mut Dice) {
        let completed = view.completed.len() as u32;
        let signals = Signals {
            latency: view.median().map(|median| Aged { value: Latency { median, samples: completed }, at: now }),
            flow: Some(Aged { value: Flow { completed, in_flight: view.in_flight }, at: now }),
            most_in_flight: view.most_in_flight,
            ..Signals::default()
        };
        let taken = self.backends.iter().map(|it| it.word.taken(it.taken, now)).collect();
        let observed = Observed { signals, backends_taken: taken, open: Some(view.in_flight), ..Observed::default() };
        let decision = self.service.step(now, &observed, || dice.unit());
        self.window = decision.window.unwrap_or(self.service.terms().bounds.fixed);
        for (seen, state) in self.backends.iter_mut().zip(decision.backends) {
            // As the datapath publishes it.
            let next = seen.word.then(state, now);
            if let State::HalfOpen { left } = state {
                seen.taken = next.taken_after(seen.word, seen.taken, now, left);
            }
            seen.word = next;
        }
    }
}
