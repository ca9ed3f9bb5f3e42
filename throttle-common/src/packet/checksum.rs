//! The Internet checksum (RFC 1071), over words in the network's order.

use super::Packet;

/// The sum of the 16-bit words of a number.
#[inline(always)]
pub const fn halves(word: u64) -> u64 {
    (word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) + (word >> 48)
}

/// What a header must carry whose other words have this sum; 0 for the sum of all words of one that carries it.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = halves(sum);
    let sum = halves(sum);
    !(halves(sum) as u16)
}

/// The sum of the pseudo header of `length` bytes of a transport (RFC 9293, RFC 8200), the same in both directions.
#[inline(always)]
pub const fn pseudo_header(packet: &Packet, number: u8, length: u16) -> u64 {
    let (source, destination) = (packet.source, packet.destination);
    halves(source.high)
        + halves(source.low)
        + halves(destination.high)
        + halves(destination.low)
        + number as u64
        + length as u64
}
