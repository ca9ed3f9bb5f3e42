//! Connections that this host may only forward: what their packets say, where no socket of ours tells.
//!
//! A connection is open when the source acknowledges the service's SYN-ACK, and closed when both have acknowledged the
//! other's end (RFC 9293, section 3.6), or either has reset it. Packets of the source are seen coming in, those of the
//! service going out; between the two its addresses may be others.
//!
//! A SYN-ACK that waits for its acknowledgement is a cell of 64 bits in an array without keys: a tag of 32 bits and its
//! sequence number. Where two meet, the later one stays: the connection of the earlier one goes uncounted, unless the
//! service sends its SYN-ACK again.

use crate::{
    hash::{self, Secret},
    packet::tcp,
    records::{Connection, Ends},
};

/// Cells for SYN-ACKs: 4 MiB. Of a flood of 100 000 a second that sources acknowledge after 50 ms, each overwrites
/// another that waits with a probability of one in a hundred.
pub const CELLS: u32 = 1 << 19;

/// Who sent a packet, as an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who opened the connection.
    Source = 0,
    /// Whom it is to.
    Service = 1,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Source => Self::Service,
            Self::Service => Self::Source,
        }
    }
}

/// What a side has sent: its end, and the acknowledgement of the other's. Each side's byte is written by its packets alone.
const ENDED: u8 = 1;
const ACKNOWLEDGED: u8 = 2;

/// What a TCP segment says.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Of its first byte.
    pub sequence: u32,
    /// The byte that its sender waits for, where the ACK flag is set.
    pub acknowledged: u32,
    /// Its flags.
    pub flags: u32,
    /// Bytes of payload.
    pub payload: u32,
}

impl Segment {
    /// The number that acknowledges all of it.
    #[inline(always)]
    pub const fn next(&self) -> u32 {
        let flags = (self.flags & tcp::SYN as u32 != 0) as u32 + (self.flags & tcp::FIN as u32 != 0) as u32;
        self.sequence.wrapping_add(self.payload).wrapping_add(flags)
    }

    #[inline(always)]
    const fn has(&self, flag: u8) -> bool {
        self.flags & flag as u32 != 0
    }
}

/// The time as forwarded connections remember it, in units of 2^30 ns: so coarse that their packets seldom write.
#[inline(always)]
pub const fn moment(nanos: u64) -> u32 {
    (nanos >> 30) as u32
}

/// How many whole seconds ago it was.
pub const fn seconds_since(seen: u32, nanos: u64) -> u64 {
    let passed = moment(nanos).saturating_sub(seen) as u64;
    (passed << 30) / 1_000_000_000
}

impl Connection {
    /// Whether a segment has nothing to add to what is known of a forwarded connection.
    #[inline(always)]
    pub fn knows(&self, segment: &Segment, now_nanos: u64) -> bool {
        self.seen == moment(now_nanos)
            && self.closing[0] | self.closing[1] == 0
            && segment.flags & u32::from(tcp::SYN | tcp::FIN | tcp::RST) == 0
    }

    /// Goes on with a segment of a forwarded connection; `true` where that was its last.
    #[inline(always)]
    pub fn follow(&mut self, from: Side, segment: &Segment, now_nanos: u64) -> bool {
        if segment.has(tcp::RST) {
            return true;
        }
        let (own, other) = (from as usize, from.other() as usize);
        if segment.has(tcp::FIN) {
            self.finished[own] = segment.next();
            self.closing[own] |= ENDED;
        }
        let ended = self.closing[other] & ENDED != 0;
        if ended && segment.has(tcp::ACK) && segment.acknowledged == self.finished[other] {
            self.closing[own] |= ACKNOWLEDGED;
        }
        let now = moment(now_nanos);
        if self.seen != now {
            self.seen = now;
        }
        self.closing[0] & self.closing[1] & ACKNOWLEDGED != 0
    }

    /// Goes on with a SYN-ACK: the service has begun anew between the same ends, or sends its first word again.
    #[inline(always)]
    pub fn begin_anew(&mut self, now_nanos: u64) {
        self.closing = [0; 2];
        self.seen = moment(now_nanos);
    }
}

/// Where a SYN-ACK waits for its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The number of its cell.
    pub cell: u32,
    tag: u64,
}

impl Awaited {
    /// The place of what the service says to a source.
    #[inline(always)]
    pub const fn of(ends: &Ends, secret: Secret) -> Self {
        let ports = (ends.source_port as u64) << 16 | ends.destination_port as u64;
        let source = hash::fingerprint(ends.source.high, ends.source.low, secret);
        let destination = hash::fingerprint(ends.destination.high, ends.destination.low, secret);
        let key = hash::fingerprint(source ^ ports, destination, secret);
        // No tag is that of a cell that nobody has written.
        Self { cell: (key as u32) % CELLS, tag: key >> 32 | 1 }
    }

    /// What to store when the service has sent it.
    #[inline(always)]
    pub const fn note(self, sequence: u32) -> u64 {
        self.tag << 32 | sequence as u64
    }

    /// Whether an acknowledgement answers what is stored.
    #[inline(always)]
    pub const fn answers(self, cell: u64, acknowledged: u32) -> bool {
        cell == self.note(acknowledged.wrapping_sub(1))
    }
}

#[cfg(test)]
#[path = "forwarded_tests.rs"]
mod tests;
