//! Guarantees: the part of a shared limit that a tenant or a service has whatever others do.
//!
//! A guarantee is a bucket beside that of its limit, whose rate is then a *ceiling*, and is asked before it. A packet that
//! finds room there is within the guarantee: from there on no limit of its unit refuses it, neither the ceiling nor those
//! that are as wide or wider. They are charged all the same, beyond their depth if they must ([`Guaranteed::room`]), so
//! that whoever has no guarantee left gets only what is left: what is not used is lent at once, and is back at once. A
//! packet that finds no room there is not charged there, and needs room everywhere else.
//!
//! What is owed beyond a depth stays small, because the guarantees under a limit sum to no more than its rate, which the
//! agent checks: by one burst of each guarantee, in a window by what they come to in one.

use crate::{
    gcra::{MAX_DEPTH, Ticks},
    records::Limit,
};

/// The units in which a packet is within a guarantee. Plain bits, because it may wait in a map.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guaranteed(u8);

impl Guaranteed {
    /// In none.
    pub const NOT: Self = Self(0);

    /// Notes that a guarantee has room for the packet.
    #[inline(always)]
    pub const fn note(&mut self, guarantee: &Limit) {
        self.0 |= 1 << (guarantee.unit & 7);
    }

    /// Whether this limit cannot refuse the packet.
    #[inline(always)]
    pub const fn within(self, limit: &Limit) -> bool {
        self.0 >> (limit.unit & 7) & 1 != 0
    }

    /// How much a bucket may owe for this packet, where it is `depth` deep: more, where the packet is within a guarantee.
    #[inline(always)]
    pub const fn room(self, limit: &Limit, depth: Ticks) -> Ticks {
        if !self.within(limit) {
            depth
        } else if limit.is_sliding() {
            // Its word must not be taken for that of a later window.
            2 * limit.window - 2
        } else if limit.window != 0 {
            // The next window begins anew, whatever this one has admitted.
            limit.window
        } else {
            // More would be taken for the past of a clock that has wrapped.
            depth + MAX_DEPTH
        }
    }
}

#[cfg(test)]
#[path = "guarantees_tests.rs"]
mod tests;
