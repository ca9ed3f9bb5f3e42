//! How full the table is, and what one source owes.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use throttle_common::{
    gcra::{self, Ticks},
    records::{Home, Limit, NONE, Region, Whose},
    table::{self, OPEN_WAYS, WAYS},
};

use super::{Datapath, explain::address};

/// How full the regions of a limit are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// IPv4.
    pub v4: Use,
    /// IPv6.
    pub v6: Use,
}

/// How full one region is. A slot is busy while its source owes something; all others are free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Slots of sources that owe something.
    pub busy: u64,
    /// All slots; of four, one is kept for proven sources.
    pub slots: u64,
    /// Its fullest compartment, where it is divided.
    pub fullest: Option<Compartment>,
    /// Aggregates' buckets that owe something.
    pub aggregates_busy: u64,
    /// All aggregates' buckets.
    pub aggregates: u64,
}

/// How full a compartment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compartment {
    /// The lowest number of a tenant that has it, or [`NONE`] where it is no tenant's.
    pub tenant: u16,
    /// Slots of sources that owe something.
    pub busy: u64,
    /// All slots.
    pub slots: u64,
}

impl Compartment {
    /// The share of its slots that are busy, 0 to 1.
    pub fn occupancy(&self) -> f64 {
        if self.slots == 0 { 0.0 } else { self.busy as f64 / self.slots as f64 }
    }

    /// The fullest of all that a region has; `None` where it is not divided.
    pub(super) fn fullest(all: &[Self], region: &Region) -> Option<Self> {
        let divided = if region.compartments == 0 { &[] } else { all };
        divided.iter().max_by(|one, other| one.occupancy().total_cmp(&other.occupancy())).copied()
    }
}

/// What a limit remembers of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Whether the source has a slot of its own at present. Without one it owes nothing, or its aggregate does.
    pub held: bool,
    /// How long until the source's bucket is full again.
    pub debt: Duration,
    /// How long until its next packet is admitted; zero when it would be now.
    pub wait: Duration,
    /// How long until the bucket of its aggregate is full again.
    pub aggregate_debt: Duration,
    /// Whether another source could still take a slot where this one looks for its own.
    pub room: bool,
}

impl Datapath {
    /// Counts the busy slots of a limit's regions.
    pub fn occupancy(&self, limit: &Limit) -> Occupancy {
        Occupancy { v4: self.usage(limit, &limit.v4), v6: self.usage(limit, &limit.v6) }
    }

    fn usage(&self, limit: &Limit, region: &Region) -> Use {
        // Where buckets have two words, the second ones lie behind.
        let behind = region.extent() - region.sets;
        let aggregates = [region.base, region.base + behind].map(|base| self.tables.aggregates.run(base, region.sets));
        let compartments = region.divided().map(|(tenant, Region { base, sets, .. })| {
            // Of a slot's two words the second is the bucket.
            let busy = self.count_busy(limit, [base, base + behind].map(|base| self.tables.buckets.run(base, sets)), 2);
            Compartment { tenant, busy, slots: u64::from(sets) * WAYS as u64 }
        });
        let compartments: Vec<_> = compartments.collect();
        Use {
            busy: compartments.iter().map(|it| it.busy).sum(),
            slots: u64::from(region.sets) * WAYS as u64,
            fullest: Compartment::fullest(&compartments, region),
            aggregates_busy: self.count_busy(limit, aggregates, 1),
            aggregates: region.sets.into(),
        }
    }

    /// Counts the buckets that owe something, the last of every `words` words.
    ///
    /// The clock is read again every few microseconds: a bucket that owes a millisecond would else be counted though it
    /// was charged after the scan began, together with all that were full again by then.
    fn count_busy(&self, limit: &Limit, [first, second]: [&[AtomicU64]; 2], words: usize) -> u64 {
        const BETWEEN_READINGS: usize = 256;
        let owes = |bucket: &AtomicU64, now: Ticks| {
            let tat = bucket.load(Ordering::Relaxed);
            !table::is_lock(tat) && gcra::debt(tat, now) > 0
        };
        let busy = |(first, second): (&[AtomicU64], &[AtomicU64])| {
            let now = limit.readings(self.reads(limit));
            let buckets = first.iter().zip(second).skip(words - 1).step_by(words);
            let sliding = limit.is_sliding();
            buckets.filter(|(first, second)| owes(first, now[0]) || (sliding && owes(second, now[1]))).count() as u64
        };
        first.chunks(BETWEEN_READINGS).zip(second.chunks(BETWEEN_READINGS)).map(busy).sum()
    }

    /// What a limit remembers of a source that would send `units` next. `None` where the limit does not touch its
    /// family.
    pub fn bucket(&self, limit: &Limit, source: IpAddr, units: u32) -> Option<Bucket> {
        let entry = self.entry_covering(source.into());
        let tenant = entry.map_or(NONE, |entry| entry.tenant(self.tables.in_force()));
        let (source, family) = address(source);
        let (whose, secret) = (Whose { source, family, tenant }, self.tables.control().secret);
        let Home { key, set } = limit.home(&whose, secret)?;
        let (nanos, timeline) = (self.now(), self.timeline(limit));
        let reads = timeline.at(nanos);
        let now = limit.reading(reads);
        let span = |owed: Ticks| Duration::from_nanos(timeline.when(nanos, reads.wrapping_add(owed)) - nanos);
        let set = self.tables.buckets.get(set);
        // As the programs do: of two slots with one key the lower is the source's.
        let slot = set.iter().find(|slot| slot.key == key);
        let tat = slot.map_or(now, |slot| slot.tat);
        let aggregate = self.tables.aggregates.get(limit.aggregate(&whose, secret));
        Some(Bucket {
            held: slot.is_some(),
            debt: span(gcra::debt(tat, now)),
            wait: span(gcra::wait(tat, now, limit.price.cost(units), limit.depth)),
            aggregate_debt: span(gcra::debt(aggregate, now)),
            room: set.iter().take(OPEN_WAYS).any(|slot| gcra::debt(slot.tat, now) == 0),
        })
    }
}
