//! A copy of all that one packet meets, and the decisions on it at any instant.

use std::collections::BTreeMap;

use throttle_common::{
    breakers::Breaker,
    gcra::{self, Ticks},
    health_window::HealthWindow,
    limits::{Charge, Clock, Question, Table, outcome, weigh},
    proven::{Claim, Line},
    records::{Limit, Policy, Slot, SourceEntry, Terms},
    speed::Timeline,
    table::{Look, WAYS, is_lock},
    words::{Outcome, Overflow, Reason},
};

use super::{Bucket, Foretold, Weighed, Window};
use crate::datapath::speeds::{ends_at, full_at};

/// What the maps held when the packet was asked about.
pub(super) struct Copy {
    pub(super) policy: Policy,
    /// What policy says of the source; nothing where it has no entry.
    pub(super) entry: SourceEntry,
    pub(super) question: Question,
    /// The limits of the packet's scope, by number: on open connections, which are asked first, and on rates.
    pub(super) concurrent: Vec<(u16, Limit)>,
    pub(super) limits: Vec<(u16, Limit)>,
    /// What the source has asked of the first of these, in their order.
    pub(super) asked: Vec<u64>,
    /// What the health clocks of all these read, by number.
    pub(super) clocks: Vec<(u16, Timeline)>,
    /// The sets in which the source has its buckets, by place.
    pub(super) sets: Vec<(u32, [Slot; WAYS])>,
    /// The aggregates' buckets, by place.
    pub(super) aggregates: Vec<(u32, Ticks)>,
    /// What overrides say of these limits, by `override_key`.
    pub(super) terms: BTreeMap<u64, Terms>,
    /// The line that would remember the source's handshake.
    pub(super) handshakes: Line,
    /// The health window of the packet's service, and how many connections policy allows there all together.
    pub(super) window: HealthWindow,
    pub(super) connections: u32,
    /// Whether its service is counted by packets that nobody sees leave.
    pub(super) unseen: bool,
    /// The breakers that it meets, by number: of its service, and of the backend that it is for.
    pub(super) breakers: Vec<(u16, Breaker)>,
    /// The bucket of the host's answers.
    pub(super) answers: Ticks,
    /// Whether such a packet may be answered at all.
    pub(super) answerable: bool,
}

/// An instant, by all clocks.
struct At<'c> {
    nanos: u64,
    clocks: &'c [(u16, Timeline)],
}

impl Clock for At<'_> {
    fn nanos(&mut self) -> u64 {
        self.nanos
    }

    fn reads(&mut self, clock: u16) -> Ticks {
        timeline(self.clocks, clock).at(self.nanos)
    }
}

fn timeline(clocks: &[(u16, Timeline)], clock: u16) -> &Timeline {
    clocks.iter().find(|(number, _)| *number == clock).map_or(&Timeline::REAL, |(_, timeline)| timeline)
}

/// A set of the copy.
#[derive(Clone, Copy)]
pub(super) struct Slots([Slot; WAYS]);

impl Look for Slots {
    fn key(&self, way: usize) -> u64 {
        self.0[way].key
    }

    fn tat(&self, way: usize) -> Ticks {
        self.0[way].tat
    }
}

impl Table for Copy {
    type Set = Slots;

    fn set(&self, place: u32) -> Option<Slots> {
        self.sets.iter().find(|(at, _)| *at == place).map(|(_, slots)| Slots(*slots))
    }

    fn aggregate(&self, place: u32) -> Option<Ticks> {
        self.aggregates.iter().find(|(at, _)| *at == place).map(|(_, bucket)| *bucket)
    }

    fn terms(&self, key: u64) -> Option<Terms> {
        self.terms.get(&key).copied()
    }

    fn remembers<C: Clock>(&self, claim: Claim, clock: &mut C) -> bool {
        claim.holds(&self.handshakes, clock.nanos())
    }
}

impl Copy {
    /// What becomes of the packet at an instant.
    pub(super) fn judge(&self, at: u64) -> Foretold {
        let told = |reason, outcome| Foretold { reason, outcome, limit: None };
        if self.entry.allows() {
            return told(Reason::Allowed, Outcome::Pass);
        }
        let host_observes = self.policy.observe != 0;
        if self.entry.blocks(|| at) {
            return told(Reason::Blocked, if host_observes { Outcome::Observe } else { Outcome::Drop });
        }
        if self.is_kept_away(at) {
            let outcome = if host_observes { Outcome::Observe } else { self.answered(Outcome::Reject, at) };
            return told(Reason::BreakerOpen, outcome);
        }
        // As the program does: the first limit that refuses ends it; one that only observes lets it go on, and the first
        // of those names the verdict.
        let mut verdict = told(Reason::Admitted, Outcome::Pass);
        for (index, (number, limit)) in self.concurrent.iter().enumerate() {
            let refusal = self.weigh_connection(index, at);
            if limit.is_guarantee() {
                if refusal.is_none() && self.asks(limit) {
                    break;
                }
                continue;
            }
            let Some(reason) = refusal else { continue };
            let outcome = self.answered(outcome(limit, host_observes), at);
            let refusal = Foretold { reason, outcome, limit: Some(*number) };
            if outcome != Outcome::Observe {
                return refusal;
            }
            if verdict.outcome == Outcome::Pass {
                verdict = refusal;
            }
        }
        for (index, (number, limit)) in self.limits.iter().enumerate().filter(|(_, (_, it))| !it.is_guarantee()) {
            let Some(reason) = self.weigh(index, at).0 else { continue };
            let refusal =
                Foretold { reason, outcome: self.answered(outcome(limit, host_observes), at), limit: Some(*number) };
            if limit.observe == 0 {
                return refusal;
            }
            if verdict.outcome == Outcome::Pass {
                verdict = refusal;
            }
        }
        verdict
    }

    /// From when on the packet passes, at `now` or later.
    pub(super) fn passes_at(&self, now: u64) -> Option<u64> {
        let mut turns = vec![self.entry.blocked_until];
        turns.extend(self.turns_of_connections(now));
        turns.extend(self.turns_of_breakers(now));
        (0..self.limits.len()).for_each(|index| turns.extend(self.turns(index, now)));
        first(now, turns, |at| matches!(self.judge(at).outcome, Outcome::Pass | Outcome::Observe))
    }

    /// What each limit says at `now`, whatever the others do.
    pub(super) fn walk(&self, now: u64) -> Vec<Weighed> {
        let one = |(index, (number, limit)): (usize, &(u16, Limit))| {
            let (refusal, charge) = self.weigh(index, now);
            let (bucket, words) = match self.own(&charge, limit) {
                Some(words) => (Bucket::Own, words),
                None if charge.overflowed() => match self.shared(limit) {
                    Some(words) => (Bucket::Shared, words),
                    None => (Bucket::Absent, [0; 2]),
                },
                None => (Bucket::New, [0; 2]),
            };
            let (debt, window) = self.owed(limit, words, now);
            // An aggregate has the limit's own terms, whosever source shares it.
            let (record, overridden) = if bucket == Bucket::Shared { (*limit, false) } else { self.there(limit) };
            Weighed {
                number: *number,
                record,
                overridden,
                asked: charge.asked() || refusal.is_some(),
                refusal,
                bucket,
                debt,
                leased: 0,
                full_at: full_at(&record, self.clock(&record), debt, now),
                window,
                cost: charge.cost,
                under_way: None,
                passes_at: first(now, self.turns_until(index, now), |at| self.weigh(index, at).0.is_none()),
            }
        };
        let connections = (0..self.concurrent.len()).map(|index| self.walk_connection(index, now));
        connections.chain(self.limits.iter().enumerate().map(one)).collect()
    }

    /// The limit as it is for the source, and whether that is an override's doing.
    pub(super) fn there(&self, limit: &Limit) -> (Limit, bool) {
        match self.question.overridden(limit, self) {
            Some(Terms { price, depth }) => (Limit { price, depth, ..*limit }, true),
            None => (*limit, false),
        }
    }

    /// What the limit at an index says, after what the guarantees before it have said.
    fn weigh(&self, index: usize, at: u64) -> (Option<Reason>, Charge) {
        let mut question = self.question;
        let weigh = |question: &Question, limit: &Limit| {
            let mut charge = Charge::NOTHING;
            (weigh(limit, question, self, &mut At { nanos: at, clocks: &self.clocks }, &mut charge), charge)
        };
        for (_, guarantee) in self.limits[..index].iter().filter(|(_, limit)| limit.is_guarantee()) {
            if matches!(weigh(&question, guarantee), (None, charge) if charge.asked()) {
                question.guaranteed.note(guarantee);
            }
        }
        weigh(&question, &self.limits[index].1)
    }

    /// The words of the source's own bucket, as `throttle_common::table::check` finds it.
    fn own(&self, charge: &Charge, limit: &Limit) -> Option<[Ticks; 2]> {
        let [first, second] = self.sets_of(limit)?;
        let way = (0..WAYS).find(|&way| first[way].key == charge.key && !is_lock(first[way].tat))?;
        Some([first[way].tat, second[way].tat])
    }

    /// The words of the aggregate's bucket, where the limit lets sources without a place share it.
    fn shared(&self, limit: &Limit) -> Option<[Ticks; 2]> {
        if limit.overflow != Overflow::Aggregate as u8 {
            return None;
        }
        let place = self.question.shared(limit)?;
        Some([self.aggregate(place)?, self.aggregate(self.second(place, limit))?])
    }

    /// The set in which the source has its bucket, and the one with the second words; the same where there are none.
    fn sets_of(&self, limit: &Limit) -> Option<[[Slot; WAYS]; 2]> {
        let place = self.question.home(limit)?.set;
        Some([self.set(place)?.0, self.set(self.second(place, limit))?.0])
    }

    fn second(&self, place: u32, limit: &Limit) -> u32 {
        if limit.is_sliding() { place + self.question.region(limit).sets } else { place }
    }

    /// The instants at which a limit may change its mind: a bucket that matters to it has room for the packet, or is
    /// full and so free for another source.
    fn turns(&self, index: usize, now: u64) -> Vec<u64> {
        let limit = &self.limits[index].1;
        if limit.is_sliding() {
            return self.turns_of_windows(index, now);
        }
        let (_, charge) = self.weigh(index, now);
        let clock = self.clock(limit);
        let reads = limit.reading(clock.at(now));
        // What a window does not pay back its next ones do, as they begin.
        let steps = |span: Ticks| if limit.window == 0 { span } else { span.next_multiple_of(limit.window) };
        let after = |span: Ticks| clock.when(now, reads.wrapping_add(steps(span)));
        let buckets = self.question.home(limit).and_then(|home| self.set(home.set)).into_iter().flat_map(|set| set.0);
        let tats =
            buckets.map(|slot| slot.tat).chain(self.question.shared(limit).and_then(|place| self.aggregate(place)));
        // The source's own and its aggregate's; with a guarantee there may be room sooner.
        let [own, shared] = [self.there(limit).0.depth, limit.depth];
        let depths = [own, own + limit.overdraft(), shared, shared + limit.overdraft()];
        let waits = |tat: Ticks| depths.map(|depth| gcra::wait(tat, reads, charge.cost, depth));
        tats.flat_map(|tat| waits(tat).into_iter().chain([gcra::debt(tat, reads)])).map(after).collect()
    }

    /// Likewise, those of the guarantees before it included.
    fn turns_until(&self, index: usize, now: u64) -> Vec<u64> {
        let guarantees = (0..index).filter(|&before| self.limits[before].1.is_guarantee());
        guarantees.chain([index]).flat_map(|index| self.turns(index, now)).collect()
    }

    /// Likewise of one whose windows slide: the ends of this one and the next, and the instant in each at which so little of
    /// the window before is left that there is room. Nobody sends meanwhile, and so what is counted only grows less.
    fn turns_of_windows(&self, index: usize, now: u64) -> Vec<u64> {
        let limit = &self.limits[index].1;
        let ends = [ends_at(limit, self.clock(limit), now, 0), ends_at(limit, self.clock(limit), now, 1)];
        let passes = |at: u64| self.weigh(index, at).0.is_none();
        let mut turns = ends.to_vec();
        for (begin, end) in [(now, ends[0]), (ends[0], ends[1])] {
            if !passes(begin) && passes(end - 1) {
                let (mut refused, mut first) = (begin, end - 1);
                while first - refused > 1 {
                    let middle = refused.midpoint(first);
                    if passes(middle) { first = middle } else { refused = middle }
                }
                turns.push(first);
            }
        }
        turns
    }

    /// A rejection is answered where that is due and the host's budget for answers has room; else it is a drop.
    fn answered(&self, outcome: Outcome, at: u64) -> Outcome {
        let budget = &self.policy.answers;
        let room = gcra::admit(self.answers, gcra::ticks(at), budget.cost, budget.depth).is_some();
        if outcome == Outcome::Reject && !(self.answerable && room) { Outcome::Drop } else { outcome }
    }

    /// The health clock of a limit.
    fn clock(&self, limit: &Limit) -> &Timeline {
        timeline(&self.clocks, limit.clock)
    }

    /// What the words of a bucket owe, and the window that runs.
    fn owed(&self, limit: &Limit, words: [Ticks; 2], now: u64) -> (Ticks, Option<Window>) {
        let reads = self.clock(limit).at(now);
        if limit.window == 0 {
            return (gcra::debt(words[0], reads), None);
        }
        let (mut running, mut before, mut weighs) = (words[0], 0, 0);
        if limit.is_sliding() {
            let window = limit.sliding(reads);
            (running, before) = window.turn(words[0], words[1]);
            (before, weighs) = (window.owed(before), window.weight(before));
        }
        let used = gcra::debt(running, limit.reading(reads));
        (used + weighs, Some(Window { ends_at: ends_at(limit, self.clock(limit), now, 0), used, before }))
    }
}

/// The first of these instants, from `now` on, at which something is so; `now` itself is one of them.
pub(super) fn first(now: u64, turns: Vec<u64>, is: impl Fn(u64) -> bool) -> Option<u64> {
    let mut turns: Vec<u64> = turns.into_iter().filter(|&at| at > now && at < u64::MAX).chain([now]).collect();
    turns.sort_unstable();
    turns.dedup();
    turns.into_iter().find(|&at| is(at))
}
