//! The one way out: every verdict is counted here, and some refusals are reported.

use aya_ebpf::{
    Global,
    bindings::{xdp_action, xdp_md},
    programs::XdpContext,
};
use aya_log_ebpf::debug;
use throttle_common::{
    gcra,
    packet::Packet,
    records::{Address, Event, FATES, OUTCOMES, REASON_TALLIES as COUNT, Tally},
    words::{Outcome, Reason},
};

use crate::{
    clock::Clock,
    penalties,
    tables::{EVENT_BUCKETS, EVENTS, InForce, LOSSES, REASON_TALLIES},
    verdict::Verdict,
};

const _: () = assert!(COUNT == FATES as u32 * OUTCOMES);

/// 1 where the agent was started for debugging: every verdict is logged. The verifier removes the branch elsewhere.
#[unsafe(no_mangle)]
static DEBUG: Global<u8> = Global::new(0);

/// What the driver says of a frame.
pub struct Frame {
    /// The frame itself.
    pub ctx: *mut xdp_md,
    /// Bytes, whatever buffers they lie in.
    pub length: u32,
    /// The number of the interface that it came in by.
    pub interface: u32,
}

/// Counts the verdict and turns it into what the driver is told.
#[inline(always)]
pub fn account(in_force: &InForce, packet: &Packet, verdict: &Verdict, frame: &Frame, clock: &mut Clock) -> u32 {
    let index = u32::from(verdict.reason) * OUTCOMES + verdict.outcome as u32;
    if let Some(tally) = REASON_TALLIES.get_ptr_mut(index) {
        // SAFETY: this CPU's own element, and nothing interrupts this program.
        count(unsafe { &mut *tally }, frame.length);
    }
    if DEBUG.load() == 1 {
        log(frame, u32::from(verdict.reason), verdict.outcome as u32);
    }
    // What belongs to a connection that was refused with a page was reported when its SYN was.
    if !matches!(verdict.outcome, Outcome::Pass) && verdict.reason != Reason::TooManyRequests as u8 {
        report(in_force, packet, verdict, frame, clock);
    }
    match verdict.outcome {
        Outcome::Pass | Outcome::Observe => xdp_action::XDP_PASS,
        Outcome::Drop => xdp_action::XDP_DROP,
        Outcome::Reject => xdp_action::XDP_TX,
    }
}

/// Adds one frame.
#[inline(always)]
pub fn count(tally: &mut Tally, length: u32) {
    tally.packets += 1;
    tally.bytes += u64::from(length);
}

/// Logs a verdict by the numbers of its words. A function of its own for the stack that logging needs.
#[inline(never)]
fn log(frame: &Frame, reason: u32, outcome: u32) {
    let ctx = XdpContext::new(frame.ctx);
    debug!(&ctx, "interface {} length {} reason {} outcome {}", frame.interface, frame.length, reason, outcome);
}

/// Counts a refusal for the penalty of its limit, and reports it, within this CPU's budget. A function of its own so that its
/// record has a stack frame of its own.
#[inline(never)]
fn report(in_force: &InForce, packet: &Packet, verdict: &Verdict, frame: &Frame, clock: &mut Clock) {
    penalties::note(in_force, verdict, clock);
    let (Some(bucket), Some(losses)) = (EVENT_BUCKETS.get_ptr_mut(0), LOSSES.get_ptr_mut(0)) else { return };
    // SAFETY: this CPU's own elements, and nothing interrupts this program.
    let (bucket, losses) = unsafe { (&mut *bucket, &mut *losses) };
    let budget = &in_force.policy.events;
    let Some(tat) = gcra::admit(*bucket, clock.ticks(), budget.cost, budget.depth) else {
        losses.events_withheld += 1;
        return;
    };
    *bucket = tat;
    let Some(mut entry) = EVENTS.reserve(0) else {
        losses.events_lost += 1;
        return;
    };
    let shape = Reason::is_number_of_shape(verdict.reason);
    entry.write(Event {
        // The verdict may have done with less.
        time: Clock::read().nanos(),
        source: if shape { Address::default() } else { packet.source },
        destination: if shape { Address::default() } else { packet.destination },
        interface: frame.interface,
        length: frame.length,
        source_port: if shape { 0 } else { packet.source_port },
        destination_port: if shape { 0 } else { packet.destination_port },
        limit: verdict.limit,
        service: verdict.service,
        family: if shape { 0 } else { packet.family as u8 },
        protocol: if shape { 0 } else { packet.protocol },
        reason: verdict.reason,
        outcome: verdict.outcome as u8,
        padding: [0; 4],
    });
    entry.submit(0);
}
