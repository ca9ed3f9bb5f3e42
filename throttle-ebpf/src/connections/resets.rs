//! Which resets reach the service that they are for.
//!
//! A reset that a host on the way drops, or the service itself, closes nothing: for a wrong checksum, for want of hops,
//! because it is for another station, or because it is no reset that a host's TCP would send. Whoever could have its place
//! given back by one could have as many connections as it likes.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
};
use throttle_common::{
    forwarded::Segment,
    packet::{
        Family, Packet, Part,
        checksum::{fold, pseudo_header},
        protocol, tcp,
    },
    records::station,
};

use crate::{
    frame::{LINK_MAX, at, only_copy},
    tables::{STATIONS, scratch},
};

/// Hops that a packet must still have. Services are nearer than that behind the host that throttles them, and what hosts send
/// comes here with more: they begin with 64 or more, and no way through the Internet is longer than 40.
const HOPS_BEHIND: u8 = 16;
/// The only options that resets come with: two bytes of padding, and timestamps of ten (RFC 7323, appendix A).
const TIMESTAMPS: [u16; 2] = [0x0101, 0x080a];
const TIMESTAMPS_LENGTH: usize = 12;

/// Marks the segment in the scratch space as [`Segment::SOUND`] where it is a reset that nothing on its way drops.
///
/// A checksum that the network card is to complete, as those of containers and virtual machines of this host, looks like a
/// wrong one here.
///
/// A global function, which the verifier checks once and by itself.
#[inline(never)]
#[unsafe(export_name = "examine_reset")]
pub extern "C" fn examine(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    if is_sound(&XdpContext::new(ctx), &scratch.packet).is_some() {
        scratch.entering.segment.flags |= Segment::SOUND;
    }
    0
}

#[inline(always)]
fn is_sound(ctx: &XdpContext, packet: &Packet) -> Option<()> {
    let plain = packet.flags & !tcp::ACK == tcp::RST && packet.payload == 0 && matches!(packet.part, Part::Whole);
    let link = only_copy(packet.network.into());
    let header = match packet.family {
        Family::V4 => Ipv4Hdr::LEN,
        Family::V6 => Ipv6Hdr::LEN,
    };
    if !plain || !is_for_this_station(ctx)? || link > LINK_MAX || usize::from(packet.transport) != link + header {
        return None;
    }
    match packet.family {
        Family::V4 => is_sound_behind::<{ Ipv4Hdr::LEN }>(ctx, packet, link),
        Family::V6 => is_sound_behind::<{ Ipv6Hdr::LEN }>(ctx, packet, link),
    }
}

/// Whether a frame is for the interface that it has come in by. One for another station, or for a group of them, no host
/// forwards. Of an interface that the agent has told nothing of, as where a bond runs the program for its members, none is.
#[inline(always)]
fn is_for_this_station(ctx: &XdpContext) -> Option<bool> {
    // SAFETY: a field of the context.
    let interface = unsafe { (*ctx.ctx).ingress_ifindex };
    // SAFETY: `at` checked the range.
    let called = station(unsafe { &(*at::<EthHdr>(ctx, 0)?).dst_addr });
    // SAFETY: the agent may write it at any time; it is read at once.
    let own = unsafe { (&raw const *STATIONS.get(&interface)?).read_volatile() };
    Some(called == own)
}

#[inline(always)]
fn is_sound_behind<const IP: usize>(ctx: &XdpContext, packet: &Packet, link: usize) -> Option<()> {
    let hops = if IP == Ipv4Hdr::LEN {
        if fold(sum::<{ Ipv4Hdr::LEN / 2 }>(ctx, link)?) != 0 {
            return None;
        }
        // SAFETY: `at` checked the range.
        unsafe { (*at::<Ipv4Hdr>(ctx, link)?).ttl }
    } else {
        // SAFETY: as above.
        unsafe { (*at::<Ipv6Hdr>(ctx, link)?).hop_limit }
    };
    let transport = link + IP;
    // SAFETY: as above.
    let words = unsafe { (*at::<[u8; TcpHdr::LEN]>(ctx, transport)?)[12] } >> 4;
    let mut length = TcpHdr::LEN;
    let mut all = sum::<{ TcpHdr::LEN / 2 }>(ctx, transport)?;
    if usize::from(words) * 4 != length {
        let options = transport + length;
        length += TIMESTAMPS_LENGTH;
        // SAFETY: as above.
        let first = unsafe { *at::<[u16; 2]>(ctx, options)? }.map(u16::from_be);
        if usize::from(words) * 4 != length || first != TIMESTAMPS {
            return None;
        }
        all += sum::<{ TIMESTAMPS_LENGTH / 2 }>(ctx, options)?;
    }
    (hops >= HOPS_BEHIND && fold(all + pseudo_header(packet, protocol::TCP, length as u16)) == 0).then_some(())
}

/// The sum of so many words of the frame.
#[inline(always)]
fn sum<const WORDS: usize>(ctx: &XdpContext, offset: usize) -> Option<u64> {
    let words = at::<[u16; WORDS]>(ctx, offset)?;
    let mut sum = 0;
    let mut index = 0;
    while index < WORDS {
        // SAFETY: `at` checked the range.
        sum += u64::from(u16::from_be(unsafe { (*words)[index] }));
        index += 1;
    }
    Some(sum)
}
