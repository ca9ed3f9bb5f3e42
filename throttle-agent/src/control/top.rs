//! One look at who talks, which limits act, and why packets are refused.

use std::{cmp::Reverse, collections::HashMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use throttle_common::{
    gcra,
    records::{self, Limit},
    table::WAYS,
    words::{Per, Unit},
};

use super::{
    Control, kernel, views,
    weighed::{unit_price, units},
};
use crate::{
    api::wire::{Event, Problem, ProblemKind, RefusedSource, Talker, Top, TopLimit, TopQuery},
    datapath::{self, Source},
    policy,
};

/// Talkers where the question names no number.
const TALKERS: u16 = 50;
/// The most that one look shows.
const MOST: u16 = 1000;
/// How old a sampled refusal may be to count.
const RECENT: SignedDuration = SignedDuration::from_secs(60);

impl Control {
    /// One look; `events` are the sampled refusals that the agent keeps. The table is read once, a region after the other.
    pub fn top(&self, query: TopQuery, events: &[Arc<Event>]) -> Result<Top, Problem> {
        let most = query.most.unwrap_or(TALKERS);
        if !(1..=MOST).contains(&most) {
            return Err(Problem::new(ProblemKind::Malformed, format!("most: write 1 to {MOST}")));
        }
        let (now, most) = (self.datapath.now(), usize::from(most));
        let at = self.clock.wall(now);
        let recent: Vec<_> = events.iter().filter(|event| at.duration_since(event.time) <= RECENT).collect();
        let (mut talkers, mut limits) = (Vec::new(), Vec::new());
        for (limit, held) in self.held_limits() {
            let mut busy = 0;
            for (family, region) in held.record.regions() {
                let found = self.datapath.talkers(&held.record, family, most);
                busy += found.busy;
                let refused = self.refused_by(limit, region.prefix, &recent);
                talkers.extend(found.most.iter().map(|it| self.talker(it, &held.record, &refused, now)));
            }
            let tally = self.datapath.limit_tally(held.number).map_err(|error| kernel(&error))?;
            limits.push(TopLimit {
                limit: limit.name.clone(),
                service: limit.service.clone(),
                unit: limit.unit.name().to_owned(),
                rate: limit.allowance_with_guarantee(),
                window: self
                    .datapath
                    .window_state(held.record.clock)
                    .map(|window| window.connections)
                    .filter(|&window| limit.per == Per::Service && limit.concurrent.is_some_and(|most| window < most)),
                mode: limit.mode,
                tallies: views::tallies(&tally),
                in_aggregates: if held.record.is_concurrency() {
                    self.datapath.open_in_aggregates(&held.record)
                } else {
                    0
                },
                busy,
                slots: if held.record.is_shared() {
                    0
                } else {
                    held.record.regions().map(|(_, region)| u64::from(region.sets) * WAYS as u64).sum()
                },
            });
        }
        talkers.sort_by(|one, other| weight(other).total_cmp(&weight(one)));
        keep_of_each_kind(&mut talkers, most, |talker| talker.open.is_some());
        let mut refused = refused(&recent);
        refused.truncate(most);
        Ok(Top {
            at,
            clock_seconds: now as f64 / 1e9,
            revision: self.head().revision,
            mode: self.mode(),
            talkers,
            limits,
            health: self.health_lines(),
            reasons: self.reasons()?,
            refused,
        })
    }

    /// Sampled refusals of a limit by who owes there: the prefix that makes a source, the tenant; `None` is everybody.
    fn refused_by(&self, limit: &policy::Limit, prefix: u8, recent: &[&Arc<Event>]) -> HashMap<Option<Source>, u64> {
        let owes = |source: IpAddr| match limit.per {
            Per::Source => IpNet::new(source, prefix).ok().map(|net| Source::Prefix(net.trunc())),
            Per::Tenant => self.datapath.tenant_of(source.into()).map(Source::Tenant),
            Per::Service | Per::Host => None,
        };
        let mut counts = HashMap::new();
        let its = recent.iter().filter(|event| event.limit.as_deref() == Some(limit.name.as_str()));
        for source in its.filter_map(|event| event.source) {
            *counts.entry(owes(source)).or_default() += 1;
        }
        counts
    }

    fn talker(&self, it: &datapath::Talker, limit: &Limit, refused: &HashMap<Option<Source>, u64>, now: u64) -> Talker {
        let concurrency = limit.is_concurrency();
        // A window begins anew, and with it what it has admitted.
        let reads = self.datapath.timeline(limit).at(now);
        let since = if limit.window == 0 { it.full_at } else { gcra::debt(it.full_at, limit.reading(reads)) };
        Talker {
            source: match it.source {
                Source::Tenant(number) => format!("tenant {}", self.datapath.tenant(number)),
                source => source.to_string(),
            },
            limit: records::name_str(&limit.name).to_owned(),
            unit: Unit::from_number(limit.unit).map_or("", Unit::name).to_owned(),
            used: it.debt as f64 / it.depth.max(1) as f64,
            room: units(limit, it.depth.saturating_sub(it.debt)),
            open: concurrency.then(|| units(limit, it.debt)),
            debt_seconds: (self.datapath.full_at(limit, it.debt, now) - now) as f64 / 1e9,
            charged: if concurrency { 0.0 } else { since as f64 / unit_price(limit) },
            refused: refused.get(&Some(it.source)).or_else(|| refused.get(&None)).copied().unwrap_or_default(),
        }
    }
}

/// Keeps the first so many of those that a rate limits, and of those whose open connections are counted: a flood of the ones
/// does not hide the others.
fn keep_of_each_kind<T>(talkers: &mut Vec<T>, most: usize, is_counted: impl Fn(&T) -> bool) {
    let mut left = [most; 2];
    talkers.retain(|it| {
        let left = &mut left[usize::from(is_counted(it))];
        let keeps = *left > 0;
        *left = left.saturating_sub(1);
        keeps
    });
}

/// What a talker is sorted by: who has no room comes first, and among them who was refused most; then who owes most.
fn weight(talker: &Talker) -> f64 {
    let refused = if talker.room == 0 { 1.0 + talker.refused as f64 } else { 0.0 };
    refused + talker.used.min(1.0)
}

/// Sampled refusals by source, limit and reason, the most frequent first.
fn refused(recent: &[&Arc<Event>]) -> Vec<RefusedSource> {
    type By<'a> = (Option<IpAddr>, Option<&'a str>, &'a str, &'a str);
    let mut counts: HashMap<By<'_>, (u64, Timestamp)> = HashMap::new();
    for event in recent {
        let by = (event.source, event.limit.as_deref(), event.reason.as_str(), event.outcome.as_str());
        let (count, last) = counts.entry(by).or_insert((0, event.time));
        *count += 1;
        *last = (*last).max(event.time);
    }
    let mut refused: Vec<_> = counts
        .into_iter()
        .map(|((source, limit, reason, outcome), (sampled, last))| RefusedSource {
            source,
            reason: reason.to_owned(),
            outcome: outcome.to_owned(),
            limit: limit.map(str::to_owned),
            sampled,
            last,
        })
        .collect();
    refused.sort_by_key(|it| (Reverse(it.sampled), it.source, it.limit.clone()));
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_of_one_kind_do_not_hide_the_other() {
        let mut talkers = [vec![(0, false); 60], vec![(1, true); 3], vec![(2, false); 5]].concat();
        keep_of_each_kind(&mut talkers, 50, |(_, counted)| *counted);
        assert_eq!(talkers, [vec![(0, false); 50], vec![(1, true); 3]].concat());
    }
}
