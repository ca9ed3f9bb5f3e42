//! Pages: a new connection to a plain HTTP service that `reject` refuses is told so in HTTP, and no socket knows of it.
//!
//! Its SYN is answered here as a server would, its request with `429 Too Many Requests` ([`throttle_common::pages`]). What
//! belongs to such a connection says so by the cookie that it acknowledges. It is looked for before any limit is asked: also
//! where the limit that refused it does so no more.
//!
//! An answer is put together in the scratch space and then written over the frame, whose size is changed before: at its end
//! where it gets shorter, but where it gets longer at its beginning, for behind a frame drivers may leave no room (veth leaves
//! some bytes, or none).

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes},
    programs::XdpContext,
};
use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
};
use throttle_common::{
    packet::{
        Family, Packet,
        checksum::{fold, halves, pseudo_header},
        protocol, tcp,
    },
    pages::{DIGITS, HEAD, HEAD_LENGTH, REST_MAX, Step, cookie, digits, head_sum, read, slot},
    records::{MAX_SERVICES, NONE, Page, PageTally},
    words::{Outcome, Reason},
};

use crate::{
    answer::{sent_to_us, within_budget, write_ip},
    clock::Clock,
    connections::transport,
    frame::{LINK_MAX, only_copy},
    limits, services,
    tables::{InForce, LOSSES, PAGE_TALLIES, PAGES, Scratch, scratch},
    verdict::Verdict,
};

/// What the SYN-ACK says may be sent at once.
const WINDOW: u16 = u16::MAX;
/// The only option of the SYN-ACK: segments as long as Ethernet carries them (RFC 9293, section 3.7.1).
const SEGMENT_V4: u32 = 0x0204_05b4;
const SEGMENT_V6: u32 = 0x0204_05a0;

/// The head of a page in words.
// SAFETY: as many bytes, of which any are a word.
const HEAD_WORDS: [u32; HEAD.len() / 4] = unsafe { core::mem::transmute(HEAD) };

/// Where the IP header of an [`Answer`] begins: behind room for every link-layer header.
const NETWORK: usize = LINK_MAX.next_multiple_of(8);

/// An answer in the making.
#[repr(C, align(8))]
pub struct Answer {
    /// Its first bytes, up to [`HEAD_LENGTH`] of a page. The verifier looks at the most that [`bits`] may say.
    bytes: [u8; (15 + EthHdr::LEN + 15 + Ipv6Hdr::LEN + TcpHdr::LEN + 63_usize).next_multiple_of(8)],
    /// Its number, and what it acknowledges.
    sequence: u32,
    acknowledged: u32,
    /// Bytes behind its TCP header that are among those above, and that follow from a page.
    here: u32,
    rest: u32,
    /// Whose page that is, with the sum of its words.
    page: u32,
    sum: u32,
}

/// The verdict on a packet of a connection that was refused with a page; `None` where it is no such packet.
#[inline(always)]
pub fn verdict(ctx: *mut xdp_md, in_force: &InForce, service: u16, packet: &Packet, clock: &Clock) -> Option<Verdict> {
    if packet.protocol != protocol::TCP
        || packet.flags & (tcp::SYN | tcp::ACK) != tcp::ACK
        || in_force.policy.observe != 0
    {
        return None;
    }
    let step = see_segment(ctx, service.into(), in_force.epoch, clock.known());
    if step == Step::None as u32 {
        return None;
    }
    let outcome = if step == Step::Swallow as u32 { Outcome::Drop } else { Outcome::Reject };
    Some(Verdict { outcome, service, ..Verdict::pass(Reason::TooManyRequests) })
}

/// Whether a refusal by `reject` of the packet in the scratch space, for the reason of this number, is to be answered here. What
/// breakers keep away hears of no limit.
#[inline(always)]
pub fn answers(packet: &Packet, generation: u32, reason: u32, service: u32) -> bool {
    reason == Reason::TooManyRequests as u32
        || packet.opens_connection()
            && packet.flags & tcp::FIN == 0
            && reason != Reason::BreakerOpen as u32
            && services::get(generation, service).is_some_and(|it| it.scope.pages != 0)
}

/// What is to be done with the segment in the scratch space, a [`Step`], which is noted there.
///
/// A global function, which the verifier checks once and by itself.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn see_segment(ctx: *mut xdp_md, service: u32, epoch: u32, now: u64) -> u32 {
    let (Some(in_force), Some(scratch)) = (InForce::of(epoch), scratch()) else { return Step::None as u32 };
    let packet = &scratch.packet;
    let Some(header) = transport(&XdpContext::new(ctx), packet).map(<*mut TcpHdr>::cast::<[u8; TcpHdr::LEN]>) else {
        return Step::None as u32;
    };
    // SAFETY: the header was checked to lie within the frame.
    let header = unsafe { &*header };
    if header[12] >> 4 != TcpHdr::LEN as u8 / 4 {
        return Step::None as u32;
    }
    let acknowledged = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    let length = |service| page(in_force.generation, service).map_or(0, |page| page.length);
    let lengths = [length(service), length(NONE.into())];
    let slot = slot(Clock::at(now).nanos());
    for slot in [slot, slot.wrapping_sub(1)] {
        let cookie = cookie(packet, slot, in_force.control.secret);
        let step = read(packet, acknowledged, cookie, lengths) as u32;
        if step != Step::None as u32 {
            scratch.step = step;
            return step;
        }
    }
    Step::None as u32
}

/// Answers the packet in the scratch space, `length` bytes long, in the place of a service; gives the number of the outcome.
///
/// Global functions likewise, one after the other: the stack has no room for all at once.
#[inline(never)]
#[unsafe(export_name = "answer_with_page")]
pub extern "C" fn answer(ctx: *mut xdp_md, length: u32, epoch: u32, now: u64, service: u32) -> u32 {
    if may_be_answered(ctx, epoch, now) == 0 {
        return Outcome::Drop as u32;
    }
    let step = begin_answer(ctx, epoch, now);
    if step == Step::Tell as u32 {
        limits::weigh_wait(epoch, now, service);
    }
    let is_ready = step != Step::None as u32 && make_room(ctx, length, epoch, service) != 0;
    let is_written = is_ready && if is_v4() { write_v4(ctx) } else { write_v6(ctx) } != 0;
    if !is_written || finish_answer(ctx, epoch) == 0 {
        if let Some(losses) = LOSSES.get_ptr_mut(0) {
            // SAFETY: this CPU's own element, and nothing interrupts this program.
            unsafe { (*losses).answers_undue += 1 };
        }
        return Outcome::Drop as u32;
    }
    Outcome::Reject as u32
}

#[inline(always)]
fn is_v4() -> bool {
    scratch().is_some_and(|scratch| matches!(scratch.packet.family, Family::V4))
}

/// Whether the packet may be answered, within the host's budget for answers, which is charged for it.
#[inline(never)]
#[unsafe(export_name = "may_be_answered_with_page")]
extern "C" fn may_be_answered(ctx: *mut xdp_md, epoch: u32, now: u64) -> u32 {
    let (Some(scratch), Some(losses)) = (scratch(), LOSSES.get_ptr_mut(0)) else { return 0 };
    // SAFETY: this CPU's own element, and nothing interrupts this program.
    let losses = unsafe { &mut *losses };
    if !scratch.packet.may_be_answered() || !sent_to_us(&XdpContext::new(ctx)) {
        losses.answers_undue += 1;
        return 0;
    }
    if !within_budget(epoch & 1, now) {
        losses.answers_withheld += 1;
        return 0;
    }
    1
}

/// Notes what is sent where, and gives the [`Step`] that it is.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn begin_answer(ctx: *mut xdp_md, epoch: u32, now: u64) -> u32 {
    let (Some(in_force), Some(Scratch { packet, step, answer, .. })) = (InForce::of(epoch), scratch()) else {
        return Step::None as u32;
    };
    let Some(header) = transport(&XdpContext::new(ctx), packet) else { return Step::None as u32 };
    // SAFETY: the header was checked to lie within the frame.
    let [sequence, expected] = unsafe { [(*header).seq, (*header).ack_seq] }.map(u32::from_be_bytes);
    if packet.opens_connection() {
        // What came with it is sent again.
        *step = Step::Greet as u32;
        answer.sequence = cookie(packet, slot(now), in_force.control.secret);
        answer.acknowledged = sequence.wrapping_add(1);
    } else {
        let fin = u32::from(packet.flags & tcp::FIN);
        answer.sequence = expected;
        answer.acknowledged = sequence.wrapping_add(u32::from(packet.payload)).wrapping_add(fin);
    }
    (answer.here, answer.rest, answer.page, answer.sum) = (0, 0, NONE.into(), 0);
    let Some(tags) = tags(packet) else { return Step::None as u32 };
    // SAFETY: within the answer, whatever the bits.
    let start = unsafe { answer.bytes.as_mut_ptr().add(bits::<4>(NETWORK - EthHdr::LEN - tags)) };
    // SAFETY: as many bytes are there, likewise.
    if unsafe { bpf_xdp_load_bytes(ctx, 0, start.cast(), (EthHdr::LEN + bits::<4>(tags)) as u32) } != 0 {
        return Step::None as u32;
    }
    // SAFETY: both addresses lie within the link-layer header, at even places.
    unsafe { core::ptr::swap(start.cast::<[u16; 3]>(), start.cast::<[u16; 3]>().add(1)) };
    *step
}

/// Makes the frame, `length` bytes long, as long as the answer: 1 where it is. A page that it has no room for is cut.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn make_room(ctx: *mut xdp_md, length: u32, epoch: u32, service: u32) -> u32 {
    let Some(Scratch { packet, step, answer, .. }) = scratch() else { return 0 };
    let headers = u32::from(packet.network) + (ip_length(packet) + TcpHdr::LEN) as u32;
    if *step != Step::Tell as u32 {
        answer.here = if *step == Step::Greet as u32 { size_of_val(&SEGMENT_V4) as u32 } else { 0 };
        return u32::from(resize(ctx, headers + answer.here, length));
    }
    answer.here = HEAD_LENGTH as u32;
    for number in [service, NONE.into()] {
        let Some(page) = page(epoch & 1, number) else { return 0 };
        (answer.rest, answer.page, answer.sum) = (page.length.into(), number, page.sum);
        if resize(ctx, headers + answer.here + answer.rest, length) {
            return 1;
        }
    }
    0
}

/// Writes the answer over the frame, but for what follows from a page: 1 where it did.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn write_v4(ctx: *mut xdp_md) -> u32 {
    u32::from(write::<{ Ipv4Hdr::LEN }>(ctx, SEGMENT_V4).is_some())
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn write_v6(ctx: *mut xdp_md) -> u32 {
    u32::from(write::<{ Ipv6Hdr::LEN }>(ctx, SEGMENT_V6).is_some())
}

/// The same. `IP` is the length of the plain IP header.
#[inline(always)]
fn write<const IP: usize>(ctx: *mut xdp_md, option: u32) -> Option<()> {
    let Scratch { packet, step, wait, answer, .. } = scratch()?;
    let segment = (TcpHdr::LEN as u32 + answer.here + answer.rest) as u16;
    let start = answer.bytes.as_mut_ptr();
    // SAFETY: within the answer, at a multiple of four.
    let behind = unsafe { start.add(NETWORK + IP + TcpHdr::LEN) };
    let (sum, offset_and_flags) = if *step == Step::Greet as u32 {
        // SAFETY: as above.
        unsafe { behind.cast::<u32>().write(option.to_be()) };
        (halves(u64::from(option)), 6 << 12 | u16::from(tcp::SYN | tcp::ACK))
    } else if *step == Step::Tell as u32 {
        let told = digits(*wait);
        // SAFETY: as above; what stands there has this room.
        unsafe {
            behind.cast::<[u32; HEAD.len() / 4]>().write(HEAD_WORDS);
            behind.add(HEAD.len()).cast::<[u8; DIGITS]>().write(told);
        }
        (head_sum(told) + u64::from(answer.sum), 5 << 12 | u16::from(tcp::PSH | tcp::ACK | tcp::FIN))
    } else {
        (0, 5 << 12 | u16::from(tcp::ACK))
    };
    let sum = sum
        + pseudo_header(packet, protocol::TCP, segment)
        + u64::from(packet.source_port)
        + u64::from(packet.destination_port)
        + halves(u64::from(answer.sequence))
        + halves(u64::from(answer.acknowledged))
        + u64::from(offset_and_flags)
        + u64::from(WINDOW);
    let header = [
        u32::from(packet.destination_port) << 16 | u32::from(packet.source_port),
        answer.sequence,
        answer.acknowledged,
        u32::from(offset_and_flags) << 16 | u32::from(WINDOW),
        u32::from(fold(sum)) << 16,
    ];
    // SAFETY: within the answer, at multiples of four.
    unsafe {
        start.add(NETWORK + IP).cast::<[u32; 5]>().write(header.map(u32::to_be));
        write_ip::<IP>(start.add(NETWORK), packet, protocol::TCP, segment);
    }
    let tags = tags(packet)?;
    let length = (EthHdr::LEN + IP + TcpHdr::LEN + bits::<4>(tags) + bits::<6>(answer.here as usize)) as u32;
    // SAFETY: the answer is so long from there, whatever the bits.
    let from = unsafe { start.add(bits::<4>(NETWORK - EthHdr::LEN - tags)) };
    // SAFETY: as above.
    (unsafe { bpf_xdp_store_bytes(ctx, 0, from.cast(), length) } == 0).then_some(())
}

/// The last bits of a number that has no others: the verifier then knows that too, whatever the compiler has done before.
#[inline(always)]
fn bits<const COUNT: u32>(number: usize) -> usize {
    only_copy(number) & ((1 << COUNT) - 1)
}

/// Bytes of the link-layer header of a packet beyond those of Ethernet's.
#[inline(always)]
fn tags(packet: &Packet) -> Option<usize> {
    let tags = usize::from(packet.network).wrapping_sub(EthHdr::LEN);
    if tags > LINK_MAX - EthHdr::LEN { None } else { Some(tags) }
}

/// Writes what follows from a page, and counts the answer: 1 where it did.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn finish_answer(ctx: *mut xdp_md, epoch: u32) -> u32 {
    let Some(Scratch { packet, step, answer, .. }) = scratch() else { return 0 };
    // One less, because nothing is written where there is nothing: the verifier of Linux 6.1 knows the bounds of a number only
    // from the comparison with that very number.
    let last = only_copy((answer.rest as usize).wrapping_sub(1));
    if last < REST_MAX {
        let Some(page) = page(epoch & 1, answer.page) else { return 0 };
        let offset = u32::from(packet.network) + (ip_length(packet) + TcpHdr::LEN + HEAD_LENGTH) as u32;
        // SAFETY: the page has so many bytes.
        if unsafe { bpf_xdp_store_bytes(ctx, offset, page.rest.as_ptr().cast_mut().cast(), last as u32 + 1) } != 0 {
            return 0;
        }
    }
    count(*step, answer.page == u32::from(NONE));
    1
}

#[inline(always)]
fn count(step: u32, is_cut: bool) {
    let Some(tally) = PAGE_TALLIES.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own element, and nothing interrupts this program.
    let PageTally { greeted, told, cut, acknowledged } = unsafe { &mut *tally };
    if step == Step::Greet as u32 {
        *greeted += 1;
    } else if step == Step::Tell as u32 {
        *told += 1;
        *cut += u64::from(is_cut);
    } else {
        *acknowledged += 1;
    }
}

/// The length of the IP header of an answer.
#[inline(always)]
const fn ip_length(packet: &Packet) -> usize {
    match packet.family {
        Family::V4 => Ipv4Hdr::LEN,
        Family::V6 => Ipv6Hdr::LEN,
    }
}

/// The page of a service, or for [`NONE`] the one that every frame has room for.
#[inline(always)]
fn page(generation: u32, service: u32) -> Option<&'static Page> {
    PAGES.get(generation * MAX_SERVICES + service)
}

/// Makes the frame `wanted` bytes long.
#[inline(always)]
fn resize(ctx: *mut xdp_md, wanted: u32, length: u32) -> bool {
    let by = wanted.cast_signed() - length.cast_signed();
    // SAFETY (both): the context is the kernel's own, and nothing that points into the frame is used any more.
    if by > 0 {
        // SAFETY: see above.
        unsafe { bpf_xdp_adjust_head(ctx, -by) == 0 }
    } else {
        // SAFETY: see above.
        unsafe { bpf_xdp_adjust_tail(ctx, by) == 0 }
    }
}
