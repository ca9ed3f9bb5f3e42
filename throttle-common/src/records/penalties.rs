//! What a limit does with whom it refuses again and again, and what is told of that.

use super::Address;

/// The penalty of a limit, in the place of its number. All zero, it has none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Penalty {
    /// See [`crate::penalties::salt`].
    pub salt: u64,
    /// How many refusals trip it; 0 where there is none.
    pub after: u32,
    /// The time in which they count: see [`crate::penalties::units`].
    pub within: u32,
    /// 1 where refusals count of whom nothing proves that it is no spoofed source.
    pub unproven: u8,
    /// Zero.
    pub padding: [u8; 7],
}

/// A source that has tripped the penalty of a limit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offence {
    /// The kernel's monotonic clock, nanoseconds.
    pub time: u64,
    /// [`Penalty::salt`]: by it the agent knows whether the limit of this number is still the same.
    pub salt: u64,
    /// The sender of the packet whose refusal tripped it.
    pub source: Address,
    /// The limit.
    pub limit: u16,
    /// 4 or 6.
    pub family: u8,
    /// 1 where the refusal was only observed.
    pub observed: u8,
    /// Zero.
    pub padding: [u8; 4],
}

/// What became of refusals by limits that have penalties, and of those who tripped them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PenaltyTally {
    /// Offences that the agent was told of.
    pub told: u64,
    /// Offences beyond the budget of a CPU: who goes on is told of when its refusals are counted anew.
    pub withheld: u64,
    /// Offences that found the ring buffer full, because no agent reads it; likewise.
    pub lost: u64,
    /// Refusals of whom nothing proves that it is no spoofed source: they count for nothing.
    pub unproven: u64,
    /// Refusals that found no room to be counted. Reads 0.
    pub uncounted: u64,
}
