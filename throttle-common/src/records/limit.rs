//! A limit of a compiled policy, and where the buckets of its sources lie.

use super::{Address, NAME, NO_CLOCK, NONE, Region};
use crate::{
    connections,
    gcra::{Price, Ticks},
    hash::{self, Secret},
    packet::Family,
    table::{LATE, WAYS},
    windows::{self, Sliding},
    words::{Algorithm, Per, Reason, Unit},
};

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
    /// How far guarantees may put a bucket beyond its depth: see [`crate::guarantees::overdraft_shift`].
    pub overdraft_shift: u8,
    /// The number of the tenant that has the place of those of none: of all the rest; or [`NONE`].
    pub rest: u16,
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

impl Limit {
    /// No limit: what a number has that is free.
    pub const NONE: Self = Self {
        price: Price { mantissa: 0, shift: 0 },
        depth: 0,
        window: 0,
        batch: 0,
        v4: Region::NONE,
        v6: Region::NONE,
        unit: 0,
        action: 0,
        overflow: 0,
        observe: 0,
        algorithm: 0,
        per: 0,
        window_shift: 0,
        guarantee: 0,
        clock: 0,
        number: 0,
        overridden: 0,
        overdraft_shift: 0,
        rest: NONE,
        name: [0; NAME],
    };

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

    /// What a bucket may owe beyond its depth for packets that are within a guarantee. Even, as every cost is.
    #[inline(always)]
    pub const fn overdraft(&self) -> Ticks {
        1 << (self.overdraft_shift & 63) & !1
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
            // Each has a slot that is nobody else's: the sets are filled one after the other. The agent names their owners.
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
        Some(Home { key, set: self.compartment(whose).set(key, secret) })
    }

    /// The aggregate's bucket that serves a source. The limit must be per source, and touch its family. Aggregates that meet
    /// share a bucket.
    #[inline(always)]
    pub const fn aggregate(&self, whose: &Whose, secret: Secret) -> u32 {
        let compartment = self.compartment(whose);
        let key = whose.source.key(whose.family, compartment.aggregate, secret);
        compartment.base + hash::place(key, compartment.sets, secret)
    }

    /// The part of the table in which a source meets only those of its own tenant.
    #[inline(always)]
    const fn compartment(&self, whose: &Whose) -> Region {
        let tenant = if whose.tenant == self.rest { NONE } else { whose.tenant };
        self.region(whose.family).compartment(tenant)
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

    /// [`LATE`] where its clock flows.
    #[inline(always)]
    pub const fn late(&self) -> Ticks {
        if self.window != 0 || self.is_concurrency() { 0 } else { LATE }
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
