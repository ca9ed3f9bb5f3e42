//! What limits come to over time, and the warnings that follow: pure, from one look at each limit after the other.
//!
//! A look is the limit's counts and the sources that owe most ([`Look`]); [`Trends::add`] compares it with the one before.
//! Each warning has a threshold, with its reason where it stands, and is silent where there is too little traffic to
//! judge by.

mod carriers;
mod hour;

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use throttle_common::{
    connections::PLACE,
    gcra::TICKS_PER_NANO,
    records::{Limit, LimitTally, name_str},
    words::Unit,
};

use self::{
    carriers::Carriers,
    hour::{HOUR, Hour},
};
use super::{
    occupancy::{CROWDED, in_part, in_use},
    weighed::unit_price,
};
use crate::datapath::Talker;

/// How long between two looks: they read the tables of all limits, which takes some 20 ms where they are large.
pub(super) const PAUSE: Duration = Duration::from_secs(10);
/// Sources that a look at a region names.
pub(super) const NAMED: usize = 16;

/// Looks in a row before it is told: half a minute, longer than a burst that ends by itself.
const IN_A_ROW: u32 = 3;

/// Looks in a row before it is told that a limit is exceeded: connections that are older than a limit do not grow more.
const BEYOND: u32 = 2;

/// How long a limit is watched before it is said never to bind: traffic comes in days.
const LONG: u64 = 24 * HOUR;
/// Packets admitted meanwhile: below one a second nothing can be said of what sources do.
const A_LOT: u64 = 86_400;
/// The share of its burst that a source may have owed: a limit that was a quarter used is not idle.
const NEAR: f64 = 0.25;

/// The share of a region from which its growth is told: half of what crowds it. Before, the forecast would reach
/// further than what it is drawn from.
const FILLING: f64 = CROWDED / 2.0;
/// How far ahead: time enough to act, and no guess about tomorrow.
const AHEAD: f64 = 600.0;
/// Looks over which a region must have grown every time.
const GROWING: usize = 4;

/// One look at a limit.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// When, on the kernel's clock, in nanoseconds.
    pub(super) at: u64,
    /// What the limit did so far.
    pub(super) tally: LimitTally,
    /// Its parts of the table, for IPv4 and IPv6.
    pub(super) regions: [Region; 2],
    /// How many connections are open, where it counts them.
    pub(super) open: u64,
}

/// What a part of the table holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Region {
    /// Who owes most, the largest debt first.
    pub(super) most: Vec<Talker>,
    /// How many owe something.
    pub(super) busy: u64,
    /// Where sources find no place first.
    pub(super) fullest: Part,
}

/// The fullest compartment of a region, or all of it where it is not divided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// Whose sources are in it; nobody's in particular where it is the whole.
    pub(super) whose: Option<String>,
    /// Slots of sources that owe something.
    pub(super) busy: u64,
    /// All slots.
    pub(super) slots: u64,
}

/// All limits, by number.
#[derive(Debug, Default)]
pub(super) struct Trends(HashMap<u16, Trend>);

/// One limit since it has been what it is.
#[derive(Debug)]
struct Trend {
    record: Limit,
    /// The look since which it has not refused anything, and was never near to it.
    first: Look,
    last: Look,
    /// Looks in a row in which few carried most, and who did so last.
    few: u32,
    /// Looks in a row in which somebody had more connections than at the one before, and more than the limit allows.
    beyond: u32,
    carriers: Carriers,
    /// The largest share of a burst that a source owed since then.
    peak: f64,
    hour: Hour,
    /// The largest share of its rate that a source used in a whole hour since then; nothing where an hour did not tell.
    busiest: Option<f64>,
    /// The fullest parts of both regions, at the last looks.
    grown: [VecDeque<(u64, Part)>; 2],
}

impl Trends {
    /// Takes looks at all limits that are in force; what is said of others is forgotten.
    pub(super) fn add(&mut self, looks: Vec<(u16, Limit, Look)>) {
        let mut before = std::mem::take(&mut self.0);
        for (number, record, look) in looks {
            let held = before.remove(&number).filter(|trend| trend.record == record && trend.last.at < look.at);
            let trend = match held {
                Some(mut trend) => {
                    trend.add(look);
                    trend
                }
                None => Trend::new(record, look),
            };
            self.0.insert(number, trend);
        }
    }

    /// What deserves a word, with its remedy, by the number of the limit.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut numbers: Vec<_> = self.0.keys().collect();
        numbers.sort();
        let trends = numbers.into_iter().map(|number| &self.0[number]);
        trends
            .flat_map(|trend| {
                [trend.carried_by_few(), trend.never_binds(), trend.exceeded()]
                    .into_iter()
                    .flatten()
                    .chain(trend.fills())
            })
            .collect()
    }
}

impl Trend {
    fn new(record: Limit, look: Look) -> Self {
        let mut trend = Self {
            record,
            last: look.clone(),
            few: 0,
            beyond: 0,
            carriers: Carriers::default(),
            peak: 0.0,
            hour: Hour::from(look.at),
            busiest: Some(0.0),
            grown: [VecDeque::new(), VecDeque::new()],
            first: look,
        };
        trend.note();
        trend
    }

    fn add(&mut self, look: Look) {
        let carriers = self.carriers(&look);
        self.few = if carriers.is_some() { self.few + 1 } else { 0 };
        self.carriers = carriers.unwrap_or_default();
        if self.hour.is_over(look.at) {
            let hour = std::mem::replace(&mut self.hour, Hour::from(look.at));
            self.busiest = match (self.busiest, hour.busiest()) {
                (Some(before), Some(now)) => Some(before.max(now)),
                _ => None,
            };
        }
        let [before, now] = [&self.last, &look].map(|look| excess(look).map_or(0, |talker| talker.debt));
        self.beyond = if self.record.is_concurrency() && now > before { self.beyond + 1 } else { 0 };
        self.last = look;
        self.note();
    }

    /// Notes what the last look says by itself.
    fn note(&mut self) {
        for (grown, region) in self.grown.iter_mut().zip(&self.last.regions) {
            let used = region.most.iter().map(|talker| talker.debt as f64 / talker.depth.max(1) as f64);
            self.peak = used.fold(self.peak, f64::max);
            grown.push_back((self.last.at, region.fullest.clone()));
            if grown.len() > GROWING {
                grown.pop_front();
            }
        }
        // What a source used of its rate is told by how its bucket's end moves on: windows do by themselves, and where
        // connections are counted there is no rate.
        if self.record.window == 0 && !self.record.is_concurrency() {
            self.hour.add(&self.last);
        }
        // What it did before is of no account: its counters outlive agents.
        if refusals(&self.last.tally) != refusals(&self.first.tally) || self.peak >= NEAR {
            self.first = self.last.clone();
            (self.peak, self.hour, self.busiest) = (0.0, Hour::from(self.last.at), Some(0.0));
        }
    }

    fn name(&self) -> &str {
        name_str(&self.record.name)
    }

    /// A limit that has not refused anything for long, and was never near to it.
    fn never_binds(&self) -> Option<String> {
        let watched = self.last.at - self.first.at;
        let traffic = self.last.tally.admitted.packets.saturating_sub(self.first.tally.admitted.packets);
        if watched < LONG || traffic < A_LOT {
            return None;
        }
        let quiet = format!("limit `{}` has refused nothing in {} h", self.name(), watched / HOUR);
        let shared = self.record.is_shared();
        if self.record.is_concurrency() {
            let most = self.record.depth / PLACE;
            let whose = if shared { "were open at once" } else { "of a source were open at once" };
            return Some(format!(
                "{quiet}, and never more than {:.0} of {most} connections {whose} when it was looked at; lower it, or keep \
                 it for what has not come yet",
                self.peak * most as f64
            ));
        }
        let who = if shared { "bucket" } else { "source" };
        let near = format!(
            "{quiet}, and no {who} owed more than {:.2} % of its burst when it was looked at",
            self.peak * 100.0
        );
        Some(match self.busiest {
            Some(share) => {
                let rate = 2.0 * share * 1e9 * TICKS_PER_NANO as f64 / unit_price(&self.record);
                let unit = Unit::from_number(self.record.unit).map_or("units", Unit::name);
                format!(
                    "{near}; its busiest {who} used {:.2} % of its rate in the busiest hour, twice that is {rate:.2} {unit} a \
                     second: lower the rate to it, or keep the limit for what has not come yet",
                    share * 100.0
                )
            }
            None => format!("{near}; lower its rate, or keep it for what has not come yet"),
        })
    }

    /// More connections are open than the limit allows, and more with every look: they come where it does not see them.
    fn exceeded(&self) -> Option<String> {
        let most = excess(&self.last).filter(|_| self.beyond >= BEYOND)?;
        let (open, allowed) = (most.debt / PLACE, most.depth / PLACE);
        Some(format!(
            "limit `{}`: {open} connections are open where it allows {allowed}, and more with every look: a NAT rule of \
             this host may redirect them from a port that is not the service's, where no limit is met; limit that port too, \
             or remove the rule",
            self.name()
        ))
    }

    /// Regions that grow so that they are soon full.
    fn fills(&self) -> impl Iterator<Item = String> {
        // Where sources share buckets, each has a place whoever else there is.
        let shared = self.record.is_shared();
        ["ipv4", "ipv6"].into_iter().filter(move |_| !shared).zip(&self.grown).filter_map(|(family, grown)| {
            let (rest, part) = (seconds_until_crowded(grown)?, &grown.back()?.1);
            // What one packet or one burst owes is gone after the burst's time: a stream of new sources grows no longer.
            // What is open lasts as long as somebody wants it to.
            let seconds = self.record.depth as f64 / (1e9 * TICKS_PER_NANO as f64);
            let lasts = if self.record.is_concurrency() { f64::INFINITY } else { seconds };
            (rest <= AHEAD && rest <= lasts).then(|| {
                format!(
                    "limit `{}`: {:.0} % of its {family} {}{}, and more with every look; at this pace new sources find no \
                     place in {rest:.0} s. Raise `sources`, or look with `throttle top` who they are",
                    self.name(),
                    part.busy as f64 / part.slots as f64 * 100.0,
                    in_use(self.record.is_concurrency()),
                    part.whose.as_deref().map_or_else(String::new, in_part),
                )
            })
        })
    }
}

/// How often a limit said no, or would have, or had no place for a source.
fn refusals(tally: &LimitTally) -> [u64; 3] {
    [tally.refused, tally.observed, tally.overflowed].map(|it| it.packets)
}

/// Of those who have more than they may, who has most.
fn excess(look: &Look) -> Option<&Talker> {
    let talkers = look.regions.iter().flat_map(|region| &region.most);
    talkers.filter(|talker| talker.debt > talker.depth).max_by_key(|talker| talker.debt)
}

/// How long until a part is crowded, at the pace of the looks; `None` where it does not grow, where another was the fullest
/// meanwhile, or where too few are busy to tell.
fn seconds_until_crowded(grown: &VecDeque<(u64, Part)>) -> Option<f64> {
    let ((begin, least), (end, now)) = (grown.front()?, grown.back()?);
    let (busy, slots) = (now.busy as f64, now.slots as f64);
    let rises = |one: &Part, next: &Part| one.busy < next.busy && one.whose == next.whose && one.slots == next.slots;
    let rising = grown.iter().zip(grown.iter().skip(1)).all(|((_, one), (_, next))| rises(one, next));
    if grown.len() < GROWING || !rising || busy < FILLING * slots || busy >= CROWDED * slots {
        return None;
    }
    let pace = (now.busy - least.busy) as f64 / ((end - begin) as f64 / 1e9);
    Some((CROWDED * slots - busy) / pace)
}

#[cfg(test)]
mod tests;
