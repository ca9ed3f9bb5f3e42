//! How full the table is, and what one source owes.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use throttle_common::{
    gcra::{self, TICKS_PER_NANO, Ticks},
    packet::Family,
    records::{Address, Limit, Region},
    table::{OPEN_WAYS, WAYS},
};

use super::Datapath;

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
    /// Aggregates' buckets that owe something.
    pub aggregates_busy: u64,
    /// All aggregates' buckets.
    pub aggregates: u64,
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
        let now = gcra::ticks(self.now());
        Occupancy { v4: self.usage(&limit.v4, now), v6: self.usage(&limit.v6, now) }
    }

    fn usage(&self, region: &Region, now: Ticks) -> Use {
        let busy = |word: &AtomicU64| u64::from(gcra::debt(word.load(Ordering::Relaxed), now) > 0);
        // A slot is a key and a bucket.
        let slots = self.tables.buckets.run(region.base, region.sets).chunks_exact(2);
        let aggregates = self.tables.aggregates.run(region.base, region.sets);
        Use {
            busy: slots.map(|slot| busy(&slot[1])).sum(),
            slots: u64::from(region.sets) * WAYS as u64,
            aggregates_busy: aggregates.iter().map(busy).sum(),
            aggregates: region.sets.into(),
        }
    }

    /// What a limit remembers of a source that would send `units` next. `None` where the limit does not touch its
    /// family.
    pub fn bucket(&self, limit: &Limit, source: IpAddr, units: u32) -> Option<Bucket> {
        let (address, family) = match source {
            IpAddr::V4(address) => (Address::v4(address.to_bits()), Family::V4),
            IpAddr::V6(address) => (Address::v6(address.to_bits()), Family::V6),
        };
        let region = limit.region(family);
        if region.sets == 0 {
            return None;
        }
        let secret = self.tables.control().secret;
        let now = gcra::ticks(self.now());
        let key = region.key(address, family, secret);
        let set = self.tables.buckets.get(region.set(key, secret));
        // As the programs do: of two slots with one key the lower is the source's.
        let slot = set.iter().find(|slot| slot.key == key);
        let tat = slot.map_or(now, |slot| slot.tat);
        let aggregate = self.tables.aggregates.get(region.aggregate(address, family, secret));
        Some(Bucket {
            held: slot.is_some(),
            debt: span(gcra::debt(tat, now)),
            wait: span(gcra::wait(tat, now, limit.price.cost(units), limit.depth)),
            aggregate_debt: span(gcra::debt(aggregate, now)),
            room: set.iter().take(OPEN_WAYS).any(|slot| gcra::debt(slot.tat, now) == 0),
        })
    }
}

fn span(ticks: Ticks) -> Duration {
    Duration::from_nanos(ticks.div_ceil(TICKS_PER_NANO))
}
