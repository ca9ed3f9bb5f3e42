//! Exchanges: how long a service takes from the end of a request to the first byte of its answer.
//!
//! A request begins with a segment with payload that comes in while none of its connection waits, and goes on with those that
//! follow before anything is answered: a client that is slow to say it is no service that is slow to answer. The first payload
//! that then leaves by its connection is the answer. What waits is a cell of 64 bits in an array without keys: a tag of 16 bits
//! tells two connections apart that fall on one, 47 are the time, and one says that nobody knows such a connection. Where two
//! meet, the one that is there stays, until it is too old to be answered, or where it is doubted; the other goes unmeasured.
//!
//! Whoever sends a segment may claim to be anybody. So it counts only where its connection is known to be open; where nobody
//! knows, it counts with its answer, which nobody gets who has no connection.
//!
//! Of many connections a part may be enough: which is decided by the hash that places them, so that one is measured always
//! or never, and both directions agree.

use crate::{
    hash::{self, Secret},
    packet::Packet,
};

/// Cells for requests that wait: 1 MiB.
pub const CELLS: u32 = 1 << 17;
/// After so long nobody waits for an answer any more: nanoseconds.
pub const PATIENCE: u64 = 60_000_000_000;
/// The most that [`crate::records::Policy::sample_shift`] can be: one connection of 65 536.
pub const MOST_SAMPLE_SHIFT: u8 = 16;

/// What follows within so short a time is as good as said at once: nanoseconds. More of a request is not looked at.
pub const AT_ONCE: u64 = 1_000_000;

/// The time as cells have it: units of 2^8 ns, of which 47 bits wrap after 1.14 years.
const UNIT_SHIFT: u32 = 8;
const TIMES: u64 = (1 << 47) - 1;
/// Nobody knows the connection.
const DOUBTED: u64 = 1 << 47;
const TAG_SHIFT: u32 = 48;

/// Where a connection's request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The number of its cell.
    pub cell: u32,
    tag: u64,
    hash: u64,
}

impl Flow {
    /// The place of a connection, by a packet that comes in on it.
    #[inline(always)]
    pub const fn of(packet: &Packet, secret: Secret) -> Self {
        let (source, destination) = (packet.source, packet.destination);
        let ports = (packet.source_port as u64) << 16 | packet.destination_port as u64;
        let source = hash::mix(source.high.rotate_left(32) ^ source.low, secret);
        let destination = hash::mix(source ^ destination.high.rotate_left(32) ^ destination.low, secret);
        let hash = hash::mix(destination ^ ports << 16, secret);
        // No tag is that of a cell that nobody has written.
        Self { cell: (hash >> 32) as u32 % CELLS, tag: hash >> 16 & 0xffff | 1, hash }
    }

    /// Whether it is one of those that are measured.
    #[inline(always)]
    pub const fn is_sampled(self, shift: u8) -> bool {
        self.hash & ((1 << (shift & 31)) - 1) == 0
    }

    /// Whether a segment with payload is to be looked at: it may begin a request, or be more of one.
    #[inline(always)]
    pub const fn is_news(self, cell: u64, now_nanos: u64) -> bool {
        let age = age(cell, now_nanos);
        if self.waits(cell) { age >= AT_ONCE } else { cell == 0 || is_doubted(cell) || age >= PATIENCE }
    }

    /// What to store when a request begins, or goes on.
    #[inline(always)]
    pub const fn begin(self, now_nanos: u64, doubted: bool) -> u64 {
        self.tag << TAG_SHIFT | (if doubted { DOUBTED } else { 0 }) | time(now_nanos)
    }

    /// Whether a request of it waits, as far as a tag says.
    #[inline(always)]
    pub const fn waits(self, cell: u64) -> bool {
        cell >> TAG_SHIFT == self.tag
    }

    /// For how long it has waited; `None` where it is none, or too old.
    #[inline(always)]
    pub const fn answer(self, cell: u64, now_nanos: u64) -> Option<u64> {
        let age = age(cell, now_nanos);
        if self.waits(cell) && age < PATIENCE { Some(age) } else { None }
    }
}

/// Whether it is that of a connection which nobody knows: it has not been counted.
#[inline(always)]
pub const fn is_doubted(cell: u64) -> bool {
    cell & DOUBTED != 0
}

#[inline(always)]
const fn time(nanos: u64) -> u64 {
    nanos >> UNIT_SHIFT & TIMES
}

#[inline(always)]
const fn age(cell: u64, now_nanos: u64) -> u64 {
    (time(now_nanos).wrapping_sub(cell) & TIMES) << UNIT_SHIFT
}

/// The shortest time that is told from shorter ones is 2^10 ns, a microsecond.
const SHORTEST: u32 = 10;
/// Buckets to an octave are two to this many: each is up to a fifth wider than its lower end.
const FINENESS: u32 = 2;
/// Buckets of the histogram: up to 2^36 ns, 69 s, which is beyond [`PATIENCE`].
pub const BUCKETS: usize = ((36 - SHORTEST) << FINENESS) as usize;

/// What was measured of a service, on one CPU or all: of the connections that are sampled.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchanges {
    /// Requests that began.
    pub requests: u64,
    /// Answers that began.
    pub answers: u64,
    /// Requests that the service answered by a reset. Reads 0 while it is well.
    pub resets: u64,
    /// Requests that ended without an answer, those among them: their connection did.
    pub ended: u64,
    /// Answers by how long they took: see [`bucket`]. They wrap, and so does what is counted of them.
    pub took: [u32; BUCKETS],
}

/// The bucket of a time.
#[inline(always)]
#[expect(clippy::manual_ilog2, reason = "that one can panic, and the kernel programs have no place for that")]
pub const fn bucket(nanos: u64) -> usize {
    let nanos = if nanos >> SHORTEST == 0 { 1 << SHORTEST } else { nanos };
    let octave = 63 - nanos.leading_zeros();
    let within = (nanos >> (octave - FINENESS)) as u32 & ((1 << FINENESS) - 1);
    let bucket = (((octave - SHORTEST) << FINENESS) | within) as usize;
    if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
}

/// Where a bucket begins, in nanoseconds; the one after the last where that ends.
pub const fn begins(bucket: usize) -> u64 {
    let (octave, within) = (bucket as u32 >> FINENESS, bucket as u64 & ((1 << FINENESS) - 1));
    if bucket == 0 { 0 } else { ((1 << FINENESS) + within) << (octave + SHORTEST - FINENESS) }
}

impl Exchanges {
    /// Nothing yet.
    pub const NONE: Self = Self { requests: 0, answers: 0, resets: 0, ended: 0, took: [0; BUCKETS] };
}

#[cfg(test)]
#[path = "exchanges_tests.rs"]
mod tests;
