//! Guarantees: the part of a shared limit that a tenant or a service has whatever others do.
//!
//! A guarantee is a bucket beside that of its limit, whose rate is then a *ceiling*, and is asked before it. A packet that
//! finds room there is within the guarantee: from there on no limit of its unit refuses it, neither the ceiling nor those
//! that are as wide or wider. They are charged all the same, beyond their depth if they must ([`Guaranteed::room`]), so
//! that whoever has no guarantee left gets only what is left: what is not used is lent at once, and is back at once. A
//! packet that finds no room there is not charged there, and needs room everywhere else.
//!
//! What is owed beyond a depth is bounded ([`overdraft_shift`]). The guarantees under a limit sum to no more than its rate,
//! which the agent checks, and so what they put it into debt by is one burst of each, in a window what they come to in one
//! besides: the bound is never met as long as all clocks run alike.
//!
//! Where a limit's clock runs slower than that of a guarantee, as that of a service does which is unwell beside the host's,
//! it is met: then the limit refuses, and admits what its own clock says. Those who are guaranteed something have that
//! among themselves, because who borrows finds no room beyond the depth.

use crate::{
    gcra::{MAX_DEPTH, Ticks},
    records::{HOST_CLOCK, Limit},
};

/// The units in which a packet is within a guarantee, and whether by the host's clock or its service's: it meets no other.
/// Plain bits, because it may wait in a map.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guaranteed(u8);

/// Where the bits of services' clocks begin.
const OF_SERVICE: u8 = 4;

impl Guaranteed {
    /// In none.
    pub const NOT: Self = Self(0);

    #[inline(always)]
    const fn bit(limit: &Limit) -> u8 {
        1 << (limit.unit & (OF_SERVICE - 1)) << if limit.clock == HOST_CLOCK { 0 } else { OF_SERVICE }
    }

    /// Notes that a guarantee has room for the packet.
    #[inline(always)]
    pub const fn note(&mut self, guarantee: &Limit) {
        self.0 |= Self::bit(guarantee);
    }

    /// Whether the packet is within a guarantee in the limit's unit.
    #[inline(always)]
    pub const fn within(self, limit: &Limit) -> bool {
        (self.0 | self.0 >> OF_SERVICE) >> (limit.unit & (OF_SERVICE - 1)) & 1 != 0
    }

    /// Whether this limit cannot refuse the packet, whatever it owes: they go by the same clock.
    #[inline(always)]
    pub const fn passes(self, limit: &Limit) -> bool {
        self.0 & Self::bit(limit) != 0
    }

    /// How much a bucket may owe for this packet, where it is `depth` deep: more, where the packet is within a guarantee.
    /// What a window admits beyond its depth counts in the next, because it is owed still when that begins.
    #[inline(always)]
    pub const fn room(self, limit: &Limit, depth: Ticks) -> Ticks {
        if self.within(limit) { depth + limit.overdraft() } else { depth }
    }
}

/// How far guarantees may put a bucket beyond its depth, where they come to `debt` there: that, rounded up to a power of
/// two, and no more than can be told from the past of a clock that has wrapped. 0 where there are none.
pub const fn overdraft_shift(debt: Ticks) -> u8 {
    const MOST: u32 = MAX_DEPTH.ilog2();
    let shift = if debt == 0 { 0 } else { u64::BITS - (debt - 1).leading_zeros() };
    (if shift > MOST { MOST } else { shift }) as u8
}

#[cfg(test)]
#[path = "guarantees_tests.rs"]
mod tests;
