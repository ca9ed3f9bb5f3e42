//! What is seen of services: measured by the kernel, counted by limits, and waiting at listening sockets.

use std::{collections::BTreeSet, time::Duration};

use throttle_common::words::Unit;

use super::{
    Control, Followed, Nanos,
    groups::{Groups, Stalled},
    listening::Waiting,
    outstanding::Outstanding,
};
use crate::{
    datapath::{Answers, Datapath},
    health::{
        SECOND,
        circuit::Outcomes,
        controller::LEAST_SAMPLES,
        service::Observed,
        signals::{Aged, Backlog, Flow, Latency, Signals},
    },
};

/// A limit that all of a service share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shared {
    pub(super) number: u16,
    /// What it counts.
    pub(super) unit: Unit,
    /// What it admits in a second at full speed; nothing where it counts open connections.
    pub(super) per_second: Option<f64>,
}

/// What was seen of a service before.
#[derive(Debug)]
pub(super) struct Earlier {
    answers: Answers,
    /// When the last answer began.
    answered: Nanos,
    outstanding: Outstanding,
    /// Connections that were cut off because of the window.
    cut: u64,
    /// Of its limits, together: what was refused, and what entered.
    refused: u64,
    lacked: u64,
    entered: u64,
    /// What each of its limits admitted.
    admitted: Vec<u64>,
    /// Connections that are open, the most since the last period, and those at its end.
    pub(super) open: Option<u32>,
    most_open: u32,
    waiting: u32,
    /// When all this was.
    at: Nanos,
    /// What was last made of it, to be shown.
    pub(super) shown: Shown,
}

/// What was seen in the last period, to be shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) signals: Signals,
    /// Whether a listening socket overflowed that may be its own, and whether more was reset than answered: either is an
    /// overflow to the control.
    pub(super) full: bool,
    pub(super) resets: bool,
    /// What waits at its listening sockets, and when that was listed.
    pub(super) waiting: Option<(Waiting, Nanos)>,
    /// How the processes have waited that listen there, and when that was looked at.
    pub(super) stalled: Option<(Stalled, Nanos)>,
    pub(super) refused_per_second: f64,
    pub(super) answered_per_second: f64,
    pub(super) p99: Option<Duration>,
}

impl Default for Earlier {
    fn default() -> Self {
        Self {
            answers: Answers::NONE,
            answered: 0,
            outstanding: Outstanding::default(),
            cut: 0,
            refused: 0,
            lacked: 0,
            entered: 0,
            admitted: Vec::new(),
            open: None,
            most_open: 0,
            waiting: 0,
            at: 0,
            shown: Shown::default(),
        }
    }
}

impl Earlier {
    /// Looks how many connections are open, between two periods.
    pub(super) fn glance(&mut self, datapath: &Datapath, service: u16) {
        self.open = datapath.open_at(service);
        self.most_open = self.most_open.max(self.open.unwrap_or_default());
    }

    /// Of what comes next nothing is known: it was not looked at for so long that it is none of a period.
    pub(super) const fn begin_anew(&mut self, now: Nanos) {
        (self.at, self.answered) = (0, now);
    }
}

impl Control {
    /// What was seen of each service since the last period.
    pub(super) fn observe_services(&mut self, now: Nanos) -> Vec<Observed> {
        let overflows = self.health.host.overflows(now);
        let listed = if self.health.services.values().any(|it| it.listens.tcp) {
            self.health.listening.look(now)
        } else {
            Ok(())
        };
        self.faults.note("backlog", listed);
        let Self { datapath, health, .. } = self;
        let waiting: Vec<_> = health.services.values().map(|it| health.listening.at(&it.listens)).collect();
        let groups: BTreeSet<u64> = waiting.iter().flatten().flat_map(|it| &it.groups).copied().collect();
        health.groups.look(now, &groups);
        let around = Around { overflows: overflows > 0, listed: health.listening.at, groups: &health.groups };
        let seen = |(followed, waiting): (&mut Followed, _)| followed.observe(datapath, &around, waiting, now);
        health.services.values_mut().zip(waiting).map(seen).collect()
    }
}

/// What is seen of this host in a period, for all services.
struct Around<'h> {
    /// Whether a listening socket overflowed, whosesoever.
    overflows: bool,
    /// When the listening sockets were listed.
    listed: Nanos,
    groups: &'h Groups,
}

impl Followed {
    fn observe(&mut self, datapath: &Datapath, around: &Around<'_>, waiting: Option<Waiting>, now: Nanos) -> Observed {
        let objective = Duration::from_nanos(self.health.terms().bounds.objective);
        let (counts, earlier) = (Counts::of(datapath, &self.limits), &mut self.earlier);
        let answers = datapath.answers(self.clock).unwrap_or(Answers::NONE);
        let since = Since::of(earlier, now, &counts, &answers);
        let sampled = datapath.sampled();
        let answered = since.answers.answers();
        earlier.answered = if answered > 0 { now } else { earlier.answered };
        // Who was cut off has not ended by itself, and its reset is no error of the server's.
        let cut = self.closed.count - std::mem::replace(&mut earlier.cut, self.closed.count);
        let knocks = since.lacked || since.refused > 0;
        let waits = earlier.outstanding.look(now, answers.waiting(), earlier.answered, knocks);
        let mut signals = Signals::default();
        // What leaves may go unseen: then requests begin, and no answer ever does.
        if self.measured && answers.answers() > 0 {
            let median = since.answers.median().map_or(0, |median| median.as_nanos() as Nanos);
            // Where nothing is asked, that nothing is answered says nothing bad.
            let at = if waits == 0 { now } else { earlier.answered };
            signals.latency = Some(Aged { value: Latency { median, samples: small(answered) }, at });
            let (completed, in_flight) = (small(answered * sampled), small(u64::from(waits) * sampled));
            signals.flow = Some(Aged { value: Flow { completed, in_flight }, at: now });
        }
        // How long connections are open says nothing of what is done in them: a session of hours is no slow answer.
        if let Some(Waiting { connections, .. }) = waiting {
            let accepted = (since.entered + u64::from(earlier.waiting)).saturating_sub(connections.into());
            earlier.waiting = connections;
            let backlog = Backlog { waiting: connections, accepted: small(accepted) };
            signals.backlog = Some(Aged { value: backlog, at: around.listed });
        }
        let errors = since.answers.resets().saturating_sub(cut);
        let crowded = waiting.as_ref().is_some_and(|it| 2 * it.connections >= it.room);
        let full = around.overflows && crowded;
        let resets = errors > answered && errors >= LEAST_SAMPLES.into();
        signals.overflow = full || resets;
        // Who was refused a place found none free, however few hold one at the moment at which that is looked at.
        signals.most_in_flight = if since.lacked { u32::MAX } else { earlier.most_open };
        earlier.most_open = earlier.open.unwrap_or_default();
        let good = since.answers.within(objective).min(answered);
        earlier.shown = Shown {
            signals,
            full,
            resets,
            stalled: waiting
                .as_ref()
                .and_then(|it| around.groups.stalled(&it.groups))
                .map(|stalled| (stalled, around.groups.at)),
            waiting: waiting.map(|waiting| (waiting, around.listed)),
            refused_per_second: since.refused as f64 / since.seconds,
            answered_per_second: (answered * sampled) as f64 / since.seconds,
            p99: since.answers.percentile(99.0),
        };
        Observed {
            signals,
            outcomes: Outcomes { good: small(good), slow: small(answered - good), failed: small(errors) },
            taken: self.breaker.map_or(0, |number| datapath.trials_taken(number)),
            backends_taken: self
                .breakers
                .iter()
                .map(|it| it.map_or(0, |number| datapath.trials_taken(number)))
                .collect(),
            open: self.earlier.open.filter(|_| self.listens.tcp),
            refused: since.refused,
            admitted: since.admitted,
        }
    }
}

/// What the limits count that a service shares, since there are.
#[derive(Debug, Default)]
struct Counts {
    refused: u64,
    /// Those of them that lacked a place.
    lacked: u64,
    entered: u64,
    /// What each admitted, in its unit.
    admitted: Vec<(Shared, u64)>,
}

impl Counts {
    fn of(datapath: &Datapath, limits: &[Shared]) -> Self {
        let mut counts = Self::default();
        let places = limits.iter().any(|limit| limit.per_second.is_none());
        for limit in limits {
            let Ok(tally) = datapath.limit_tally(limit.number) else { continue };
            let refused = tally.refused.packets + tally.observed.packets;
            // A flood that a rate keeps away is no demand; where there are no places, it is all that is known of demand.
            if limit.per_second.is_none() || !places {
                counts.refused += refused;
            }
            if limit.per_second.is_none() {
                // A connection enters once under each; they are all of this service.
                counts.entered = counts.entered.max(tally.admitted.packets);
                counts.lacked += refused;
            }
            let admitted = if limit.unit == Unit::Bytes { tally.admitted.bytes } else { tally.admitted.packets };
            counts.admitted.push((*limit, admitted));
        }
        counts
    }
}

/// What came since the period before.
struct Since {
    seconds: f64,
    answers: Answers,
    refused: u64,
    lacked: bool,
    entered: u64,
    /// What rates admitted, as a share of what they allow: of the one that was used up most.
    admitted: Option<f64>,
}

impl Since {
    /// Of the first period nothing is known. What begins anew has not grown.
    fn of(earlier: &mut Earlier, now: Nanos, counts: &Counts, answers: &Answers) -> Self {
        let first = earlier.at == 0;
        let seconds = now.saturating_sub(std::mem::replace(&mut earlier.at, now)).max(1) as f64 / SECOND as f64;
        let before = std::mem::replace(&mut earlier.answers, answers.clone());
        let anew = first || before.requests() > answers.requests() || before.answers() > answers.answers();
        let grown = |before: &mut u64, now: u64| {
            let grown = now.saturating_sub(std::mem::replace(before, now));
            if first { 0 } else { grown }
        };
        let mut admitted = None;
        earlier.admitted.resize(counts.admitted.len(), 0);
        for ((limit, count), before) in counts.admitted.iter().zip(&mut earlier.admitted) {
            let grown = grown(before, *count);
            if let Some(rate) = limit.per_second.filter(|_| !first) {
                let share = grown as f64 / (rate * seconds);
                admitted = Some(admitted.map_or(share, |most: f64| most.max(share)));
            }
        }
        Self {
            seconds,
            answers: if anew { Answers::NONE } else { answers.since(&before) },
            refused: grown(&mut earlier.refused, counts.refused),
            lacked: grown(&mut earlier.lacked, counts.lacked) > 0,
            entered: grown(&mut earlier.entered, counts.entered),
            admitted,
        }
    }
}

fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
