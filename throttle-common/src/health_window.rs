//! A health window: how many connections a service admits at once while it is unwell, with its lease, in one word.
//!
//! The agent changes it with one store, and renews it while it lives; when it falls silent, the lease ends, and policy's
//! own numbers are in force again. A window takes away: of what policy allows all together it leaves so many, and of what it
//! allows each source or tenant there the same share. It closes nothing that is open.

use crate::{
    connections::PLACE,
    gcra::Ticks,
    records::{HOST_CLOCK, Limit},
};

/// The most connections of a window.
pub const MOST: u32 = (1 << LEASE_SHIFT) - 1;
/// Where the end of the lease stands, in units of 2^20 ns, which is 1.05 ms.
const LEASE_SHIFT: u32 = 20;

/// A service's health window, in its word; 0 where nobody has set one.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthWindow(u64);

impl HealthWindow {
    /// None: policy's own numbers are in force.
    pub const NONE: Self = Self(0);

    /// One of so many connections, of which there are [`MOST`] at most, until an instant or a unit later.
    pub const fn new(connections: u32, until_nanos: u64) -> Self {
        let connections = if connections > MOST { MOST } else { connections };
        Self((until_nanos >> LEASE_SHIFT).saturating_add(1) << LEASE_SHIFT | connections as u64)
    }

    /// That of a word.
    #[inline(always)]
    pub const fn of(word: u64) -> Self {
        Self(word)
    }

    /// Its word.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// How many connections it admits.
    #[inline(always)]
    pub const fn connections(self) -> u32 {
        (self.0 & MOST as u64) as u32
    }

    /// The instant at which its lease ends, in nanoseconds of CLOCK_MONOTONIC.
    pub const fn until(self) -> u64 {
        self.0 & !(MOST as u64)
    }

    /// Whether it is in force at an instant.
    #[inline(always)]
    pub const fn holds(self, now_nanos: u64) -> bool {
        now_nanos >> LEASE_SHIFT < self.0 >> LEASE_SHIFT
    }
}

/// What a window leaves of the limits on open connections of its service. Plain words, because it may wait in a map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// How many of them the window admits.
    pub admitted: u32,
    /// How many connections policy allows all together; 0 where all that it allows is left.
    pub of: u32,
}

impl Share {
    /// All of it.
    pub const ALL: Self = Self { admitted: 0, of: 0 };

    /// What a window leaves at an instant, where policy allows so many connections all together.
    #[inline(always)]
    pub const fn left_by(window: HealthWindow, connections: u32, now_nanos: u64) -> Self {
        let admitted = window.connections();
        if window.holds(now_nanos) && admitted < connections { Self { admitted, of: connections } } else { Self::ALL }
    }

    /// How deep a limit on open connections is that is `depth` deep by policy. What guarantees reserve stays theirs: it is
    /// the rest that the window takes away from.
    #[inline(always)]
    pub const fn depth(self, limit: &Limit, depth: Ticks) -> Ticks {
        if self.of == 0 || limit.clock == HOST_CLOCK || limit.is_guarantee() {
            return depth;
        }
        let (admitted, all, own) = (self.admitted as u64, self.of as u64, depth / PLACE);
        let left = if limit.is_of_service() { own.saturating_sub(all - admitted) } else { own * admitted / all };
        // Nobody is shut out for having little.
        let least = if limit.is_of_service() || own == 0 { 0 } else { 1 };
        if left < least { least * PLACE } else { left * PLACE }
    }
}

#[cfg(test)]
#[path = "health_window_tests.rs"]
mod tests;
