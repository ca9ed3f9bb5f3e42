//! What a service has said between ends that no connection is known of, and waits to be acknowledged.
//!
//! Whoever acknowledges its SYN-ACK completes a handshake. Whoever acknowledges data has a connection that nobody has seen
//! open: its SYN-ACK is known no more, or it opened before there was a limit or without a handshake, or it was forgotten. The
//! kernel program that sees answers leave notes them; the one that sees packets come in asks.
//!
//! Each is a cell of 64 bits in an array without keys: a tag of 16 bits, as many for the byte that a SYN-ACK waits for, and
//! its sequence number. Of data it is the number that acknowledges the first that was seen, below how far the last of it
//! ends behind that. An acknowledgement between the two is of data that was seen. One beyond is of something else: of the
//! service's end for one, whose last word is sent again to a source that has closed; or it is a lie. Neither makes the cell
//! forget what waits. Of what ends further behind than the cell can say, any acknowledgement beyond is believed.
//!
//! Where two meet, the later one stays: a connection whose SYN-ACK is lost so is known when its data is acknowledged.

use crate::{
    forwarded::Segment,
    hash::{self, Secret},
    packet::tcp,
    records::Ends,
};

/// Cells: 4 MiB. Of a flood of 100 000 SYN-ACKs a second that sources acknowledge after 50 ms, each overwrites another that
/// waits with a probability of one in a hundred.
pub const CELLS: u32 = 1 << 19;

/// Bytes of data, behind the first number that acknowledges some, that a cell can say: as many, or more.
const STRETCH: u32 = u16::MAX as u32;

/// Bytes behind which what was noted first is acknowledged, or never was looked at: no system has more on its way by
/// default.
pub(crate) const FAR: u32 = 1 << 24;

/// Where what a service has said waits for its acknowledgement.
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

    /// What to store when the service has sent its SYN-ACK.
    #[inline(always)]
    pub const fn note(self, sequence: u32, acknowledged: u32) -> u64 {
        self.tag << 48 | self.digest(acknowledged) << 32 | sequence as u64
    }

    /// Whether an acknowledgement answers the SYN-ACK that is stored.
    #[inline(always)]
    pub const fn answers(self, cell: u64, acknowledged: u32) -> bool {
        cell >> 48 == self.tag && cell as u32 == acknowledged.wrapping_sub(1)
    }

    /// Whether what is stored acknowledges all before a byte of the source's, but for one guess in 65 536.
    #[inline(always)]
    pub const fn acknowledges(self, cell: u64, sequence: u32) -> bool {
        cell >> 32 & 0xffff == self.digest(sequence)
    }

    /// What to store in place of `cell` when the service has sent something else: data, or the end of what it has to say,
    /// whose acknowledgement shows nothing to be open.
    #[inline(always)]
    pub const fn note_data(self, cell: u64, segment: &Segment) -> u64 {
        let is_noted = cell >> 48 == self.data_tag();
        if segment.has(tcp::FIN) || segment.has(tcp::RST) {
            return if is_noted { 0 } else { cell };
        }
        if segment.payload == 0 || segment.has(tcp::SYN) || !segment.has(tcp::ACK) {
            return cell;
        }
        let next = segment.next();
        let beyond = next.wrapping_sub(cell as u32);
        if !is_noted || beyond.wrapping_add(FAR) >= 2 * FAR {
            return self.data_tag() << 48 | next as u64;
        }
        // What was sent before it, or again, is below it.
        let behind = match beyond {
            FAR.. => 0,
            STRETCH.. => STRETCH,
            shorter => shorter,
        };
        if behind > stretch(cell) { cell & !((STRETCH as u64) << 32) | (behind as u64) << 32 } else { cell }
    }

    /// Whether an acknowledgement is of the data that is stored.
    #[inline(always)]
    pub const fn reveals(self, cell: u64, acknowledged: u32) -> bool {
        let (beyond, stretch) = (acknowledged.wrapping_sub(cell as u32), stretch(cell));
        cell >> 48 == self.data_tag() && (beyond <= stretch || stretch == STRETCH && beyond < FAR)
    }

    /// The tag of data: of SYN-ACKs the last bit is 1, of data it is 0 and the one before it 1.
    #[inline(always)]
    const fn data_tag(self) -> u64 {
        (self.tag | 3) ^ 1
    }

    #[inline(always)]
    const fn digest(self, number: u32) -> u64 {
        (self.key ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48
    }
}

/// How far the data that is stored ends behind its first number.
#[inline(always)]
const fn stretch(cell: u64) -> u32 {
    (cell >> 32) as u32 & STRETCH
}

#[cfg(test)]
#[path = "awaited_tests.rs"]
mod tests;
