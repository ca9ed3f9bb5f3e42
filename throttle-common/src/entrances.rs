//! Connections that have entered and may never open: the packet that completed the handshake was let through, and the stack
//! dropped it, for its checksum or because the accept queue was full.
//!
//! Who enters is noted in a ring that all CPUs share, in the order of time. Whoever comes next looks at the oldest: what is
//! [overdue](is_overdue) and has no socket gives its places back. So nobody is needed for it but the next who wants a place.
//! A turn counts the entrances since the ring exists; it belongs to one cell, in which it is written last. A ring that is full
//! takes nothing in: what is not noted is the agent's to find.

use crate::records::Ends;

/// Connections that may be on their way at once: some 100 000 a second, in 2 MiB.
pub const CELLS: u32 = 1 << 15;
/// Cells that stay free: each CPU may have seen room when the others took what was left.
const SPARE: u64 = 1 << 12;

/// How long the packet that completes a handshake may be on its way to a socket, in nanoseconds. Where it is not dropped it
/// is there within the same interrupt; this is long enough for a virtual CPU that stands still on the way.
pub const ENTERS_WITHIN: u64 = 250_000_000;

/// A connection that has entered.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entrance {
    /// Its turn, and 1.
    pub turn: u64,
    /// When it entered: that of its [`crate::records::Connection`].
    pub since: u64,
    /// Its ends.
    pub ends: Ends,
    /// The number of the interface by which it came in: by no other is a socket found that is bound to that one.
    pub interface: u32,
    /// Zero.
    pub padding: u32,
}

/// Where the ring begins and ends, each in a line of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// The oldest turn that nobody has looked after.
    pub first: u64,
    /// Zero.
    pub padding: [u64; 7],
    /// The next one.
    pub next: u64,
}

const _: () = assert!(size_of::<Entrance>() == 64 && size_of::<Turns>() == 72);

/// Whether one more may be noted.
#[inline(always)]
pub const fn has_room(first: u64, next: u64) -> bool {
    next.wrapping_sub(first) < CELLS as u64 - SPARE
}

/// The cell of a turn.
#[inline(always)]
pub const fn cell(turn: u64) -> u32 {
    turn as u32 % CELLS
}

/// Whether a connection that entered then would be open by now.
#[inline(always)]
pub const fn is_overdue(since: u64, now_nanos: u64) -> bool {
    now_nanos > since.saturating_add(ENTERS_WITHIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_turn_that_is_waited_for_is_overwritten_by_as_many_cpus_as_there_may_be() {
        for first in [0, 7, u64::from(u32::MAX) - 3, u64::MAX - 9] {
            let turns = (0..=u64::from(CELLS)).map(|taken| first.wrapping_add(taken));
            let last = turns.take_while(|&next| has_room(first, next)).last().unwrap();
            let latest = last.wrapping_add(SPARE);
            let cells: std::collections::BTreeSet<u32> =
                (0..=latest.wrapping_sub(first)).map(|turn| cell(first.wrapping_add(turn))).collect();
            assert_eq!(cells.len() as u64, latest.wrapping_sub(first) + 1, "from {first}");
        }
    }

    #[test]
    fn what_has_just_entered_is_waited_for() {
        assert!(!is_overdue(5, 5 + ENTERS_WITHIN) && is_overdue(5, 6 + ENTERS_WITHIN));
        // Another CPU's clock may be behind.
        assert!(!is_overdue(5, 0));
    }
}
