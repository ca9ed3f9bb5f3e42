//! Which signal tells how long a service's requests wait: the best that there is.

use super::PERIOD;
use crate::health::{
    MILLISECOND, Nanos, SECOND,
    baseline::{Baseline, Throughput},
    signals::{Aged, Signals},
};

/// Latencies before a median is believed; fewer are gathered for up to a second.
pub const LEAST_SAMPLES: u32 = 10;
/// For so long nobody must ask for anything before what is kept small goes back to what policy says: as long as latencies are
/// gathered, so that a pause between two answers is none. As long must nobody be answered, or somebody wait to be accepted,
/// before that is taken for a service that hangs.
pub const RESTS_AFTER: Nanos = SECOND;

/// What the window follows, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// The time to first byte.
    Latency,
    /// What is under way divided by what ends in a second (Little's law).
    Little,
    /// What waits to be accepted divided by what is accepted in a second.
    Backlog,
    /// Whether heartbeats are good: additive increase, multiplicative decrease.
    Heartbeats,
    /// Nothing: it is what policy says.
    Static,
}

/// Latencies that are too few to be believed yet.
#[derive(Clone, Copy, Debug, Default)]
struct Gathered {
    at: Nanos,
    since: Option<Nanos>,
    sum: f64,
    samples: u32,
    /// The last delay that was believed, and whether it was that of many: old as the last answer in it.
    delay: Option<Aged<(f64, bool)>>,
}

/// A delay with what it is measured against, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delay {
    pub(super) beyond: f64,
    pub(super) usual: f64,
    pub(super) age: Nanos,
    /// Whether it is that of [`LEAST_SAMPLES`] or more.
    pub(super) many: bool,
}

/// What is known of each signal.
#[derive(Clone, Debug, Default)]
pub(super) struct Ladder {
    /// What is usual, for each rung that has a delay.
    latency: Baseline,
    little: Baseline,
    gathered: Gathered,
    /// For how long nothing has ended of what is under way.
    stalled: Nanos,
    /// Since when nobody has asked for anything.
    idle_since: Option<Nanos>,
    /// What was accepted, where only the backlog tells, and since when somebody waits there.
    accept_rate: Throughput,
    queued_since: Option<Nanos>,
    /// Since when most backends are silent, and when the service itself answered last, or accepted where answers are not
    /// measured.
    silent_since: Option<Nanos>,
    answered: Option<Nanos>,
    /// What tells of those who wait where nothing seems to be asked: see [`Ladder::rests`].
    unseen: Option<Rung>,
}

impl Ladder {
    /// Takes it that this time to first byte is usual.
    pub(super) fn expect(&mut self, now: Nanos, usual: Nanos) {
        self.latency.add(now, usual as f64);
    }

    /// Forgets what waited; what is usual stays known.
    pub(super) fn lapse(&mut self) {
        (self.stalled, self.idle_since, self.queued_since, self.unseen) = (0, None, None, None);
        (self.silent_since, self.answered) = (None, None);
        self.gathered = Gathered { at: self.gathered.at, ..Gathered::default() };
    }

    /// Takes it that what a signal showed after an instant is usual, as far as it is no more than so much: see
    /// [`Baseline::relearn`].
    pub(super) fn relearn(&mut self, rung: Rung, after: Nanos, most: f64) {
        match rung {
            Rung::Latency => self.latency.relearn(after, most),
            Rung::Little => self.little.relearn(after, most),
            Rung::Backlog | Rung::Heartbeats | Rung::Static => {}
        }
    }

    /// How long is usual by a signal, in nanoseconds, where it is known.
    pub(super) fn usual(&self, rung: Rung) -> Option<f64> {
        match rung {
            Rung::Latency => self.latency.value(),
            Rung::Little => self.little.value(),
            Rung::Backlog | Rung::Heartbeats | Rung::Static => None,
        }
    }

    /// Whether nobody has asked for anything for [`RESTS_AFTER`]. Who asks for nothing waits for nothing, so that a delay that
    /// was measured before is over at once.
    ///
    /// What a service was asked before anybody looked is not among what is under way, so that one that hung by then looks as if
    /// nobody asked. Then the listening socket tells of it, or its backends, where somebody has a place ([`Ladder::hangs`]).
    pub(super) fn rests(&mut self, now: Nanos, signals: &Signals, used: bool) -> bool {
        let flow = signals.flow.and_then(|flow| flow.fresh(now));
        let backlog = signals.backlog.and_then(|backlog| backlog.fresh(now));
        let queued = backlog.is_some_and(|(backlog, _)| backlog.waiting > 0);
        self.queued_since = queued.then(|| self.queued_since.unwrap_or(now));
        self.silent_since = signals.silent.then(|| self.silent_since.unwrap_or(now));
        let answers = match flow {
            Some((flow, _)) => flow.completed > 0,
            None => backlog.is_some_and(|(backlog, _)| backlog.accepted > 0),
        };
        self.answered = if answers { Some(now) } else { self.answered };
        let is_quiet = flow.is_none_or(|(flow, _)| flow.completed == 0 && flow.in_flight == 0);
        let backs_up = self.queued_since.is_some_and(|since| now.saturating_sub(since) >= RESTS_AFTER);
        let has_clients = used || signals.most_in_flight >= LEAST_SAMPLES;
        self.unseen = match () {
            () if is_quiet && backs_up => Some(Rung::Backlog),
            () if is_quiet && has_clients && self.hangs(now, flow.is_some()) => Some(Rung::Heartbeats),
            () => None,
        };
        let nothing = self.unseen.is_none()
            && match (flow, backlog) {
                (Some((flow, _)), _) => flow.completed == 0 && flow.in_flight == 0,
                // Where all places are taken nobody gets as far as to wait.
                (None, Some((backlog, _))) => backlog.accepted == 0 && backlog.waiting == 0 && !used,
                (None, None) => false,
            };
        if !nothing {
            self.idle_since = None;
            return false;
        }
        self.gathered.delay = self.gathered.delay.map(|_| Aged { value: (0.0, false), at: now });
        now.saturating_sub(*self.idle_since.get_or_insert(now)) >= RESTS_AFTER
    }

    /// Whether most backends have been silent for [`RESTS_AFTER`] and nothing says that this is the probes' own fault.
    ///
    /// A service that answers while they are silent is none that hangs: its check is broken. And of one whose answers are
    /// measured all that was asked since the first of them is known, so that what hangs is among what is under way.
    fn hangs(&self, now: Nanos, measured: bool) -> bool {
        let lasts = |since: Nanos| now.saturating_sub(since) >= RESTS_AFTER;
        let answers = |since: Nanos| self.answered.is_some_and(|at| measured || at >= since || !lasts(at));
        self.silent_since.is_some_and(|since| lasts(since) && !answers(since))
    }

    /// The best signal that there is, and the delay by it, after [`Ladder::rests`] has looked, where so much may be under
    /// way at once and so much has ended.
    pub(super) fn look(
        &mut self,
        now: Nanos,
        signals: &Signals,
        window: f64,
        throughput: &Throughput,
    ) -> (Rung, Option<Delay>) {
        let flow = signals.flow.and_then(|flow| flow.fresh(now));
        // Silence is bad news: what is under way and does not end has waited for a period more. A few that get no answer may be
        // clients that are gone.
        let enough = (window / 2.0).min(f64::from(LEAST_SAMPLES));
        let stuck = flow.is_some_and(|(flow, _)| flow.completed == 0 && f64::from(flow.in_flight) >= enough);
        self.stalled = if stuck { self.stalled + PERIOD } else { 0 };
        let backlog = signals.backlog.and_then(|backlog| backlog.fresh(now));
        let (measured, unseen) = (self.unseen.is_none(), self.unseen);
        if let Some((latency, age)) = signals.latency.and_then(|latency| latency.fresh(now)).filter(|_| measured) {
            let at = signals.latency.map_or(0, |latency| latency.at);
            if at > self.gathered.at {
                self.gathered.at = at;
                self.gather(now, at, latency.median, latency.samples);
            }
            let usual = self.latency.value().unwrap_or_default();
            let stalled = self.stalled as f64;
            let delay = self.gathered.delay.and_then(|delay| delay.fresh(now)).map(|((delay, many), _)| {
                let many = many && self.stalled == 0;
                Delay { beyond: delay + stalled, usual, age, many }
            });
            return (Rung::Latency, delay);
        }
        if let Some((flow, age)) = flow.filter(|_| measured) {
            let (per_second, many) = (throughput.per_second(), flow.in_flight >= LEAST_SAMPLES);
            if throughput.peak().is_none() || per_second < 1.0 {
                let stalled = self.stalled as f64;
                return (Rung::Little, stuck.then_some(Delay { beyond: stalled, usual: 0.0, age, many }));
            }
            let time = f64::from(flow.in_flight) / per_second * SECOND as f64;
            let usual = self.little.add(now, time.max(MILLISECOND as f64 / 10.0));
            return (Rung::Little, Some(Delay { beyond: time - usual + self.stalled as f64, usual, age, many }));
        }
        if let Some((backlog, age)) = backlog.filter(|_| unseen != Some(Rung::Heartbeats)) {
            self.accept_rate.add(now, backlog.accepted, true);
            let per_second = self.accept_rate.per_second().max(1.0);
            // Nobody has waited for longer than anybody has.
            let longest = self.queued_since.map_or(0, |since| now.saturating_sub(since)) as f64;
            let beyond = (f64::from(backlog.waiting) / per_second * SECOND as f64).min(longest);
            return (Rung::Backlog, Some(Delay { beyond, usual: 0.0, age, many: backlog.waiting >= LEAST_SAMPLES }));
        }
        let beat = signals.bad_beat.and_then(|beat| beat.fresh(now));
        (if beat.is_some() { Rung::Heartbeats } else { Rung::Static }, None)
    }

    /// Takes latencies that were measured at `at`, and believes them when there are enough or a second has passed.
    fn gather(&mut self, now: Nanos, at: Nanos, median: Nanos, samples: u32) {
        if samples == 0 {
            return;
        }
        let gathered = &mut self.gathered;
        let since = *gathered.since.get_or_insert(now);
        gathered.sum += median as f64 * f64::from(samples);
        gathered.samples = gathered.samples.saturating_add(samples);
        if gathered.samples >= LEAST_SAMPLES || now.saturating_sub(since) >= SECOND {
            let median = gathered.sum / f64::from(gathered.samples);
            let many = gathered.samples >= LEAST_SAMPLES;
            let delay = Some(Aged { value: (median - self.latency.add(now, median), many), at });
            self.gathered = Gathered { at, delay, ..Gathered::default() };
        }
    }
}
