//! The answers of `reject`, but for those of [`crate::pages`]: a TCP reset to a SYN and to what would complete a handshake,
//! ICMP "administratively prohibited" to the rest.
//!
//! The refused frame itself is turned round and sent back, at most as often as the policy's budget for answers allows,
//! and never in answer to what must not be answered. Where no answer goes out the packet is dropped, and counted.

use core::net::{Ipv4Addr, Ipv6Addr};

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
};
use throttle_common::{
    gcra,
    packet::{
        Family, Packet,
        checksum::{fold, halves, pseudo_header},
        protocol, tcp,
    },
    table::TRIES,
    words::Outcome,
};

use crate::{
    atomic,
    frame::{LINK_MAX, at},
    pages,
    tables::{ANSWER_BUCKET, LOSSES, POLICIES, scratch},
};

/// The longest IP header with extensions that is quoted back.
const QUOTE_MAX: usize = 120;
/// And the eight bytes of transport behind it (RFC 792).
const QUOTED_MAX: usize = QUOTE_MAX + 8;
const ICMP_HEADER: usize = 8;
const HOP_LIMIT: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;

/// Why a packet for a service is refused, as a number. `crowded` is 1 where a limit on open connections does.
#[inline(always)]
pub fn refusal(reason: u8, service: u16, crowded: u32) -> u32 {
    u32::from(service) << 16 | u32::from(reason) << 8 | crowded
}

/// Answers the packet in the scratch space, `length` bytes long; gives the number of the outcome.
///
/// A global function, which the verifier checks once and by itself; so are those that it calls.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn answer(ctx: *mut xdp_md, length: u32, epoch: u32, now: u64, refusal: u32) -> u32 {
    let (service, reason) = (refusal >> 16, refusal >> 8 & 0xff);
    if scratch().is_some_and(|scratch| pages::answers(&scratch.packet, epoch & 1, reason, service)) {
        return pages::answer(ctx, length, epoch, now, service);
    }
    answer_plainly(ctx, length, epoch & 1, now, refusal & 1)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn answer_plainly(ctx: *mut xdp_md, length: u32, generation: u32, now: u64, crowded: u32) -> u32 {
    let (Some(scratch), Some(losses)) = (scratch(), LOSSES.get_ptr_mut(0)) else { return Outcome::Drop as u32 };
    // SAFETY: this CPU's own element, and nothing interrupts this program.
    let losses = unsafe { &mut *losses };
    let ctx = XdpContext::new(ctx);
    let packet = &scratch.packet;
    let link = usize::from(packet.network);
    let quote = usize::from(packet.transport.wrapping_sub(packet.network));
    if !packet.may_be_answered() || !sent_to_us(&ctx) || link > LINK_MAX || quote > QUOTE_MAX {
        losses.answers_undue += 1;
        return Outcome::Drop as u32;
    }
    if !within_budget(generation, now) {
        losses.answers_withheld += 1;
        return Outcome::Drop as u32;
    }
    let answered = match (packet.family, packet.opens_connection() || crowded != 0) {
        (Family::V4, true) => reset::<{ Ipv4Hdr::LEN }>(&ctx, packet, link, quote, length),
        (Family::V6, true) => reset::<{ Ipv6Hdr::LEN }>(&ctx, packet, link, quote, length),
        (Family::V4, false) => prohibit::<{ Ipv4Hdr::LEN }>(&ctx, packet, link, quote, length),
        (Family::V6, false) => prohibit::<{ Ipv6Hdr::LEN }>(&ctx, packet, link, quote, length),
    };
    if answered.is_none() {
        losses.answers_undue += 1;
        return Outcome::Drop as u32;
    }
    Outcome::Reject as u32
}

/// Whether the frame was sent to this station alone.
#[inline(always)]
pub fn sent_to_us(ctx: &XdpContext) -> bool {
    at::<EthHdr>(ctx, 0).is_some_and(|ethernet| {
        // SAFETY: `at` checked the range.
        let ethernet = unsafe { &*ethernet };
        (ethernet.dst_addr[0] | ethernet.src_addr[0]) & 1 == 0
    })
}

/// Charges the host's budget for answers. After [`TRIES`] lost races an answer is withheld.
#[inline(always)]
pub fn within_budget(generation: u32, now: u64) -> bool {
    let (Some(policy), Some(bucket)) = (POLICIES.get(generation), ANSWER_BUCKET.get_ptr_mut(0)) else { return false };
    // SAFETY: an element of the map.
    let mut tat = unsafe { atomic::load(bucket) };
    for _ in 0..TRIES {
        let Some(next) = gcra::admit(tat, gcra::ticks(now), policy.answers.cost, policy.answers.depth) else {
            return false;
        };
        // SAFETY: an element of the map.
        let (is_swapped, seen) = unsafe { atomic::swap(bucket, tat, next) };
        if is_swapped {
            return true;
        }
        tat = seen;
    }
    false
}

/// Turns a segment into the reset that refuses it (RFC 9293, section 3.5.2): it acknowledges a SYN, and goes on where any
/// other says that we are. `IP` is the length of the plain IP header.
#[inline(always)]
fn reset<const IP: usize>(ctx: &XdpContext, packet: &Packet, link: usize, quote: usize, length: u32) -> Option<()> {
    let refused = at::<TcpHdr>(ctx, link + quote)?;
    // SAFETY: `at` checked the range.
    let [sequence, expected] = unsafe { [(*refused).seq, (*refused).ack_seq] }.map(u32::from_be_bytes);
    let (sequence, acknowledged, flags) = if packet.opens_connection() {
        (0, sequence.wrapping_add(1).wrapping_add(u32::from(packet.payload)), tcp::RST | tcp::ACK)
    } else {
        (expected, 0, tcp::RST)
    };
    resize(ctx, link + IP + TcpHdr::LEN, length)?;
    turn_round(ctx)?;
    let segment = TcpHdr::LEN as u16;
    let header = at::<[u8; IP]>(ctx, link)?;
    // SAFETY: `at` checked the range.
    unsafe { write_ip::<IP>(header.cast(), packet, protocol::TCP, segment) };
    let offset_and_flags = u16::from(TcpHdr::LEN as u8 / 4) << 12 | u16::from(flags);
    let sum = pseudo_header(packet, protocol::TCP, segment)
        + u64::from(packet.source_port)
        + u64::from(packet.destination_port)
        + halves(u64::from(sequence))
        + halves(u64::from(acknowledged))
        + u64::from(offset_and_flags);
    let bytes = at::<[u8; TcpHdr::LEN]>(ctx, link + IP)?;
    let [s0, s1] = packet.destination_port.to_be_bytes();
    let [d0, d1] = packet.source_port.to_be_bytes();
    let [q0, q1, q2, q3] = sequence.to_be_bytes();
    let [a0, a1, a2, a3] = acknowledged.to_be_bytes();
    let [f0, f1] = offset_and_flags.to_be_bytes();
    let [c0, c1] = fold(sum).to_be_bytes();
    // SAFETY: `at` checked the range.
    unsafe { *bytes = [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, f0, f1, 0, 0, c0, c1, 0, 0] };
    Some(())
}

/// Puts an IP and an ICMP header before the packet, of which the first bytes are quoted.
#[inline(always)]
fn prohibit<const IP: usize>(ctx: &XdpContext, packet: &Packet, link: usize, quote: usize, length: u32) -> Option<()> {
    let quoted = quote + 8;
    resize(ctx, link + quoted, length)?;
    let grown = IP + ICMP_HEADER;
    // SAFETY: the context is the kernel's own; all pointers into the frame are taken anew below.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(grown as u32).cast_signed()) } != 0 {
        return None;
    }
    for pair in 0..LINK_MAX / 2 {
        if pair * 2 >= link {
            break;
        }
        // SAFETY: `at` checked the ranges.
        unsafe { *at::<[u8; 2]>(ctx, pair * 2)? = *at::<[u8; 2]>(ctx, grown + pair * 2)? };
    }
    turn_round(ctx)?;
    let (number, kind, code) = if IP == Ipv4Hdr::LEN { (protocol::ICMP, 3, 13) } else { (protocol::ICMPV6, 1, 1) };
    let message = (ICMP_HEADER + quoted) as u16;
    let header = at::<[u8; IP]>(ctx, link)?;
    // SAFETY: `at` checked the range.
    unsafe { write_ip::<IP>(header.cast(), packet, number, message) };
    let mut sum = u64::from(u16::from_be_bytes([kind, code]));
    if IP == Ipv6Hdr::LEN {
        sum += pseudo_header(packet, number, message);
    }
    for pair in 0..QUOTED_MAX / 2 {
        if pair * 2 >= quoted {
            break;
        }
        // SAFETY: `at` checked the range.
        sum += u64::from(u16::from_be_bytes(unsafe { *at::<[u8; 2]>(ctx, link + grown + pair * 2)? }));
    }
    let [c0, c1] = fold(sum).to_be_bytes();
    // SAFETY: `at` checked the range.
    unsafe { *at::<[u8; ICMP_HEADER]>(ctx, link + IP)? = [kind, code, c0, c1, 0, 0, 0, 0] };
    Some(())
}

/// Makes the frame `wanted` bytes long, which is never longer than it is.
#[inline(always)]
fn resize(ctx: &XdpContext, wanted: usize, length: u32) -> Option<()> {
    let by = (wanted as u32).cast_signed() - length.cast_signed();
    // SAFETY: the context is the kernel's own; all pointers into the frame are taken anew.
    (by <= 0 && unsafe { bpf_xdp_adjust_tail(ctx.ctx, by) } == 0).then_some(())
}

/// Sends the frame back where it came from.
#[inline(always)]
fn turn_round(ctx: &XdpContext) -> Option<()> {
    let ethernet = at::<EthHdr>(ctx, 0)?;
    // SAFETY: `at` checked the range.
    let EthHdr { dst_addr, src_addr, .. } = unsafe { &mut *ethernet };
    core::mem::swap(dst_addr, src_addr);
    Some(())
}

/// Writes a plain IP header from the packet's receiver to its sender, for `payload` bytes of `number`.
///
/// # Safety
///
/// `to` points to `IP` bytes, the length of the header of the packet's family.
#[inline(always)]
pub unsafe fn write_ip<const IP: usize>(to: *mut u8, packet: &Packet, number: u8, payload: u16) {
    if IP == Ipv4Hdr::LEN {
        let total = Ipv4Hdr::LEN as u16 + payload;
        let lifetime = u16::from_be_bytes([HOP_LIMIT, number]);
        let sum = 0x4500
            + u64::from(total)
            + u64::from(DONT_FRAGMENT)
            + u64::from(lifetime)
            + halves(packet.source.low)
            + halves(packet.destination.low);
        let header = Ipv4Hdr {
            vihl: 0x45,
            tos: 0,
            tot_len: total.to_be_bytes(),
            id: [0; 2],
            frags: DONT_FRAGMENT.to_be_bytes(),
            ttl: HOP_LIMIT,
            proto: number,
            check: fold(sum).to_be_bytes(),
            src_addr: Ipv4Addr::from_bits(packet.destination.low as u32).octets(),
            dst_addr: Ipv4Addr::from_bits(packet.source.low as u32).octets(),
        };
        // SAFETY: the caller's.
        unsafe { to.cast::<Ipv4Hdr>().write(header) };
    } else {
        let address = |address: throttle_common::records::Address| {
            Ipv6Addr::from_bits(u128::from(address.high) << 64 | u128::from(address.low)).octets()
        };
        let header = Ipv6Hdr {
            vcf: [0x60, 0, 0, 0],
            payload_len: payload.to_be_bytes(),
            next_hdr: number,
            hop_limit: HOP_LIMIT,
            src_addr: address(packet.destination),
            dst_addr: address(packet.source),
        };
        // SAFETY: the caller's.
        unsafe { to.cast::<Ipv6Hdr>().write(header) };
    }
}
