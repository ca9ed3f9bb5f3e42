//! The reader of frames. Every read checks its own end.

use super::{Family, Packet, Part, ethertype, protocol};
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
/// No transport header lies further from the start of its frame; with all bits of a header's length, for a mask.
const MAX_OFFSET: u16 = (1 << 15) - 1;
const _: () =
    assert!(EthHdr::LEN + MAX_VLANS * VlanHdr::LEN + Ipv6Hdr::LEN + MAX_EXTENSIONS * 2048 <= MAX_OFFSET as usize);
/// ICMPv6 types of neighbour discovery, router solicitation to redirect (RFC 4861).
const FIRST_DISCOVERY: u8 = 133;
const LAST_DISCOVERY: u8 = 137;

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
    let mut rest = Rest { start, offset: network as u32, end, length: length - network as u32, hop_limit: 0 };
    packet.network = network as u16;
    if tags != 0 {
        rest.offset = only_bounds_of(&mut packet.network);
    }
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
    /// Where the frame begins.
    start: usize,
    /// Bytes of the frame before it.
    offset: u32,
    /// Where the first buffer ends.
    end: usize,
    /// Bytes that belong to it: those of the frame, then those that the IP header grants (padding does not count).
    length: u32,
    /// Of an IPv6 header, else 0.
    hop_limit: u8,
}

impl Rest {
    #[inline(always)]
    fn at(&self) -> usize {
        self.start + self.offset as usize
    }

    #[inline(always)]
    fn skip(&mut self, bytes: u32) {
        self.offset += bytes;
        self.length -= bytes;
    }
}

/// The same offset, of which the verifier of kernel programs knows only that it is one: it forgets what lies in a map. What
/// comes behind headers of many lengths is so checked once, and not for each way to it. Packets without any do not come here.
#[inline(always)]
fn only_bounds_of(offset: &mut u16) -> u32 {
    // SAFETY: the reference's own.
    u32::from(unsafe { core::ptr::from_mut(offset).read_volatile() } & MAX_OFFSET)
}

/// Reads a `T` at `at`, if it ends within the frame.
#[inline(always)]
unsafe fn read<T: Copy>(at: usize, end: usize) -> Option<T> {
    const { assert!(align_of::<T>() <= 2 && size_of::<T>().is_multiple_of(2)) };
    if at + size_of::<T>() > end {
        return None;
    }
    if cfg!(target_arch = "bpf") {
        // SAFETY: as below; the kernel puts frames at even addresses, and every header has an even length.
        return Some(unsafe { (at as *const Even<T>).read() }.0);
    }
    // SAFETY: just checked against the end; the caller answers for the range.
    Some(unsafe { (at as *const T).read_unaligned() })
}

/// A header at an even address. Of one that may be odd the compiler has to read every byte on its own.
#[repr(C, align(2))]
struct Even<T>(T);

#[inline(always)]
unsafe fn ipv4(rest: &mut Rest, packet: &mut Packet) -> Result<(), Reason> {
    // SAFETY: the caller's.
    let header: Ipv4Hdr = unsafe { read(rest.at(), rest.end) }.ok_or(Reason::TruncatedIpv4)?;
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
    let header: Ipv6Hdr = unsafe { read(rest.at(), rest.end) }.ok_or(Reason::TruncatedIpv6)?;
    let total = u32::from(u16::from_be_bytes(header.payload_len)) + Ipv6Hdr::LEN as u32;
    if header.vcf[0] >> 4 != 6 || rest.length < total {
        return Err(Reason::MalformedIpv6);
    }
    packet.family = Family::V6;
    packet.source = Address::v6(u128::from_be_bytes(header.src_addr));
    packet.destination = Address::v6(u128::from_be_bytes(header.dst_addr));
    packet.part = Part::Whole;
    rest.hop_limit = header.hop_limit;
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
        let extension: [u8; 8] = unsafe { read(rest.at(), rest.end) }.ok_or(Reason::TruncatedExtension)?;
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
        packet.transport = rest.offset as u16;
        rest.offset = only_bounds_of(&mut packet.transport);
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

/// Whether it resolves addresses on this link: a router lowers the hop limit, so 255 never comes from further away
/// (RFC 4861, sections 4 and 7.1); a fragment never does it (RFC 6980).
#[inline(always)]
fn is_neighbour_discovery(rest: &Rest, packet: &Packet, kind: u8) -> bool {
    rest.hop_limit == 255
        && packet.protocol == protocol::ICMPV6
        && matches!(packet.part, Part::Whole)
        && (FIRST_DISCOVERY..=LAST_DISCOVERY).contains(&kind)
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
            let bytes: [u8; TcpHdr::LEN] = unsafe { read(rest.at(), rest.end) }.ok_or(Reason::TruncatedTcp)?;
            if rest.length < TcpHdr::LEN as u32 {
                return Err(Reason::TruncatedTcp);
            }
            let length = u32::from(bytes[12] >> 4) * 4;
            if length < TcpHdr::LEN as u32 || (length > rest.length && matches!(packet.part, Part::Whole)) {
                return Err(Reason::MalformedTcp);
            }
            if length > rest.length {
                return Err(Reason::TruncatedTcp);
            }
            packet.source_port = u16::from_be_bytes([bytes[0], bytes[1]]);
            packet.destination_port = u16::from_be_bytes([bytes[2], bytes[3]]);
            packet.flags = bytes[13];
            packet.payload = (rest.length - length) as u16;
        }
        protocol::UDP => {
            // SAFETY: the caller's.
            let header: UdpHdr = unsafe { read(rest.at(), rest.end) }.ok_or(Reason::TruncatedUdp)?;
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
            let bytes: [u8; 4] = unsafe { read(rest.at(), rest.end) }.ok_or(Reason::TruncatedIcmp)?;
            if rest.length < 4 {
                return Err(Reason::TruncatedIcmp);
            }
            if is_neighbour_discovery(rest, packet, bytes[0]) {
                return Err(Reason::NeighbourDiscovery);
            }
            packet.flags = bytes[0];
        }
        _ => {}
    }
    Ok(())
}
