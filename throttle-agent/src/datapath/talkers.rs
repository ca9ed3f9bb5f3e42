//! Who uses the table: the sources that owe most, read through the mapping while packets go on.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use ipnet::IpNet;
use throttle_common::{
    gcra::{self, Ticks},
    packet::Family,
    records::{Limit, NONE, Region},
    table,
    words::Per,
};

use super::{Compartment, Datapath};

/// A source as a region of the table remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Itself.
    Prefix(IpNet),
    /// The sources of the tenant of this number.
    Tenant(u16),
    /// A prefix too long for a key of 64 bits: only its keyed hash is kept, which leads back to nobody.
    Fingerprint(u64),
}

/// A source that owes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Talker {
    /// Who.
    pub source: Source,
    /// What its bucket owes at the instant at which it was read.
    pub debt: Ticks,
    /// What it may owe: what the limit says, or an override.
    pub depth: Ticks,
    /// When its bucket is full again, as the slot has it: between two looks this grows by what was charged, plus the
    /// time for which the bucket was full, or, of a window, what it had left.
    pub full_at: Ticks,
}

/// What one region holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Talkers {
    /// Those that owe most, the largest debt first.
    pub most: Vec<Talker>,
    /// How many owe something.
    pub busy: u64,
    /// Its fullest compartment, where it is divided.
    pub fullest: Option<Compartment>,
}

impl Source {
    /// The source that has a key in this region: see [`throttle_common::records::Address::key`].
    pub fn of(key: u64, region: &Region, family: Family) -> Self {
        let prefix = |address: IpAddr| IpNet::new(address, region.prefix).map(|net| net.trunc());
        let prefix = match family {
            Family::V4 => prefix(IpAddr::from((!key as u32).to_be_bytes())),
            Family::V6 if region.prefix <= 64 => prefix(IpAddr::from((u128::from(!key) << 64).to_be_bytes())),
            Family::V6 => return Self::Fingerprint(key),
        };
        prefix.map_or(Self::Fingerprint(key), Self::Prefix)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) if prefix.prefix_len() == 0 => f.write_str("everybody"),
            Self::Prefix(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => prefix.addr().fmt(f),
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Tenant(number) => write!(f, "tenant {number}"),
            Self::Fingerprint(key) => write!(f, "#{key:016x}"),
        }
    }
}

impl Datapath {
    /// The `most` sources of a limit that owe most, of one family. One pass over the region, in the order of memory.
    pub fn talkers(&self, limit: &Limit, family: Family, most: usize) -> Talkers {
        /// Words between two readings of the clock: see [`Datapath::occupancy`].
        const BETWEEN_READINGS: usize = 256;
        let region = limit.region(family);
        let source = |key| match Per::from_number(limit.per) {
            Some(Per::Tenant) => Source::Tenant(key as u16),
            _ => Source::of(key, region, family),
        };
        let mut held = Held { most, heap: BinaryHeap::with_capacity(most + 1) };
        // Where buckets have two words, the second ones lie behind.
        let behind = region.extent() - region.sets;
        let mut compartments = Vec::new();
        for (tenant, Region { base, sets, .. }) in region.divided() {
            let mut busy = 0;
            let [first, second] = [base, base + behind].map(|base| self.tables.buckets.run(base, sets));
            for (chunk, beside) in first.chunks(BETWEEN_READINGS).zip(second.chunks(BETWEEN_READINGS)) {
                let now = self.reads(limit);
                let (reading, window) = (limit.reading(now), limit.is_sliding().then(|| limit.sliding(now)));
                for (slot, beside) in chunk.chunks_exact(2).zip(beside.chunks_exact(2)) {
                    let mut full_at = slot[1].load(Ordering::Relaxed);
                    let mut weight = 0;
                    if let Some(window) = window {
                        let before;
                        (full_at, before) = window.turn(full_at, beside[1].load(Ordering::Relaxed));
                        weight = window.weight(before);
                    }
                    let debt = weight + if table::is_lock(full_at) { 0 } else { gcra::debt(full_at, reading) };
                    if debt > 0 {
                        busy += 1;
                        held.offer(debt, full_at, &slot[0]);
                    }
                }
            }
            compartments.push(Compartment { tenant, busy, slots: u64::from(sets) * table::WAYS as u64 });
        }
        let talker = |(debt, full_at, key)| {
            let source = source(key);
            Talker { source, debt, depth: self.depth_of(limit, &source), full_at }
        };
        let mut sorted: Vec<_> = held.heap.into_iter().map(|Reverse(entry)| entry).collect();
        sorted.sort_unstable_by_key(|&entry| Reverse(entry));
        Talkers {
            most: sorted.into_iter().map(talker).collect(),
            busy: compartments.iter().map(|it| it.busy).sum(),
            fullest: Compartment::fullest(&compartments, region),
        }
    }

    /// How deep a limit is for a source.
    fn depth_of(&self, limit: &Limit, source: &Source) -> Ticks {
        if limit.overridden == 0 {
            return limit.depth;
        }
        let generation = self.tables.in_force();
        let entry = match source {
            Source::Prefix(prefix) => self.entry_covering(*prefix),
            Source::Tenant(number) => self.sources.held().values().find(|it| it.tenant(generation) == *number),
            Source::Fingerprint(_) => None,
        };
        self.overrides.depth(generation, limit, entry.map_or(NONE, |entry| entry.class(generation)))
    }
}

/// The largest debts so far, the least of them on top.
struct Held {
    most: usize,
    heap: BinaryHeap<Reverse<(Ticks, Ticks, u64)>>,
}

impl Held {
    /// Takes a debt if it is among the largest. Of most slots only the debt is looked at.
    fn offer(&mut self, debt: Ticks, full_at: Ticks, key: &AtomicU64) {
        if self.heap.len() == self.most && self.heap.peek().is_none_or(|Reverse(least)| least.0 >= debt) {
            return;
        }
        self.heap.push(Reverse((debt, full_at, key.load(Ordering::Relaxed))));
        if self.heap.len() > self.most {
            self.heap.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use throttle_common::hash::Secret;

    use super::*;

    const SECRET: Secret = [7, 9];

    #[test]
    fn a_key_leads_back_to_its_source() {
        let named = |text: &str, prefix: u8| {
            let (address, family) = super::super::explain::address(text.parse().unwrap());
            let region = Region { prefix, sets: 1, ..Region::default() };
            Source::of(region.key(address, family, SECRET), &region, family).to_string()
        };
        assert_eq!(named("192.0.2.77", 32), "192.0.2.77");
        assert_eq!(named("192.0.2.77", 24), "192.0.2.0/24");
        assert_eq!(named("2001:db8:1:2:3::4", 64), "2001:db8:1:2::/64");
        assert_eq!(named("2001:db8:1:2:3::4", 48), "2001:db8:1::/48");
        assert!(named("2001:db8:1:2:3::4", 128).starts_with('#'), "a fingerprint leads back to nobody");
    }

    #[test]
    fn the_largest_debts_are_kept_whatever_their_order() {
        let mut held = Held { most: 3, heap: BinaryHeap::new() };
        for debt in [5, 1, 9, 7, 3, 8, 2] {
            held.offer(debt, debt, &AtomicU64::new(debt));
        }
        let mut kept: Vec<_> = held.heap.into_iter().map(|Reverse((debt, ..))| debt).collect();
        kept.sort_unstable();
        assert_eq!(kept, [7, 8, 9]);
        let mut none = Held { most: 0, heap: BinaryHeap::new() };
        none.offer(1, 1, &AtomicU64::new(1));
        assert!(none.heap.is_empty());
    }
}
