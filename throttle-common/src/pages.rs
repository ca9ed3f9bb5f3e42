//! The page by which a refused client of a plain HTTP service is told to come back later, without a socket:
//! `429 Too Many Requests` with `Retry-After`.
//!
//! Nothing is remembered of a client. Its SYN is answered with a SYN-ACK whose sequence number is a [`cookie`] of both ends
//! and the time, so that every later segment says by what it acknowledges ([`read`]) that it belongs to such a handshake,
//! and what of it has arrived: a lost answer is sent anew when the client says the same once more.
//!
//! The text of a page is made by the agent ([`Page`]), but for its head, which has the seconds ([`HEAD`], [`digits`]).

use crate::{
    hash::{Secret, siphash},
    packet::{Family, Packet, checksum::halves, tcp},
    records::Page,
};

/// Every page begins with this and the seconds. An even number of bytes, so that each part has a checksum of its own.
pub const HEAD: [u8; 44] = *b"HTTP/1.1 429 Too Many Requests\r\nRetry-After:";
/// Room for the seconds, aligned to the right after blanks, which no client sees (RFC 9110, section 5.5).
pub const DIGITS: usize = 6;
/// Both.
pub const HEAD_LENGTH: usize = HEAD.len() + DIGITS;
/// The bytes of a page behind its head, at most. A frame grows into the room before it, of which drivers leave 256 bytes,
/// 40 of them the kernel's: with this a request of 36 bytes or more makes room for every page.
pub const REST_MAX: usize = 200;
/// Nobody is told to wait longer, in seconds: no bucket owes more.
pub const LONGEST: u64 = 86_400;
const _: () = assert!(HEAD.len().is_multiple_of(2) && HEAD_LENGTH.is_multiple_of(2));

/// Cookies change every 2^36 ns, 68.7 s; that of the time before holds too.
const SLOT: u32 = 36;

/// The number of the time that a cookie is of.
#[inline(always)]
pub const fn slot(nanos: u64) -> u32 {
    (nanos >> SLOT) as u32
}

/// The sequence number of the SYN-ACK to a packet's sender: a keyed hash of both ends (`SipHash`-2-4), which only who has
/// received it knows. The client's own number is not in it: later segments do not say that any more.
#[inline(always)]
pub const fn cookie(packet: &Packet, slot: u32, secret: Secret) -> u32 {
    // Not the key of other hashes.
    let key = [secret[0] ^ 0x3432_3920_546f_6f20, secret[1]];
    let ports = (packet.source_port as u64) << 16 | packet.destination_port as u64;
    let (source, destination) = (packet.source, packet.destination);
    let last = ports << 32 | slot as u64;
    let hash = match packet.family {
        Family::V4 => siphash([source.low << 32 | destination.low, last], key),
        Family::V6 => siphash([source.high, source.low, destination.high, destination.low, last], key),
    };
    (hash ^ hash >> 32) as u32
}

/// What is to be done with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// It is of another connection.
    None = 0,
    /// Nothing: it only acknowledges.
    Swallow = 1,
    /// It asks for a connection: answer with a SYN-ACK.
    Greet = 2,
    /// It is a request, or a part of one, or its sender has no more to say: answer with the page, which ends the connection.
    Tell = 3,
    /// Its sender has seen the page: acknowledge what it still sends.
    Acknowledge = 4,
}

/// What is to be done with a segment that acknowledges `acknowledged`, where the cookie of its ends is `cookie` and pages are so
/// long. Only of segments without options: the SYN-ACK offers none, while the clients of most other connections send some.
#[inline(always)]
pub const fn read(packet: &Packet, acknowledged: u32, cookie: u32, lengths: [u16; 2]) -> Step {
    // The number that the first byte of the page has.
    let since = acknowledged.wrapping_sub(cookie.wrapping_add(1));
    // Behind the page stands the end of the connection.
    let told =
        since == HEAD_LENGTH as u32 + lengths[0] as u32 + 1 || since == HEAD_LENGTH as u32 + lengths[1] as u32 + 1;
    if since != 0 && !told {
        return Step::None;
    }
    let speaks = packet.payload != 0 || packet.flags & tcp::FIN != 0;
    match (speaks && packet.flags & tcp::RST == 0, told) {
        (false, _) => Step::Swallow,
        (true, false) => Step::Tell,
        (true, true) => Step::Acknowledge,
    }
}

/// The seconds as they stand in a page.
#[inline(always)]
pub const fn digits(seconds: u64) -> [u8; DIGITS] {
    let mut rest = if seconds > LONGEST { LONGEST } else { seconds } as u32;
    let mut digits = [b' '; DIGITS];
    let mut place = DIGITS;
    while place > 1 {
        place -= 1;
        digits[place] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    digits
}

/// The whole seconds that a source is told to wait that is to wait so many nanoseconds: one at least.
#[inline(always)]
pub const fn seconds(nanos: u64) -> u64 {
    let seconds = nanos.div_ceil(1_000_000_000);
    if seconds == 0 { 1 } else { seconds }
}

/// The sum of the 16-bit words of bytes that begin at an even place.
pub const fn sum(bytes: &[u8]) -> u64 {
    let (mut sum, mut place) = (0, 0);
    while place < bytes.len() {
        sum += (bytes[place] as u64) << (if place.is_multiple_of(2) { 8 } else { 0 });
        place += 1;
    }
    sum
}

/// The sum of a head's words.
#[inline(always)]
pub const fn head_sum(digits: [u8; DIGITS]) -> u64 {
    const CONSTANT: u64 = sum(&HEAD);
    let [rest @ .., fifth, sixth] = digits;
    let last = u16::from_be_bytes([fifth, sixth]);
    CONSTANT + halves(u32::from_be_bytes(rest) as u64) + last as u64
}

impl Page {
    /// A page of this text behind the head; `None` where that is longer than [`REST_MAX`].
    pub const fn of(text: &[u8]) -> Option<Self> {
        if text.len() > REST_MAX || text.is_empty() {
            return None;
        }
        let mut rest = [0; REST_MAX];
        let (start, _) = rest.split_at_mut(text.len());
        start.copy_from_slice(text);
        Some(Self { sum: sum(text) as u32, length: text.len() as u16, padding: 0, rest })
    }

    /// Its text behind the head.
    pub fn text(&self) -> &[u8] {
        &self.rest[..usize::from(self.length).min(REST_MAX)]
    }
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
