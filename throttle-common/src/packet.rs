//! What a frame says of itself: Ethernet, up to two VLAN tags, IPv4 with options or IPv6 with extension headers, then
//! TCP, UDP or ICMP.
//!
//! [`parse`] is the only reader of packets: the kernel programs call it on the driver's memory, the tests on byte
//! strings. A frame that it cannot read to the end has a [`Reason`] of its own; nothing is guessed and nothing is
//! skipped, so that no shape is a way around a limit.

use crate::{records::Address, words::Reason};
use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
    vlan::VlanHdr,
};

/// VLAN tags that are read: 802.1Q within 802.1ad.
pub const MAX_VLANS: usize = 2;
/// IPv6 extension headers that are read. RFC 8200 knows six kinds; no honest sender repeats them often.
pub const MAX_EXTENSIONS: usize = 8;

/// Ethertypes in host byte order (IEEE 802).
pub mod ethertype {
    #![expect(missing_docs, reason = "the names are the registry's")]
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const VLAN: u16 = 0x8100;
    pub const IPV6: u16 = 0x86dd;
    pub const QINQ: u16 = 0x88a8;
}

/// Protocol numbers (IANA).
pub mod protocol {
    #![expect(missing_docs, reason = "the names are the registry's")]
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AUTHENTICATION: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const DESTINATION_OPTIONS: u8 = 60;
    pub const MOBILITY: u8 = 135;
    pub const HIP: u8 = 139;
    pub const SHIM6: u8 = 140;
}

/// TCP flags, as they stand in the fourteenth byte of the header (RFC 9293).
pub mod tcp {
    #![expect(missing_docs, reason = "the names are the standard's")]
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

/// ICMP type of an echo request (RFC 792).
const ECHO_REQUEST: u8 = 8;
/// ICMPv6 type of an echo request (RFC 4443).
const ECHO_REQUEST_V6: u8 = 128;

/// IPv4 or IPv6.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment, with the ports.
    First,
    /// A later fragment, without ports.
    Later,
}

impl Part {
    #[inline(always)]
    fn of(offset: u16, more: u16) -> Self {
        match (offset, more) {
            (0, 0) => Self::Whole,
            (0, _) => Self::First,
            _ => Self::Later,
        }
    }
}

/// A frame that could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Whose addresses these are.
    pub family: Family,
    /// Who sent it.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// What the payload is: TCP, UDP, ICMP, or any other number.
    pub protocol: u8,
    /// Whole or fragment.
    pub part: Part,
    /// TCP flags; ICMP type; 0 elsewhere.
    pub flags: u8,
    /// 0 where there is none.
    pub source_port: u16,
    /// 0 where there is none.
    pub destination_port: u16,
    /// Bytes before the IP header.
    pub network: u16,
    /// Bytes before the TCP, UDP or ICMP header.
    pub transport: u16,
    /// Bytes of TCP payload.
    pub payload: u16,
}

impl Default for Packet {
    /// A packet that nothing was read of.
    #[inline(always)]
    fn default() -> Self {
        Self {
            family: Family::V4,
            source: Address { high: 0, low: 0 },
            destination: Address { high: 0, low: 0 },
            protocol: 0,
            part: Part::Whole,
            flags: 0,
            source_port: 0,
            destination_port: 0,
            network: 0,
            transport: 0,
            payload: 0,
        }
    }
}

impl Packet {
    /// Whether it opens a TCP connection: SYN without ACK (RFC 9293, section 3.5).
    #[inline(always)]
    pub fn opens_connection(&self) -> bool {
        self.protocol == protocol::TCP && self.flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN
    }

    /// Whether an error message or a reset may be sent in answer (RFC 1122, section 3.2.2; RFC 1812, section 4.3.2.7;
    /// RFC 4443, section 2.4): never to a fragment, to an error, to a reset, or to what was not sent by one host to
    /// one host. The caller looks at the link-layer addresses.
    #[inline(always)]
    pub fn may_be_answered(&self) -> bool {
        let asks = match self.protocol {
            protocol::TCP => self.flags & tcp::RST == 0,
            protocol::ICMP => self.flags == ECHO_REQUEST,
            protocol::ICMPV6 => self.flags == ECHO_REQUEST_V6,
            _ => true,
        };
        asks && matches!(self.part, Part::Whole)
            && self.source.is_one_host(self.family)
            && self.destination.is_one_host(self.family)
    }

    /// The transport's place in [`crate::records::port_slot`], if services can name it.
    #[inline(always)]
    pub fn transport_number(&self) -> Option<u32> {
        match self.protocol {
            _ if matches!(self.part, Part::Later) => None,
            protocol::TCP => Some(0),
            protocol::UDP => Some(1),
            protocol::ICMP | protocol::ICMPV6 => Some(2),
            _ => None,
        }
    }
}

impl Address {
    /// An IPv4 address.
    pub const fn v4(address: u32) -> Self {
        Self { high: 0, low: address as u64 }
    }

    /// An IPv6 address.
    pub const fn v6(address: u128) -> Self {
        Self { high: (address >> 64) as u64, low: address as u64 }
    }

    /// Whether it can be the address of one host on a network: not unspecified, loopback, multicast or broadcast.
    #[inline(always)]
    pub const fn is_one_host(self, family: Family) -> bool {
        match family {
            Family::V4 => {
                let first = self.low >> 24;
                first != 0 && first != 127 && first < 224
            }
            Family::V6 => self.high >> 56 != 0xff && (self.high != 0 || self.low > 1),
        }
    }

    /// The 64-bit key of the first `prefix` bits.
    ///
    /// Prefixes of up to 64 bits are complemented and so kept exact: the key 0 then belongs to no address that may
    /// send, and marks an empty slot. Longer ones are fingerprinted.
    #[inline(always)]
    pub const fn key(self, family: Family, prefix: u8, secret: crate::hash::Secret) -> u64 {
        match family {
            Family::V4 => !(self.low & (u64::MAX << (32 - prefix))),
            Family::V6 if prefix <= 64 => !(self.high & (u64::MAX << (64 - prefix))),
            Family::V6 => crate::hash::fingerprint(self.high, self.low & (u64::MAX << (128 - prefix)), secret),
        }
    }
}

/// Reads the frame between `start` and `end` into `packet`. The frame is `length` bytes long on the wire: more than
/// `end - start` where the rest lies in further buffers. What `packet` holds after an error means nothing.
///
/// # Safety
///
/// The bytes from `start` up to `end` must be readable.
#[inline(always)]
pub unsafe fn parse(start: usize, end: usize, length: u32, packet: &mut Packet) -> Result<(), Reason> {
    // SAFETY: the caller's; the same holds for every `read` below, which checks its own end.
    let ethernet: EthHdr = unsafe { read(start, end) }.ok_or(Reason::TruncatedEthernet)?;
    let mut ethertype = u16::from_be(ethernet.ether_type);
    let mut network = EthHdr::LEN;
    let mut tags = 0;
    while ethertype == ethertype::VLAN || ethertype == ethertype::QINQ {
        if tags == MAX_VLANS {
            return Err(Reason::TooManyVlans);
        }
        tags += 1;
        // SAFETY: as above.
        let tag: VlanHdr = unsafe { read(start + network, end) }.ok_or(Reason::TruncatedVlan)?;
        ethertype = u16::from_be(tag.ether_type);
        network += VlanHdr::LEN;
    }
    packet.network = network as u16;
    let mut rest = Rest { at: start + network, end, offset: network as u32, length: length - network as u32 };
    match ethertype {
        // SAFETY: as above.
        ethertype::IPV4 => unsafe { ipv4(&mut rest, packet)? },
        // SAFETY: as above.
        ethertype::IPV6 => unsafe { ipv6(&mut rest, packet)? },
        ethertype::ARP => return Err(Reason::Arp),
        _ => return Err(Reason::OtherEthertype),
    }
    packet.transport = rest.offset as u16;
    // SAFETY: as above.
    unsafe { transport(&rest, packet) }
}

/// Reads a byte string as a frame.
pub fn parse_bytes(frame: &[u8]) -> Result<Packet, Reason> {
    let range = frame.as_ptr_range();
    let mut packet = Packet::default();
    // SAFETY: the range is the slice's own.
    unsafe { parse(range.start as usize, range.end as usize, frame.len() as u32, &mut packet)? };
    Ok(packet)
}

/// What is still to be read.
struct Rest {
    /// Where it begins.
    at: usize,
    /// Where the first buffer ends.
    end: usize,
    /// Bytes of the frame before it.
    offset: u32,
    /// Bytes that belong to it: those of the frame, then those that the IP header grants (padding does not count).
    length: u32,
}

impl Rest {
    #[inline(always)]
    fn skip(&mut self, bytes: u32) {
        self.at += bytes as usize;
        self.offset += bytes;
        self.length -= bytes;
    }
}

/// Reads a `T` of alignment 1 at `at`, if it ends within the frame.
#[inline(always)]
unsafe fn read<T: Copy>(at: usize, end: usize) -> Option<T> {
    const { assert!(align_of::<T>() <= 2) };
    if at + size_of::<T>() > end {
        return None;
    }
    // SAFETY: just checked against the end; the caller answers for the range.
    Some(unsafe { (at as *const T).read_unaligned() })
}

#[inline(always)]
unsafe fn ipv4(rest: &mut Rest, packet: &mut Packet) -> Result<(), Reason> {
    // SAFETY: the caller's.
    let header: Ipv4Hdr = unsafe { read(rest.at, rest.end) }.ok_or(Reason::TruncatedIpv4)?;
    let header_length = u32::from(header.vihl & 0x0f) * 4;
    let total = u32::from(u16::from_be_bytes(header.tot_len));
    if header.vihl >> 4 != 4 || header_length < Ipv4Hdr::LEN as u32 || total < header_length {
        return Err(Reason::MalformedIpv4);
    }
    if rest.length < header_length {
        return Err(Reason::TruncatedIpv4);
    }
    if rest.length < total {
        return Err(Reason::MalformedIpv4);
    }
    let fragment = u16::from_be_bytes(header.frags);
    packet.family = Family::V4;
    packet.source = Address::v4(u32::from_be_bytes(header.src_addr));
    packet.destination = Address::v4(u32::from_be_bytes(header.dst_addr));
    packet.protocol = header.proto;
    packet.part = Part::of(fragment & 0x1fff, fragment & 0x2000);
    rest.length = total;
    rest.skip(header_length);
    Ok(())
}

#[inline(always)]
unsafe fn ipv6(rest: &mut Rest, packet: &mut Packet) -> Result<(), Reason> {
    // SAFETY: the caller's.
    let header: Ipv6Hdr = unsafe { read(rest.at, rest.end) }.ok_or(Reason::TruncatedIpv6)?;
    let total = u32::from(u16::from_be_bytes(header.payload_len)) + Ipv6Hdr::LEN as u32;
    if header.vcf[0] >> 4 != 6 || rest.length < total {
        return Err(Reason::MalformedIpv6);
    }
    packet.family = Family::V6;
    packet.source = Address::v6(u128::from_be_bytes(header.src_addr));
    packet.destination = Address::v6(u128::from_be_bytes(header.dst_addr));
    packet.part = Part::Whole;
    rest.length = total;
    rest.skip(Ipv6Hdr::LEN as u32);
    let mut next = header.next_hdr;
    let mut extensions = 0;
    while is_extension(next) && !matches!(packet.part, Part::Later) {
        if extensions == MAX_EXTENSIONS {
            return Err(Reason::TooManyExtensions);
        }
        extensions += 1;
        // SAFETY: the caller's.
        let extension: [u8; 8] = unsafe { read(rest.at, rest.end) }.ok_or(Reason::TruncatedExtension)?;
        let length = match next {
            protocol::FRAGMENT => 8,
            // RFC 4302: in units of four bytes, less two.
            protocol::AUTHENTICATION => (u32::from(extension[1]) + 2) * 4,
            _ => (u32::from(extension[1]) + 1) * 8,
        };
        if next == protocol::FRAGMENT {
            let fragment = u16::from_be_bytes([extension[2], extension[3]]);
            // An atomic fragment (RFC 6946) is a whole datagram.
            packet.part = Part::of(fragment & 0xfff8, fragment & 1);
        }
        if rest.length < length {
            return Err(Reason::TruncatedExtension);
        }
        rest.skip(length);
        next = extension[0];
    }
    packet.protocol = next;
    Ok(())
}

/// The extension headers that can be walked (RFC 8200, RFC 4302, RFC 6275, RFC 7401, RFC 5533).
#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(
        next,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY
            | protocol::HIP
            | protocol::SHIM6
    )
}

/// Reads the transport header with which `rest` begins, unless this is a later fragment.
#[inline(always)]
unsafe fn transport(rest: &Rest, packet: &mut Packet) -> Result<(), Reason> {
    packet.flags = 0;
    packet.source_port = 0;
    packet.destination_port = 0;
    packet.payload = 0;
    if matches!(packet.part, Part::Later) {
        return Ok(());
    }
    match packet.protocol {
        protocol::TCP => {
            // SAFETY: the caller's.
            let bytes: [u8; TcpHdr::LEN] = unsafe { read(rest.at, rest.end) }.ok_or(Reason::TruncatedTcp)?;
            if rest.length < TcpHdr::LEN as u32 {
                return Err(Reason::TruncatedTcp);
            }
            let length = u32::from(bytes[12] >> 4) * 4;
            if length < TcpHdr::LEN as u32 || (length > rest.length && matches!(packet.part, Part::Whole)) {
                return Err(Reason::MalformedTcp);
            }
            packet.source_port = u16::from_be_bytes([bytes[0], bytes[1]]);
            packet.destination_port = u16::from_be_bytes([bytes[2], bytes[3]]);
            packet.flags = bytes[13];
            packet.payload = rest.length.saturating_sub(length) as u16;
        }
        protocol::UDP => {
            // SAFETY: the caller's.
            let header: UdpHdr = unsafe { read(rest.at, rest.end) }.ok_or(Reason::TruncatedUdp)?;
            if rest.length < UdpHdr::LEN as u32 {
                return Err(Reason::TruncatedUdp);
            }
            let length = u32::from(u16::from_be_bytes(header.len));
            if length < UdpHdr::LEN as u32 || (length > rest.length && matches!(packet.part, Part::Whole)) {
                return Err(Reason::MalformedUdp);
            }
            packet.source_port = u16::from_be_bytes(header.src);
            packet.destination_port = u16::from_be_bytes(header.dst);
        }
        protocol::ICMP | protocol::ICMPV6 => {
            // SAFETY: the caller's.
            let bytes: [u8; 4] = unsafe { read(rest.at, rest.end) }.ok_or(Reason::TruncatedIcmp)?;
            if rest.length < 4 {
                return Err(Reason::TruncatedIcmp);
            }
            packet.flags = bytes[0];
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
