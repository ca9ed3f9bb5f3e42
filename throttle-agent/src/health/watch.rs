//! All backends of a service, and whether the fault is the observer's own.
//!
//! An observer that was held up itself sees everybody silent: its own pause is no silence of theirs. Where a third falls
//! silent within one interval the fault is likely between them and the observer, so verdicts wait. Each such doubt makes
//! it more patient for a while, as Lifeguard's local health multiplier does. And never is more than half of a service
//! ejected: who is left could not bear the load of the others, and an observer that sees more than half dead is rather cut
//! off itself (Envoy's panic threshold).

use super::{
    MILLISECOND, Nanos,
    circuit::Life,
    detector::{Change, Detector, Leniency, Level, Sign},
};

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;

/// How often an observer looks, where it is to be as quick as it can: with a look every 100 ms the 99th percentile of
/// simulated crashes is suspect after 708 ms and dead after 1 208 ms, a look's length beyond what was wanted.
pub const LOOKS: Nanos = 50 * MILLISECOND;
/// A tick that comes so many intervals of a backend late was held up, as far as that backend goes.
pub const LATE_INTERVALS: u64 = 2;
/// One in so many that turns suspect within an interval is too many at once.
pub const AT_ONCE: usize = 3;
/// Fewer at once are no pattern.
pub const LEAST_AT_ONCE: usize = 2;
/// How many intervals of those that fell silent verdicts wait when they were too many at once.
pub const FREEZE_INTERVALS: u64 = 5;
/// The highest score of doubt (memberlist's awareness maximum); patience is one more.
pub const MOST_DOUBT: u64 = 8;
/// After so many intervals of those that gave rise to it without another doubt the score sinks by one.
pub const CLEAN_INTERVALS: u64 = 5;

/// A change of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The backend's number.
    pub backend: usize,
    /// What changed.
    pub change: Change,
}

/// The backends of a service.
#[derive(Clone, Debug)]
pub struct Watch {
    backends: Vec<Detector>,
    ejected: Vec<bool>,
    due: Nanos,
    period: Nanos,
    /// How late the last look was, and whether the host kept the observer from its CPU before it.
    late: Nanos,
    starved: bool,
    doubt: u64,
    /// By which interval the last doubt passes: of those that gave rise to it.
    doubted: Nanos,
    clean_since: Nanos,
    frozen_until: Nanos,
    /// When backends turned suspect, each within its last interval, and how long that is.
    suspected: Vec<(Nanos, Nanos)>,
}

impl Watch {
    /// So many backends that beat every `interval`, of an observer that ticks every `period`.
    pub fn new(now: Nanos, backends: usize, interval: Nanos, period: Nanos) -> Self {
        Self {
            backends: vec![Detector::new(now, interval); backends],
            ejected: vec![false; backends],
            due: now + period,
            period,
            late: 0,
            starved: false,
            doubt: 0,
            doubted: interval,
            clean_since: now,
            frozen_until: now,
            suspected: Vec::new(),
        }
    }

    /// Watches one backend more, the last of all, which is to beat every `interval`. Each is judged by its own.
    pub fn add(&mut self, now: Nanos, interval: Nanos) {
        self.restore(Detector::new(now, interval));
    }

    /// Watches one backend more, the last of all, of which this is known.
    pub fn restore(&mut self, detector: Detector) {
        self.backends.push(detector);
        self.ejected.push(false);
        self.eject();
    }

    /// A backend goes on from what an agent before this one held of it.
    pub fn resume(&mut self, backend: usize, level: Level) {
        self.backends[backend] = self.backends[backend].clone().resume(level);
        self.eject();
    }

    /// Watches a backend no more, and gives back what is known of it; those after it move up.
    pub fn remove(&mut self, backend: usize) -> Detector {
        let detector = self.backends.remove(backend);
        self.ejected.remove(backend);
        self.eject();
        detector
    }

    /// What is known of each backend.
    pub fn backends(&self) -> &[Detector] {
        &self.backends
    }

    /// Whether a backend is kept from all load. A dead one that is not has as little as a suspect.
    pub fn is_ejected(&self, backend: usize) -> bool {
        self.ejected[backend]
    }

    /// How a backend is.
    pub fn level(&self, backend: usize) -> Level {
        self.backends[backend].level()
    }

    /// What a backend's breaker is to know of it: its death where it is ejected, and its life where nobody doubts that.
    pub fn life(&self, backend: usize) -> Life {
        match self.level(backend) {
            _ if self.ejected[backend] => Life::Dead,
            Level::Healthy | Level::Recovering => Life::Alive,
            Level::Suspect | Level::Dead | Level::Held => Life::Unremarkable,
        }
    }

    /// The share of its load that a backend may have, from 0 for an ejected one to 1.
    pub fn share(&self, backend: usize, now: Nanos) -> f64 {
        let detector = &self.backends[backend];
        match detector.level() {
            _ if self.ejected[backend] => 0.0,
            Level::Dead => super::suspicion::LEAST_SHARE,
            // It answers, and serves because there is nobody else.
            Level::Held => super::suspicion::share(detector.phi(now)),
            // While the fault may be the observer's, silence is nobody's.
            Level::Healthy | Level::Suspect if self.is_frozen(now) => 1.0,
            _ => detector.share(now),
        }
    }

    /// Whether verdicts wait, because so many fell silent at once that the fault may be the observer's.
    pub const fn is_frozen(&self, now: Nanos) -> bool {
        now < self.frozen_until
    }

    /// Whether what is bad of a backend may be the observer's fault: many fell silent at once, or it was held up itself.
    pub fn may_be_at_fault(&self, now: Nanos, backend: usize) -> bool {
        self.is_frozen(now) || self.was_held_up(&self.backends[backend])
    }

    fn was_held_up(&self, backend: &Detector) -> bool {
        self.starved || self.late > LATE_INTERVALS * backend.interval()
    }

    /// How many times as long silence may be, from 1.
    pub const fn patience(&self) -> u64 {
        self.doubt + 1
    }

    /// Takes what was seen of a backend.
    pub fn sign(&mut self, now: Nanos, backend: usize, sign: Sign) -> Option<Changed> {
        let change = self.backends[backend].sign(now, sign)?;
        self.eject();
        Some(Changed { backend, change })
    }

    /// Looks at all of them: every period, after the signs that came meanwhile. `starved` says that the host kept the
    /// observer from its CPU for more than half of the period (pressure stall information).
    pub fn tick(&mut self, now: Nanos, starved: bool) -> Vec<Changed> {
        (self.late, self.starved) = (now.saturating_sub(self.due), starved);
        self.due = now + self.period;
        let pause = self.late.max(self.period);
        let mut excused = None;
        for number in 0..self.backends.len() {
            if self.was_held_up(&self.backends[number]) {
                let backend = &mut self.backends[number];
                backend.excuse(now, pause);
                excused = Some(excused.map_or(backend.interval(), |shortest: Nanos| shortest.min(backend.interval())));
            }
        }
        if let Some(shortest) = excused {
            self.doubt_ourselves(now, shortest);
        }
        if now.saturating_sub(self.clean_since) >= CLEAN_INTERVALS * self.doubted {
            self.doubt = self.doubt.saturating_sub(1);
            self.clean_since = now;
        }
        let leniency = Leniency { patience: self.patience(), frozen: self.is_frozen(now) };
        let looks = self.backends.iter_mut().enumerate();
        let changes: Vec<_> = looks
            .filter_map(|(backend, detector)| detector.tick(now, leniency).map(|change| Changed { backend, change }))
            .collect();
        self.count_suspects(now, &changes);
        self.eject();
        changes
    }

    /// Whether a backend is to be probed now: see [`Detector::probe_is_due`].
    pub fn probe_is_due(&mut self, now: Nanos, backend: usize) -> bool {
        self.backends[backend].probe_is_due(now)
    }

    fn count_suspects(&mut self, now: Nanos, changes: &[Changed]) {
        self.suspected.retain(|(at, interval)| now.saturating_sub(*at) < *interval);
        let suspects = changes.iter().filter(|it| it.change.to == Level::Suspect);
        self.suspected.extend(suspects.map(|it| (now, self.backends[it.backend].interval())));
        let were_well = self.backends.iter().filter(|it| it.level() == Level::Healthy).count() + self.suspected.len();
        if self.suspected.len() >= LEAST_AT_ONCE && self.suspected.len() * AT_ONCE > were_well {
            let longest = self.suspected.drain(..).map(|(_, interval)| interval).max().unwrap_or_default();
            self.frozen_until = now + FREEZE_INTERVALS * longest;
            self.doubt_ourselves(now, longest);
        }
    }

    fn doubt_ourselves(&mut self, now: Nanos, interval: Nanos) {
        self.doubt = (self.doubt + 1).min(MOST_DOUBT - 1);
        (self.doubted, self.clean_since) = (interval, now);
    }

    /// Ejects the dead, the longest dead first, as far as half of all; who lives again is let in. Who is back and only held
    /// out makes way for the dead: it can serve, and they cannot.
    fn eject(&mut self) {
        let is_out = |detector: &Detector| matches!(detector.level(), Level::Dead | Level::Held);
        let mut dead: Vec<_> = (0..self.backends.len()).filter(|backend| is_out(&self.backends[*backend])).collect();
        // Who is out stays out as long as it is dead, and does not change places with another.
        let is_held = |backend: usize| self.backends[backend].level() == Level::Held;
        dead.sort_by_key(|&it| (is_held(it), !self.ejected[it], self.backends[it].since(), it));
        self.ejected.fill(false);
        dead.into_iter().take(self.backends.len() / 2).for_each(|backend| self.ejected[backend] = true);
    }
}
