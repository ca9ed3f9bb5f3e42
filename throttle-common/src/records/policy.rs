//! A compiled policy: what the agent writes into the spare generation and every packet reads.

use super::{Address, NAME, NO_CLOCK, NONE, PORTS_IN_WORD, SCOPE_LIMITS};
use crate::{
    connections,
    gcra::{Price, Ticks},
    hash::{self, Secret},
    packet::Family,
    table::WAYS,
    windows::{self, Sliding},
    words::{Algorithm, Per, Reason, Unit},
};

/// What every packet reads first. One element.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// [`super::LAYOUT`] of whoever created the maps.
    pub layout: u64,
    /// The place of keys in their regions; drawn when the table is created, never changed.
    pub secret: Secret,
    /// How many policies have been put in force; the lowest bit says which of the two is.
    pub generation: u32,
    /// Which source maps have entries, and how often entries have changed: see [`super::SourceMaps`].
    pub sources: u32,
    /// Sets in the table of buckets.
    pub sets: u32,
    /// 1 where what leaves by the throttled interfaces is seen; else no service is counted by its packets.
    pub sees_leaving: u32,
}

/// The head of one generation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The policy revision that this was compiled from.
    pub revision: u64,
    /// The answers that `reject` may send from this host.
    pub answers: Budget,
    /// The events that each CPU may report.
    pub events: Budget,
    /// The limits of packets that belong to no service.
    pub scope: Scope,
    /// 1 where the whole host only observes.
    pub observe: u8,
    /// 1 where services exist.
    pub has_services: u8,
    /// [`crate::words::Fate`] by [`Reason`] number.
    pub fates: [u8; FATES],
    /// 1 where every packet of the host meets a limit, so that the clock may as well be read first.
    pub clock_first: u8,
    /// 1 where a limit counts open connections, so that sockets are followed.
    pub counts_connections: u8,
    /// 1 where it counts those of a service by their packets, so that what leaves this host is looked at.
    pub counts_forwarded: u8,
    /// 1 where services or backends have breakers.
    pub has_breakers: u8,
    /// 1 where the time to first byte of a service is measured, so that what leaves this host is looked at.
    pub measures: u8,
    /// Of this power of two of flows one is measured: see [`crate::exchanges::Flow`].
    pub sample_shift: u8,
}

/// Room for the fates of all reasons.
pub const FATES: usize = 64;
const _: () = assert!(Reason::ALL.len() <= FATES);

/// A token bucket's constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// The cost of one.
    pub cost: Ticks,
    /// How deep the bucket is.
    pub depth: Ticks,
}

/// The limits that apply to a packet, in the order in which they are read and charged: first those on rates, then those
/// on open connections; of each the narrowest first, and guarantees before the limits that are as wide.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// How many of `limits` are on rates.
    pub count: u16,
    /// Limit numbers, 0 to [`super::MAX_LIMITS`].
    pub limits: [u16; SCOPE_LIMITS],
    /// How many behind them are on open connections: at most [`super::CONNECTION_LIMITS`].
    pub concurrent: u16,
    /// 1 where one of those on rates counts in windows.
    pub windows: u16,
    /// 1 where none of those on rates counts in windows, is a guarantee, or has other terms for some.
    pub plain: u16,
}

/// A service. The destination decides where several share a port: the first match of a candidate list wins.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The limits of its packets: the host's and its own.
    pub scope: Scope,
    /// Destination prefix, both halves masked; IPv4 in the low 32 bits of `low`.
    pub destination: Address,
    /// Mask of `destination`; all zero matches every destination of either family.
    pub mask: Address,
    /// 4 or 6 where there is a destination, 0 where there is none.
    pub family: u8,
    /// IANA protocol number (6, 17, 1; 1 stands for ICMP and ICMPv6).
    pub protocol: u8,
    /// 1 where its connections are counted by their packets, whether or not they end here.
    pub forwarded: u8,
    /// What is measured of it: a [`crate::words::Speaks`].
    pub measures: u8,
    /// Seconds after which a forwarded connection that nothing is heard of is forgotten; 0 where none is forwarded.
    pub idle_after: u32,
    /// The health clock of its limits, which is the number of its health window and of its measurements too.
    pub clock: u16,
    /// Its breaker's number; [`NONE`] where it has none.
    pub breaker: u16,
    /// How many connections may be open to it at once, as policy says; 0 where no limit of its own does. What is
    /// reserved by guarantees is among them.
    pub connections: u32,
    /// Its name.
    pub name: [u8; NAME],
}

/// A limit. Its number, stable by name, is its place in the array and in the tallies.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What its units cost.
    pub price: Price,
    /// How deep a bucket is.
    pub depth: Ticks,
    /// How long a window is; 0 where its clock flows, or stands still.
    pub window: Ticks,
    /// How much of a bucket a CPU takes at once, of which it then charges its packets; 0 where each is charged by itself.
    /// See [`crate::lease`].
    pub batch: Ticks,
    /// Where IPv4 sources have their buckets. Where sources share them, both families' regions are the same.
    pub v4: Region,
    /// Where IPv6 sources have their buckets.
    pub v6: Region,
    /// A [`crate::words::Unit`].
    pub unit: u8,
    /// A [`crate::words::Action`].
    pub action: u8,
    /// An [`crate::words::Overflow`].
    pub overflow: u8,
    /// 1 where it only observes.
    pub observe: u8,
    /// A [`crate::words::Algorithm`].
    pub algorithm: u8,
    /// A [`crate::words::Per`].
    pub per: u8,
    /// [`windows::shift`] of its window.
    pub window_shift: u8,
    /// 1 where it is a guarantee, of the limit that is named before the colon of its name.
    pub guarantee: u8,
    /// The health clock that it goes by, fixed when policy compiles: its service's, or the host's.
    pub clock: u16,
    /// Its number: its place in the array.
    pub number: u16,
    /// 1 where [`super::maps::OVERRIDES`] has other terms of it for some.
    pub overridden: u8,
    /// Zero.
    pub padding: [u8; 3],
    /// Its name; empty where the number is free.
    pub name: [u8; NAME],
}

/// What a limit allows: its own price and depth, or what an override has in their place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// What its units cost.
    pub price: Price,
    /// How deep a bucket is; 0 where it allows nothing.
    pub depth: Ticks,
}

/// Where the terms are that a class has of a limit, under a generation of policy.
#[inline(always)]
pub const fn override_key(generation: u32, limit: u16, class: u16) -> u64 {
    (generation as u64) << 32 | (limit as u64) << 16 | class as u64
}

/// Whom a packet comes from, as limits tell it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Whose {
    /// Its source.
    pub source: Address,
    /// The family of that.
    pub family: Family,
    /// Its tenant's number, or [`NONE`].
    pub tenant: u16,
}

/// Where a bucket lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// The key of its slot.
    pub key: u64,
    /// The set that has the slot.
    pub set: u32,
}

/// A limit's part of the table for one family.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Its first set, and its first aggregate.
    pub base: u32,
    /// Its sets, and its aggregates; 0 where the limit does not touch this family; 1 where all sources share a bucket.
    pub sets: u32,
    /// Bits of an address that make a source: 1 to 32, or 1 to 128; 0 where sources share a bucket.
    pub prefix: u8,
    /// Bits of an address that make an aggregate: 1 to 32, or 1 to 64.
    pub aggregate: u8,
    /// 1 where buckets have two words: then as many sets follow, and as many aggregates, with the second words of all.
    pub doubled: u8,
    /// Zero.
    pub padding: u8,
}

impl Region {
    /// All its sets, those with second words included, and all its aggregates.
    #[inline(always)]
    pub const fn extent(&self) -> u32 {
        self.sets << self.doubled
    }

    /// The key of a source in this region.
    #[inline(always)]
    pub const fn key(&self, source: Address, family: Family, secret: Secret) -> u64 {
        source.key(family, self.prefix, secret)
    }

    /// The set in which a key lives. The region must have sets.
    #[inline(always)]
    pub const fn set(&self, key: u64, secret: Secret) -> u32 {
        self.base + hash::place(key, self.sets, secret)
    }

    /// The aggregate's bucket that serves a source. The region must have sets. Aggregates that meet share a bucket.
    #[inline(always)]
    pub const fn aggregate(&self, source: Address, family: Family, secret: Secret) -> u32 {
        self.base + hash::place(source.key(family, self.aggregate, secret), self.sets, secret)
    }
}

impl Limit {
    /// Whether its buckets mean to a health clock what they mean to its own.
    #[inline(always)]
    pub const fn goes_by(&self, clock: u16) -> bool {
        // One of an earlier layout reads what a clock does whose speed nobody ever set, and the first policy has no other.
        self.clock == clock || self.clock == NO_CLOCK
    }

    /// Whether it counts connections that are open.
    #[inline(always)]
    pub const fn is_concurrency(&self) -> bool {
        self.algorithm == Algorithm::Concurrency as u8
    }

    /// What it allows whoever no override is for.
    #[inline(always)]
    pub const fn terms(&self) -> Terms {
        Terms { price: self.price, depth: self.depth }
    }

    /// Whether it refuses nothing, but says who is within a guarantee: see [`crate::guarantees`].
    #[inline(always)]
    pub const fn is_guarantee(&self) -> bool {
        self.guarantee != 0
    }

    /// Whether CPUs take some of its buckets ahead.
    #[inline(always)]
    pub const fn is_leased(&self) -> bool {
        self.batch != 0
    }

    /// Whether its buckets have two words.
    #[inline(always)]
    pub const fn is_sliding(&self) -> bool {
        self.algorithm == Algorithm::SlidingWindow as u8
    }

    /// What its clock reads when its health clock reads `now`: that of one which counts open connections stands still, that
    /// of windows while one runs.
    #[inline(always)]
    pub const fn reading(&self, now: Ticks) -> Ticks {
        if self.window != 0 {
            windows::start(now, self.window)
        } else if self.is_concurrency() {
            connections::STANDING
        } else {
            now
        }
    }

    /// What its clock reads for each of the two words of a bucket, of which the one that counts is first or second; see
    /// [`crate::turns`]. Where buckets have one word, both are [`Limit::reading`].
    pub const fn readings(&self, now: Ticks) -> [Ticks; 2] {
        let reads = self.reading(now);
        if !self.is_sliding() {
            return [reads; 2];
        }
        let before = reads.wrapping_sub(self.window);
        let (first, second) = self.sliding(now).turn(reads, before);
        [first, second]
    }

    /// Its windows at an instant, where they slide.
    #[inline(always)]
    pub const fn sliding(&self, now: Ticks) -> Sliding {
        Sliding::at(now, self.window, self.window_shift)
    }

    /// How many units of it a packet of `length` bytes is; `None` where it does not count the packet.
    #[inline(always)]
    pub const fn units(&self, length: u32, opens_connection: bool) -> Option<u32> {
        if self.unit == Unit::Connections as u8 && !opens_connection {
            return None;
        }
        Some(if self.unit == Unit::Bytes as u8 { length } else { 1 })
    }

    /// Where the bucket of a source lies: its key and its set. `None` where the limit does not touch its family, or its
    /// tenant is none.
    #[inline(always)]
    pub const fn home(&self, whose: &Whose, secret: Secret) -> Option<Home> {
        let region = self.region(whose.family);
        if region.sets == 0 {
            return None;
        }
        if self.per == Per::Tenant as u8 {
            // Each has a slot that is nobody else's: the sets are filled one after the other.
            let set = whose.tenant as u32 / WAYS as u32;
            return if whose.tenant == NONE || set >= region.sets {
                None
            } else {
                Some(Home { key: whose.tenant as u64, set: region.base + set })
            };
        }
        if region.prefix == 0 {
            return Some(Home { key: 0, set: region.base });
        }
        let key = region.key(whose.source, whose.family, secret);
        Some(Home { key, set: region.set(key, secret) })
    }

    /// Why it refuses when a bucket is empty.
    #[inline(always)]
    pub const fn refusal(&self) -> Reason {
        const SERVICE: u8 = Per::Service as u8;
        const TENANT: u8 = Per::Tenant as u8;
        const HOST: u8 = Per::Host as u8;
        match self.per {
            TENANT => Per::Tenant.refusal(),
            SERVICE => Per::Service.refusal(),
            HOST => Per::Host.refusal(),
            _ => Per::Source.refusal(),
        }
    }

    /// Whether all that its service serves share its bucket.
    #[inline(always)]
    pub const fn is_of_service(&self) -> bool {
        self.per == Per::Service as u8
    }

    /// Whether sources share its buckets.
    #[inline(always)]
    pub const fn is_shared(&self) -> bool {
        self.per != Per::Source as u8
    }

    /// The parts of the table that it has, by family; one where sources share buckets.
    pub fn regions(&self) -> impl Iterator<Item = (Family, Region)> + use<> {
        let families = [Some((Family::V4, self.v4)), if self.is_shared() { None } else { Some((Family::V6, self.v6)) }];
        families.into_iter().flatten().filter(|(_, region)| region.sets > 0)
    }

    /// Where sources of a family have their buckets.
    #[inline(always)]
    pub const fn region(&self, family: Family) -> &Region {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// A slot of the table: 16 bytes for a source.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// See [`Address::key`].
    pub key: u64,
    /// The source's bucket.
    pub tat: Ticks,
}

/// Where a port's candidate list number lies: the element of [`super::maps::PORTS`] within a generation, and the bit.
#[inline(always)]
pub const fn port_place(slot: u32) -> (u32, u32) {
    (slot / PORTS_IN_WORD, slot % PORTS_IN_WORD * 16)
}

/// The number of a TCP port (0), a UDP port (1) or ICMP (2, port 0) among all [`port_place`]s.
#[inline(always)]
pub const fn port_slot(transport: u32, port: u16) -> u32 {
    transport * 65_536 + port as u32
}
