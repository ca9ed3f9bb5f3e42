//! What the kernel programs count and report.

use super::{Address, FATES};

/// Packets and bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames.
    pub packets: u64,
    /// Their whole lengths.
    pub bytes: u64,
}

/// Elements of [`super::maps::REASON_TALLIES`]: one for each reason and outcome.
pub const REASON_TALLIES: u32 = FATES as u32 * OUTCOMES;
/// Outcomes of a packet.
pub const OUTCOMES: u32 = 4;

/// What one limit did. Every packet that it was asked about is in exactly one of `admitted`, `refused`, `observed`
/// and `spared`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitTally {
    /// Charged, or let through by the overflow rule `admit`.
    pub admitted: Tally,
    /// Refused by this limit.
    pub refused: Tally,
    /// Would have been refused by this limit.
    pub observed: Tally,
    /// Not charged because another limit refused.
    pub spared: Tally,
    /// Found no place in the region; each is also in one of the above.
    pub overflowed: Tally,
}

/// What could not be done. Reads 0 on a healthy host, `events_withheld` and `answers_withheld` excepted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Events beyond their budget.
    pub events_withheld: u64,
    /// Events that found the ring buffer full.
    pub events_lost: u64,
    /// Answers beyond their budget.
    pub answers_withheld: u64,
    /// Refusals that `reject` must not answer (fragments, errors, broadcasts).
    pub answers_undue: u64,
    /// Connections that found no room among those that hold places: they are open and not counted.
    pub connections_uncounted: u64,
}

/// What was sent in place of services that have pages. All read 0 while nobody who speaks plain HTTP is refused.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageTally {
    /// SYN-ACKs.
    pub greeted: u64,
    /// Pages: answers with 429, those that were sent again included.
    pub told: u64,
    /// Those of them that were sent without what policy adds to a page, because their frames had no room for it. Reads 0
    /// unless requests are shorter than any client's.
    pub cut: u64,
    /// Acknowledgements of what clients sent after the page.
    pub acknowledged: u64,
}

/// Counts of an earlier build that a counter is to be raised by: the frame that the program `carry` is run on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Which map of counters: a [`Counters`].
    pub counters: u32,
    /// The element of it.
    pub index: u32,
    /// What to add to the element's words; those that it does not have are 0.
    pub words: [u64; COUNTER_WORDS],
}

/// The maps of counters.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counters {
    /// [`super::maps::REASON_TALLIES`].
    Reasons = 0,
    /// [`super::maps::LIMIT_TALLIES`].
    Limits = 1,
    /// [`super::maps::LOSSES`].
    Losses = 2,
}

/// The 64-bit words of the largest counter.
pub const COUNTER_WORDS: usize = size_of::<LimitTally>() / size_of::<u64>();

/// A sampled refusal.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The kernel's monotonic clock, nanoseconds.
    pub time: u64,
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// The interface that it came in by.
    pub interface: u32,
    /// Bytes of the frame.
    pub length: u32,
    /// Sender's port, 0 where there is none.
    pub source_port: u16,
    /// Receiver's port, 0 where there is none.
    pub destination_port: u16,
    /// The limit that refused, [`Event::NO_LIMIT`] where none did.
    pub limit: u16,
    /// The service, [`super::NONE`] where there is none.
    pub service: u16,
    /// 4, 6, or 0 for a frame without addresses.
    pub family: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// A [`crate::words::Reason`].
    pub reason: u8,
    /// An [`crate::words::Outcome`].
    pub outcome: u8,
    /// Zero.
    pub padding: [u8; 4],
}

impl Event {
    /// No limit refused this packet.
    pub const NO_LIMIT: u16 = super::NO_LIMIT;
}
