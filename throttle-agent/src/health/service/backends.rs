//! The backends of a service: which are watched, what is seen of each, and which are to be probed.

use super::{Place, ServiceHealth, Transition, What};
use crate::health::{
    Nanos,
    breaker::{Breaker, State},
    circuit::Outcomes,
    detector::{CONFIRM_EVERY, Detector, Level, Reason, Sign},
    life::Said,
    signals::Aged,
    trials::Circuit,
    watch::Changed,
};

/// A probe beside those that policy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One of a suspect, which soon says whether anything lives there.
    Confirmation,
    /// One that is to show how it serves, in all the time that it has for an answer.
    Trial,
}

/// What is known of one backend.
#[derive(Clone, Debug)]
pub struct Backend {
    pub(super) place: Place,
    pub(super) circuit: Circuit,
    /// How long its last answer took.
    latency: Option<Nanos>,
    /// When it may be probed again for its breaker.
    next_trial: Nanos,
    /// Whether what it said last was bad.
    pub(super) said_bad: Option<bool>,
    /// Whether it answered what it was last asked, and with an error.
    errs: bool,
    /// Whether the last probe could not be sent.
    unasked: bool,
}

impl Backend {
    fn new(now: Nanos, place: Place, interval: Nanos) -> Self {
        let circuit = Circuit::of(Breaker::of_backend(now, interval));
        Self { place, circuit, latency: None, next_trial: now, said_bad: None, errs: false, unasked: false }
    }

    /// Which.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// How long its last answer took.
    pub const fn latency(&self) -> Option<Nanos> {
        self.latency
    }

    /// Whether anything has come of a probe, or a beat.
    pub const fn has_said(&self) -> bool {
        self.said_bad.is_some()
    }

    /// Whether it could not be asked last, for a fault of this host.
    pub const fn is_unasked(&self) -> bool {
        self.unasked
    }

    /// Its breaker.
    pub const fn breaker(&self) -> &Breaker {
        &self.circuit.breaker
    }
}

impl ServiceHealth {
    /// Watches these backends and no others, each with how often it is to beat; policy declares so many. Of those that were
    /// watched before, or a short time ago, with the same rhythm, all stays. Says of whom nothing is known.
    pub fn set_backends(&mut self, now: Nanos, wanted: &[(Place, Nanos)], declared: usize) -> Vec<Place> {
        self.declared = declared;
        let mut unknown = Vec::new();
        for number in (0..self.backends.len()).rev() {
            let interval = self.watch.backends()[number].interval();
            let stays = |(place, of): &(Place, Nanos)| *place == self.backends[number].place && *of == interval;
            if !wanted.iter().any(stays) {
                let (backend, detector) = (self.backends.remove(number), self.watch.remove(number));
                self.absent.keep(now, backend, detector);
            }
        }
        self.numbers = self.backends.iter().enumerate().map(|(number, it)| (it.place.clone(), number)).collect();
        for (place, interval) in wanted {
            if self.number(place).is_none() {
                let (backend, detector) = self.absent.take(now, place, *interval).unwrap_or_else(|| {
                    unknown.push(place.clone());
                    (Backend::new(now, place.clone(), *interval), Detector::new(now, *interval))
                });
                self.backends.push(backend);
                self.watch.restore(detector);
                self.numbers.insert(place.clone(), self.backends.len() - 1);
            }
        }
        unknown
    }

    /// Goes on from what an agent before this one told of a backend.
    pub fn resume_level(&mut self, place: &Place, level: Level) {
        if let Some(number) = self.number(place) {
            self.watch.resume(number, level);
        }
    }

    /// Takes what was seen of a backend.
    pub fn see(&mut self, at: Nanos, place: &Place, said: Said) -> Option<Transition> {
        let Said { sign, latency, good, overloaded } = said;
        let number = self.number(place)?;
        if sign != Sign::Packet {
            self.backends[number].unasked = sign == Sign::Unsent;
        }
        let late = latency.is_some_and(|latency| latency > self.terms.bounds.objective);
        if !matches!(sign, Sign::Packet | Sign::Unsent) {
            let backend = &mut self.backends[number];
            backend.latency = latency.or(backend.latency);
            let outcomes = match (good, late) {
                (Some(true), false) => Outcomes { good: 1, ..Outcomes::default() },
                (Some(true), true) => Outcomes { slow: 1, ..Outcomes::default() },
                (Some(false), _) => Outcomes { failed: 1, ..Outcomes::default() },
                (None, _) => Outcomes::default(),
            };
            backend.circuit.count_probe(outcomes);
            backend.errs = sign == Sign::Answered && good == Some(false);
            backend.said_bad = Some(good != Some(true) || late || overloaded);
            self.last_beat = self.last_beat.max(at);
        }
        let change = self.watch.sign(at, number, sign)?;
        Some(self.note(at, change))
    }

    /// What most backends said last, of those that are not kept away: who is, does not serve. Bad news is no other one until
    /// each had time to speak anew.
    ///
    /// Silence is bad news too, again each time that they had to speak.
    pub(super) fn hear_beats(&mut self, now: Nanos) {
        let silent = self.are_most_silent(now);
        if silent {
            self.last_beat = self.last_beat.max(now);
        }
        if self.bad_beat.is_some_and(|it| self.last_beat <= it.at) {
            return;
        }
        let said: Vec<bool> = self.serving().filter_map(|(_, it)| it.said_bad).collect();
        if said.is_empty() && !silent {
            return;
        }
        let bad = silent || 2 * said.iter().filter(|bad| **bad).count() > said.len();
        let slowest =
            self.serving().map(|(number, _)| self.watch.backends()[number].interval()).max().unwrap_or_default();
        let is_known = |it: Aged<bool>| bad && it.value && now.saturating_sub(it.at) < slowest;
        if !self.bad_beat.is_some_and(is_known) {
            self.bad_beat = Some(Aged { value: bad, at: self.last_beat.min(now) });
        }
    }

    /// Whether most of those that are not kept away are silent, and the fault is not the observer's.
    pub(super) fn are_most_silent(&self, now: Nanos) -> bool {
        let is_silent = |number: usize| matches!(self.watch.backends()[number].level(), Level::Suspect | Level::Dead);
        let silent = self.serving().filter(|(number, _)| is_silent(*number)).count();
        2 * silent > self.serving().count() && !self.watch.is_frozen(now)
    }

    /// How long probes of the others take, where most of those that serve answer with errors: these are quick, and the median
    /// of all answers is theirs, however long the others make their clients wait.
    pub fn beside_errors(&self) -> Option<Nanos> {
        let (err, serve): (Vec<_>, Vec<_>) = self.serving().map(|(_, it)| it).partition(|it| it.errs);
        let mut took: Vec<Nanos> = serve.iter().filter_map(|it| it.latency).collect();
        took.sort_unstable();
        took.get(took.len() / 2).copied().filter(|_| err.len() > serve.len())
    }

    /// Those that are not kept away, each with its number.
    fn serving(&self) -> impl Iterator<Item = (usize, &Backend)> {
        let backends = self.backends.iter().enumerate();
        backends.filter(|(number, it)| !self.watch.is_ejected(*number) && !it.breaker().is_away())
    }

    /// Looks at the backends; `starved` says that this host kept the observer from its CPU for most of the time since the
    /// last look.
    pub fn look(&mut self, now: Nanos, starved: bool) -> Vec<Transition> {
        let changes = self.watch.tick(now, starved);
        let mut transitions: Vec<_> = changes.into_iter().map(|change| self.note(now, change)).collect();
        self.excuse_backends(now);
        let doubts = self.watch.is_frozen(now);
        if std::mem::replace(&mut self.doubts, doubts) != doubts {
            transitions.push(Transition { at: now, place: None, what: What::Doubt(doubts) });
        }
        transitions
    }

    fn note(&mut self, at: Nanos, Changed { backend, change }: Changed) -> Transition {
        if change.reason == Reason::Restarted && self.backends.len() == 1 {
            // What was usual was so of another incarnation.
            self.controller.restart();
        }
        Transition { at, place: Some(self.backends[backend].place.clone()), what: What::Level(change) }
    }

    /// Which backends are to be probed now, beside the probes that policy asks for: suspects, to be confirmed, and those whose
    /// breaker tries them, because nobody else tells how a trial ends.
    pub fn probes(&mut self, now: Nanos) -> Vec<(Place, Wanted)> {
        let mut due = Vec::new();
        for (number, backend) in self.backends.iter_mut().enumerate() {
            let half_open = matches!(backend.circuit.breaker.state(), State::HalfOpen { .. });
            let tries = half_open && now >= backend.next_trial;
            if tries {
                backend.next_trial = now + CONFIRM_EVERY;
            }
            if self.watch.probe_is_due(now, number) {
                due.push((backend.place.clone(), Wanted::Confirmation));
            }
            if tries {
                due.push((backend.place.clone(), Wanted::Trial));
            }
        }
        due
    }

    /// Its backends, each with what is held of it, and the share of its load that it may have.
    pub fn backends(&self, now: Nanos) -> impl Iterator<Item = (&Backend, &Detector, f64)> {
        let numbered = self.backends.iter().zip(self.watch.backends()).enumerate();
        numbered.map(move |(number, (backend, detector))| (backend, detector, self.watch.share(number, now)))
    }

    /// The number of the backend in a place, in their order.
    pub fn number(&self, place: &Place) -> Option<usize> {
        self.numbers.get(place).copied()
    }
}
