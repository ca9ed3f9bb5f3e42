//! The time to first byte: from the last segment of a request that comes in to the first payload that leaves by its
//! connection.
//!
//! Most packets of a service that is measured are told at a glance to be no beginning of either: the place of their
//! connection is computed, and one word read. Whether what may begin a request is a segment of a connection at all is
//! asked then ([`connections::segments`]).

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use throttle_common::{
    exchanges::{Flow, bucket, is_doubted},
    packet::{Packet, tcp},
    records::{Exchanges, Service},
    words::Speaks,
};

use crate::{
    atomic,
    clock::Clock,
    connections::{
        segments::{BELONGS, STRAY, belongs},
        transport,
    },
    frame::at,
    services,
    tables::{ANSWERS, EXCHANGES, InForce, scratch},
};

/// The content type of a TLS record with application data (RFC 8446, section 5.1).
const APPLICATION_DATA: u8 = 0x17;
/// Bytes before what a record holds.
const RECORD_HEADER: usize = 5;
/// How far behind a payload may begin.
const FARTHEST: usize = 1 << 12;

/// Notes the request that the packet in the scratch space begins or goes on with, which passes and has payload; or that its
/// client waits no more, where it is a reset. `now` is 0 where the clock has not been read.
///
/// A global function, which the verifier checks once and by itself.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn see_entering(ctx: *mut xdp_md, service: u32, epoch: u32, now: u64) -> u32 {
    let (Some(in_force), Some(scratch)) = (InForce::of(epoch), scratch()) else { return 0 };
    let packet = &scratch.packet;
    let Some(measured) = services::measured(in_force.generation, service) else { return 0 };
    let flow = Flow::of(packet, in_force.control.secret);
    if !flow.is_sampled(in_force.policy.sample_shift) {
        return 0;
    }
    let Some(cell) = EXCHANGES.get_ptr_mut(flow.cell) else { return 0 };
    // SAFETY: an element of the map.
    let seen = unsafe { atomic::load(cell) };
    let (waits, mut clock) = (flow.waits(seen), Clock::at(now));
    let resets = packet.flags & tcp::RST != 0;
    let says = if resets { waits } else { flow.is_news(seen, clock.nanos()) };
    // Within TLS a request begins with a record of its own, and of what goes on with it only that one's rest is no other's.
    let fits = resets
        || measured.measures != Speaks::Tls as u8
        || has_application_data(&XdpContext::new(ctx), packet) != waits;
    if !says || !fits {
        return 0;
    }
    let belongs = belongs(ctx, in_force.generation, service);
    let counted = waits && !is_doubted(seen);
    if belongs == STRAY || counted && !resets && belongs != BELONGS {
        return 0;
    }
    let next = if resets { 0 } else { flow.begin(clock.nanos(), belongs != BELONGS) };
    // SAFETY: an element of the map.
    if unsafe { atomic::swap(cell, seen, next) }.0 && counted == resets {
        count(measured.clock, |exchanges| {
            if resets { exchanges.ended += 1 } else { exchanges.requests += u64::from(belongs == BELONGS) }
        });
    }
    0
}

/// Whether the payload of a segment begins with a TLS record of application data.
#[inline(always)]
fn has_application_data(ctx: &XdpContext, packet: &Packet) -> bool {
    let Some(header) = transport(ctx, packet) else { return false };
    // SAFETY: `transport` checked the range.
    let words = unsafe { (*header).doff() };
    let payload = usize::from(packet.transport) + 4 * usize::from(words);
    if payload > FARTHEST {
        return false;
    }
    // SAFETY: `at` checked the range.
    at::<[u8; RECORD_HEADER]>(ctx, payload).is_some_and(|record| unsafe { (*record)[0] } == APPLICATION_DATA)
}

/// Sees a packet that leaves, whose ends are named as those of the packets that come in: the first payload answers what waits
/// there, and without one a reset or the connection's end leaves it unanswered. Resets of anything else answer strangers.
#[inline(always)]
pub fn see_leaving(in_force: &InForce, packet: &Packet) {
    if packet.payload == 0 && packet.flags & (tcp::FIN | tcp::RST) == 0 {
        return;
    }
    let flow = Flow::of(packet, in_force.control.secret);
    if !flow.is_sampled(in_force.policy.sample_shift) {
        return;
    }
    if let Some(cell) = EXCHANGES.get_ptr_mut(flow.cell) {
        // SAFETY: an element of the map.
        let seen = unsafe { atomic::load(cell) };
        if flow.waits(seen) {
            end(in_force, packet, flow, seen);
        }
    }
}

/// Takes what waits, and counts for how long it has or how it ended.
#[inline(always)]
fn end(in_force: &InForce, packet: &Packet, flow: Flow, seen: u64) {
    let (Some(service), Some(cell)) = (of(in_force, packet), EXCHANGES.get_ptr_mut(flow.cell)) else { return };
    let took = flow.answer(seen, Clock::read().nanos());
    // SAFETY: an element of the map.
    let taken = unsafe { atomic::swap(cell, seen, 0) }.0;
    let doubted = u64::from(is_doubted(seen));
    if !taken {
        return;
    }
    count(service.clock, |exchanges| {
        let Some(took) = took.filter(|_| packet.payload != 0) else {
            exchanges.ended += 1 - doubted;
            exchanges.resets += (1 - doubted) & u64::from(packet.flags & tcp::RST != 0);
            return;
        };
        exchanges.requests += doubted;
        exchanges.answers += 1;
        let mut place = bucket(took);
        // The compiler knows that it lies within and would leave the check out by which the verifier learns that.
        // SAFETY: the number is moved to itself.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) place) };
        if let Some(bucket) = exchanges.took.get_mut(place) {
            *bucket += 1;
        }
    });
}

/// The service that is measured and a packet's.
#[inline(always)]
fn of(in_force: &InForce, packet: &Packet) -> Option<&'static Service> {
    let (number, _) = services::classify(in_force, packet);
    services::measured(in_force.generation, u32::from(number))
}

#[inline(always)]
fn count(clock: u16, add: impl FnOnce(&mut Exchanges)) {
    let clock = u32::from(clock);
    if let Some(exchanges) = ANSWERS.get_ptr_mut(&clock) {
        // SAFETY: this CPU's own element. Where what leaves is interrupted by what comes in, one of two may go uncounted.
        add(unsafe { &mut *exchanges });
    }
}
