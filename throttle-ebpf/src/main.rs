//! The kernel program: every packet of an interface passes here before the network stack spends a cycle on it.
//!
//! `parse -> standing of the source -> classify -> breaker -> limits -> verdict -> account`, cheapest refusals first. The policy
//! that a packet meets is one generation, read once; the clock is read at most once, and only where something needs it.
#![no_std]
#![no_main]
#![expect(internal_features, reason = "atomics that return a value exist on this target only as intrinsics")]
#![feature(core_intrinsics, asm_experimental_arch)]

mod account;
mod answer;
mod atomic;
mod breakers;
mod carry;
mod clock;
mod connecting;
mod connections;
mod exchanges;
mod frame;
mod leaving;
mod limits;
mod mending;
mod pages;
mod penalties;
mod services;
mod sockets;
mod sources;
mod tables;
mod verdict;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::bpf_xdp_get_buff_len,
    macros::xdp,
    programs::XdpContext,
};
use throttle_common::{
    packet::{self, Packet, protocol, tcp},
    records::{FATES, Limit, SourceEntry},
    words::{Outcome, Reason},
};

use crate::{
    account::Frame,
    clock::Clock,
    tables::{InForce, Scratch, scratch},
    verdict::Verdict,
};

/// Judges frames that lie in one buffer.
#[xdp]
pub fn throttle(ctx: XdpContext) -> u32 {
    let length = (ctx.data_end() - ctx.data()) as u32;
    judge(&ctx, length)
}

/// Judges frames that may continue in further buffers, as on interfaces with a large MTU.
#[xdp(frags)]
pub fn throttle_frags(ctx: XdpContext) -> u32 {
    // SAFETY: the context is the one that the kernel called us with.
    let length = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as u32;
    judge(&ctx, length)
}

#[inline(always)]
fn judge(ctx: &XdpContext, length: u32) -> u32 {
    // The agent fills these elements before it attaches anything, and they are never removed.
    let (Some(in_force), Some(scratch)) = (InForce::read(), scratch()) else { return xdp_action::XDP_PASS };
    // Reading the clock waits for all that is under way: least is before the packet is read, which goes on beside it.
    let first = in_force.policy.clock_first != 0 && scratch.in_rough == 0;
    scratch.in_rough = 0;
    scratch.clock = if first { Clock::read() } else { Clock::unread() };
    let Scratch { packet, shape, clock, .. } = read(ctx, length, scratch);
    let mut verdict = match Verdict::of_shape(*shape, in_force.policy) {
        None => decide(ctx, &in_force, packet, length, clock),
        Some(shape) => shape,
    };
    if *shape == READABLE {
        pass(ctx, &in_force, &mut verdict, clock);
    }
    if matches!(verdict.outcome, Outcome::Reject) {
        let crowded = u32::from(is_crowded(&in_force, &verdict));
        let refusal = answer::refusal(verdict.reason, verdict.service, crowded);
        let answered = answer::answer(ctx.ctx, length, in_force.epoch, clock.nanos(), refusal);
        if answered != Outcome::Reject as u32 {
            verdict.outcome = Outcome::Drop;
        }
    }
    let frame = Frame { ctx: ctx.ctx, length, interface: ctx.ingress_ifindex() as u32 };
    account::account(&in_force, packet, &verdict, &frame, clock)
}

/// Whether a limit on open connections refuses: the source's places are taken, or there are none for it.
#[inline(always)]
fn is_crowded(in_force: &InForce, verdict: &Verdict) -> bool {
    let of_connections = || limits::find(in_force.generation, verdict.limit.into()).is_some_and(Limit::is_concurrency);
    verdict.reason == Reason::ConnectionLimit as u8
        || verdict.reason == Reason::SourceOverflow as u8 && of_connections()
}

/// Reads the frame into the scratch space: the packet, and the number of its shape or [`READABLE`].
#[inline(always)]
fn read<'s>(ctx: &XdpContext, length: u32, scratch: &'s mut Scratch) -> &'s mut Scratch {
    // SAFETY: the kernel vouches for the bytes between the two.
    scratch.shape = match unsafe { packet::parse(ctx.data(), ctx.data_end(), length, &mut scratch.packet) } {
        Ok(()) => READABLE,
        Err(shape) => shape as u32,
    };
    forget(scratch)
}

/// Makes the compiler forget what it knows of the bytes behind the reference: what follows is then checked once, for any
/// packet, and not once for each of the many paths through the parser.
#[inline(always)]
fn forget<T>(known: &mut T) -> &mut T {
    let mut pointer: *mut T = known;
    // SAFETY: the pointer is moved to itself. (No instruction at all would leave a line of source without code, which the
    // kernel refuses.)
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) pointer) };
    // SAFETY: the same pointer.
    unsafe { &mut *pointer }
}

/// No shape: a packet with addresses. Beyond the fates of all shapes.
const READABLE: u32 = FATES as u32;

#[inline(always)]
fn decide(ctx: &XdpContext, in_force: &InForce, packet: &Packet, length: u32, clock: &mut Clock) -> Verdict {
    let entry = sources::recall(in_force, packet);
    if entry.is_some_and(SourceEntry::allows) {
        return Verdict::pass(Reason::Allowed);
    }
    if entry.is_some_and(|entry| entry.blocks(|| clock.nanos())) {
        return Verdict::refuse(Reason::Blocked, in_force.policy);
    }
    if let Some(refusal) = breakers::refusal(in_force, packet, clock) {
        return refusal;
    }
    let service = services::classify(in_force, packet);
    if service.1.pages != 0
        && let Some(verdict) = pages::verdict(ctx.ctx, in_force, service.0, packet, clock)
    {
        return verdict;
    }
    limits::judge(ctx, in_force, service, (packet, length), entry, clock)
}

/// Notes what a packet that passes means to breakers and measurements: one that opens a connection may be a trial, and one
/// with payload begin an exchange. Where there is no trial left for it, it does not pass.
#[inline(always)]
fn pass(ctx: &XdpContext, in_force: &InForce, verdict: &mut Verdict, clock: &Clock) {
    let passes = matches!(verdict.outcome, Outcome::Pass | Outcome::Observe);
    // One that no breaker was asked about takes no trial: those that were noted are of an earlier packet.
    let asked = verdict.reason != Reason::Allowed as u8 && verdict.reason != Reason::Blocked as u8;
    if passes
        && asked
        && in_force.policy.has_breakers | in_force.policy.measures != 0
        && note_passing(ctx.ctx, u32::from(verdict.service), in_force.epoch, clock.known()) != 0
    {
        *verdict = breakers::refuse(in_force.policy, verdict.service);
    }
}

/// The same, of the packet in the scratch space. `now` is 0 where the clock has not been read.
///
/// A global function, which the verifier checks once and by itself.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn note_passing(ctx: *mut xdp_md, service: u32, epoch: u32, now: u64) -> u32 {
    let (Some(in_force), Some(scratch)) = (InForce::of(epoch), scratch()) else { return 0 };
    let packet = &scratch.packet;
    if packet.opens_connection() {
        return u32::from(in_force.policy.has_breakers != 0 && !breakers::take_trials(&scratch.trials, now));
    }
    if in_force.policy.measures != 0 && packet.protocol == protocol::TCP {
        let resets = packet.flags & tcp::RST != 0;
        if resets || packet.payload != 0 {
            exchanges::see_entering(ctx, service, epoch, now);
        }
    }
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// Some helpers and kernel functions are for programs under the GPL only; the Rust sources are dual-licensed.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
