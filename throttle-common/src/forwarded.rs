//! Connections that this host may only forward: what their packets say, where no socket of ours tells.
//!
//! A connection is open when the source acknowledges the service's SYN-ACK, and closed when both have acknowledged the
//! other's end (RFC 9293, section 3.6), or either has reset it. Whom the service resets it has no connection with. What the
//! source resets goes on unless the service waits for the very byte that the reset names (RFC 5961, section 3.2), and only if
//! it gets there: that is certain of a sound one once the service has acknowledged all that the source has said, and doubtful
//! else. Packets of the source are seen coming in, those of the service going out; between the two its addresses may be
//! others.
//!
//! A SYN-ACK that waits for its acknowledgement is a cell of 64 bits in an array without keys: a tag of 16 bits, as many
//! for the byte that it waits for, and its sequence number. Where two meet, the later one stays: the connection of the
//! earlier one goes uncounted, unless the service sends its SYN-ACK again.

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

/// What a side has sent: its end, the acknowledgement of the other's, and of the source a reset that is doubted, and one that
/// is doubted for good. Each side's byte is written by its packets alone.
const ENDED: u8 = 1;
const ACKNOWLEDGED: u8 = 2;
const RESET: u8 = 4;
const UNSOUND: u8 = 8;

/// Seconds for which a connection may be silent whose reset is doubted: as long as the kernel keeps an ended one in TIME-WAIT
/// (`TCP_TIMEWAIT_LEN`).
pub const DOUBTED_FOR: u32 = 60;

/// What a TCP segment says.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Of its first byte.
    pub sequence: u32,
    /// The byte that its sender waits for, where the ACK flag is set.
    pub acknowledged: u32,
    /// Its flags, and [`Segment::SOUND`].
    pub flags: u32,
    /// Bytes of payload.
    pub payload: u32,
}

impl Segment {
    /// Of a reset: nothing on its way to the service drops it.
    pub const SOUND: u32 = 1 << 8;

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

/// Whether a number lies behind another one on their circle.
#[inline(always)]
const fn is_behind(number: u32, other: u32) -> bool {
    number.wrapping_sub(other).cast_signed() < 0
}

impl Connection {
    /// The next byte of the source's, as far as its segments came in order and the service has acknowledged others.
    #[inline(always)]
    const fn expected(&self) -> u32 {
        let said = self.said[Side::Source as usize];
        if is_behind(said, self.acknowledged) { self.acknowledged } else { said }
    }

    /// Whether a segment of the source has nothing to add to what is known of a forwarded connection.
    #[inline(always)]
    pub fn knows(&self, segment: &Segment, now_nanos: u64) -> bool {
        self.seen == moment(now_nanos)
            && self.closing[0] | self.closing[1] == 0
            && segment.flags & u32::from(tcp::SYN | tcp::FIN | tcp::RST) == 0
            && (segment.payload == 0 || segment.sequence != self.expected())
    }

    /// Goes on with a segment of a forwarded connection; `true` where that was its last.
    #[inline(always)]
    pub fn follow(&mut self, from: Side, segment: &Segment, now_nanos: u64) -> bool {
        let (own, other) = (from as usize, from.other() as usize);
        let now = moment(now_nanos);
        if self.seen != now {
            self.seen = now;
        }
        if segment.has(tcp::RST) {
            return matches!(from, Side::Service) || self.is_reset(segment);
        }
        if segment.has(tcp::FIN) {
            self.closing[own] |= ENDED;
        }
        match from {
            Side::Source => self.hear(segment),
            Side::Service => self.answer(segment),
        }
        let ended = self.closing[other] & ENDED != 0;
        if ended && segment.has(tcp::ACK) && segment.acknowledged == self.said[other] {
            self.closing[own] |= ACKNOWLEDGED;
        }
        self.closing[0] & self.closing[1] & ACKNOWLEDGED != 0 || self.is_reset_for_certain()
    }

    /// Notes how much the source has said. Whoever goes on has reset nothing.
    #[inline(always)]
    const fn hear(&mut self, segment: &Segment) {
        if segment.has(tcp::FIN) || segment.sequence == self.expected() {
            self.said[Side::Source as usize] = segment.next();
        }
        self.closing[Side::Source as usize] &= !(RESET | UNSOUND);
    }

    /// Notes how much of that the service has heard, and where it ends itself.
    #[inline(always)]
    const fn answer(&mut self, segment: &Segment) {
        if segment.has(tcp::ACK) {
            self.acknowledged = segment.acknowledged;
        }
        if segment.has(tcp::FIN) {
            self.said[Side::Service as usize] = segment.next();
        }
    }

    /// Takes a reset of the source: `true` where the service accepts it for certain. One that it may have to ignore, for want
    /// of what was sent before, is doubted. One that answers what was sent before the source's end was known names the byte
    /// before that, and is accepted too (`tcp_reset_check`).
    #[inline(always)]
    const fn is_reset(&mut self, segment: &Segment) -> bool {
        let (expected, sequence) = (self.expected(), segment.sequence);
        let sound = segment.flags & Segment::SOUND != 0;
        let closing = &mut self.closing[Side::Source as usize];
        let names_end = *closing & ENDED != 0 && sequence == expected.wrapping_sub(1);
        if sequence == expected || names_end {
            self.said[Side::Source as usize] = expected;
            if sound {
                *closing = *closing & !UNSOUND | RESET;
            } else if *closing & RESET == 0 {
                *closing |= UNSOUND | RESET;
            }
        }
        sound && names_end && sequence == self.acknowledged || self.is_reset_for_certain()
    }

    /// Whether the service has heard all that the source has said before it reset the connection.
    #[inline(always)]
    const fn is_reset_for_certain(&self) -> bool {
        self.closing[Side::Source as usize] & (RESET | UNSOUND) == RESET
            && self.acknowledged == self.said[Side::Source as usize]
    }

    /// Seconds after which a connection that nothing is heard of is forgotten.
    pub fn patience(&self, idle_after: u32) -> u64 {
        // One that waits for a later byte has ignored it.
        let ignored = is_behind(self.said[Side::Source as usize], self.acknowledged);
        let doubted = self.closing[Side::Source as usize] & RESET != 0 && !ignored;
        (if doubted { DOUBTED_FOR.min(idle_after) } else { idle_after }).into()
    }

    /// Goes on with a SYN-ACK: the service has begun anew between the same ends, or sends its first word again.
    #[inline(always)]
    pub fn begin_anew(&mut self, segment: &Segment, now_nanos: u64) {
        self.closing = [0; 2];
        self.said[Side::Source as usize] = segment.acknowledged;
        self.acknowledged = segment.acknowledged;
        self.seen = moment(now_nanos);
    }
}

/// Where a SYN-ACK waits for its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The number of its cell.
    pub cell: u32,
    tag: u64,
    key: u64,
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
        Self { cell: (key as u32) % CELLS, tag: key >> 48 | 1, key }
    }

    /// What to store when the service has sent it.
    #[inline(always)]
    pub const fn note(self, sequence: u32, acknowledged: u32) -> u64 {
        self.tag << 48 | self.digest(acknowledged) << 32 | sequence as u64
    }

    /// Whether an acknowledgement answers what is stored.
    #[inline(always)]
    pub const fn answers(self, cell: u64, acknowledged: u32) -> bool {
        cell >> 48 == self.tag && cell as u32 == acknowledged.wrapping_sub(1)
    }

    /// Whether what is stored acknowledges all before a byte of the source's, but for one guess in 65 536.
    #[inline(always)]
    pub const fn acknowledges(self, cell: u64, sequence: u32) -> bool {
        cell >> 32 & 0xffff == self.digest(sequence)
    }

    #[inline(always)]
    const fn digest(self, number: u32) -> u64 {
        (self.key ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48
    }
}

#[cfg(test)]
#[path = "forwarded_tests.rs"]
mod tests;
