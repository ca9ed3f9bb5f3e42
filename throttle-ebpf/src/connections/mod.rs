//! Connections that are open, where a limit counts them.
//!
//! A connection takes its places when the segment that completes its handshake arrives, before there is a socket: so
//! never are more of them open than a limit allows ([`handshake`]). Until the socket closes ([`crate::sockets`]) they are
//! kept under its two ends in [`crate::tables::CONNECTIONS`], where whoever sees the end finds them ([`changing`]).
//! Those that never get one are given up by whoever comes next ([`entrances`]).
//!
//! A SYN takes no place: it is weighed against what is open and what the source has asked for ([`asking`]); but one that is
//! served at once, because it brings a cookie back, takes them then ([`fast_open`]). Taken they are in [`places`].
//!
//! The limits on open connections stand behind the others in a [`Scope`], and are asked first: what they refuse is
//! charged to nobody.
//!
//! Where a service says that its connections may be forwarded, their packets say all this: those that come in here, those
//! that go out in [`crate::leaving`] ([`flow`]).

mod asking;
mod changing;
mod entering;
mod entrances;
mod fast_open;
mod flow;
mod handshake;
mod places;
mod request;
mod resets;
pub mod segments;

use aya_ebpf::bindings::xdp_md;
use throttle_common::{
    health_window::{HealthWindow, Share},
    packet::{protocol, tcp},
    records::{CONNECTION_LIMITS, Connection, SCOPE_LIMITS, Scope},
};

pub use self::{
    changing::{begin_changing, finish_changing, mark_end, remove, sees_end, word},
    entering::Entering,
    fast_open::ROOM as OPTIONS_ROOM,
    flow::{Followed, follow, note_answer, note_data, segment},
    handshake::transport,
    places::{GUARANTEED, NOTHING, WITHOUT_END, attempt, due, give_back, look, settle, take},
};
use crate::{
    atomic,
    limits::{ADMITTED, Pending, STOP, scope},
    services::{self, is_forwarded},
    tables::{CONTROL, Scratch, WINDOWS, scratch},
};

/// Limits on open connections that may apply to one, and their guarantees: a connection that has a place of a guarantee
/// takes none of the limits that stand behind it.
pub const PLACES: usize = 2 * CONNECTION_LIMITS;

/// What a packet means for the connections of its source.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// Nothing.
    None = 0,
    /// It asks for one: a SYN.
    Asks = 1,
    /// It completes the handshake of one, or opens it without (TCP fast open).
    Completes = 2,
    /// It says something new of one that is counted by its packets.
    Continues = 3,
    /// It resets the handshake of one: whoever sends it never asked, or asks no more.
    Forsakes = 4,
    /// It shows that one is open which was not known: that takes its places however many are taken.
    Reveals = 5,
}

/// Asks each limit on open connections for what the packet in the scratch space wants. Gives the answer of the one that
/// names the verdict, as [`limits`] does.
///
/// A global function, which the verifier checks once and by itself; so are the others.
#[inline(never)]
#[unsafe(export_name = "admit_connection")]
pub extern "C" fn admit(ctx: *mut xdp_md, service: u32) -> u32 {
    let (Some(scratch), Some(control)) = (scratch(), CONTROL.get(0)) else { return ADMITTED };
    let Pending { now, generation, question, .. } = &scratch.pending;
    let Some(scope) = scope(*generation, service) else { return ADMITTED };
    let packet = &scratch.packet;
    scratch.entering.step = Step::None;
    if scope.concurrent == 0 || packet.protocol != protocol::TCP {
        return ADMITTED;
    }
    let forwarded = is_forwarded(*generation, service);
    if forwarded && control.sees_leaving == 0 {
        return ADMITTED;
    }
    scratch.entering.arrive(packet, *now, *generation, control.secret);
    scratch.entering.length = question.length;
    // SAFETY: a field of the context.
    scratch.entering.interface = unsafe { (*ctx).ingress_ifindex };
    (scratch.entering.tenant, scratch.entering.class) = (question.tenant(), question.class());
    read_window(service);
    scratch.entering.step = read_step(ctx, forwarded);
    if !matches!(scratch.entering.step, Step::Asks | Step::Completes | Step::Reveals) {
        return ADMITTED;
    }
    entrances::look_after(ctx);
    let mut first = ADMITTED;
    for index in 0..PLACES {
        let Some(number) = concurrent(scope, index) else { break };
        let answer = if matches!(scratch.entering.step, Step::Asks) {
            asking::weigh_asking(index as u32, number)
        } else {
            places::ask_for_place(number)
        };
        if answer == GUARANTEED {
            break;
        }
        if answer & STOP != 0 {
            leave();
            return answer | number << 16;
        }
        if first == ADMITTED && answer != ADMITTED {
            first = answer | number << 16;
        }
    }
    scratch.entering.is_observed = first != ADMITTED;
    first
}

/// What the packet in the scratch space, whose ends are noted there, means for the connections of its source.
#[inline(always)]
fn read_step(ctx: *mut xdp_md, forwarded: bool) -> Step {
    let Some(Scratch { packet, entering, .. }) = scratch() else { return Step::None };
    if packet.opens_connection() {
        return if !forwarded {
            read_syn(ctx)
        } else if flow::is_known(entering) {
            Step::None
        } else {
            Step::Asks
        };
    }
    if forwarded {
        return match flow::read_step(ctx) {
            flow::ACKNOWLEDGES => match flow::answer() {
                flow::COMPLETES => Step::Completes,
                flow::REVEALS => Step::Reveals,
                _ => Step::None,
            },
            flow::CONTINUES => {
                if packet.flags & tcp::RST != 0 {
                    resets::examine(ctx);
                }
                Step::Continues
            }
            _ => Step::None,
        };
    }
    if packet.flags & (tcp::ACK | tcp::RST) == tcp::ACK && handshake::completes(ctx) != 0 {
        // Also where it says its SYN once more: the kernel forgets that, and takes the rest.
        return Step::Completes;
    }
    if packet.flags & tcp::RST != 0 && handshake::see_socket(ctx) == handshake::NEW_SYN_RECEIVED {
        entering.asked = u16::MAX;
        return Step::Forsakes;
    }
    Step::None
}

/// The same of a SYN to a socket of this host. Between the ends of a handshake that is on its way, or of a connection, it opens
/// nothing: the kernel answers as it did, or asks whether its source knows of that connection (RFC 5961, section 4.2).
#[inline(always)]
fn read_syn(ctx: *mut xdp_md) -> Step {
    let Some(Scratch { entering, .. }) = scratch() else { return Step::None };
    let mut socket = handshake::see_socket(ctx);
    if socket == handshake::TIME_WAIT {
        socket = handshake::see_listener(ctx);
    }
    if socket == handshake::LISTEN && fast_open::opens(ctx) != 0 {
        entering.connection.state = Connection::FAST;
        return Step::Completes;
    }
    if matches!(socket, handshake::LISTEN | handshake::CLOSED | handshake::TIME_WAIT) { Step::Asks } else { Step::None }
}

/// Notes what its health window leaves the connection in the scratch space of the limits of its service.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn read_window(service: u32) -> u32 {
    let Some(Scratch { entering, .. }) = scratch() else { return 0 };
    let Some(service) = services::get(entering.generation, service) else { return 0 };
    let Some(window) = WINDOWS.get_ptr(service.clock.into()) else { return 0 };
    // SAFETY: an element of the map, aligned to 8.
    let window = HealthWindow::of(unsafe { atomic::load(window) });
    entering.share = Share::left_by(window, service.connections, entering.connection.since);
    0
}

/// What becomes of it when the other limits have spoken: it is noted, or undone where `passes` is 0.
#[inline(never)]
#[unsafe(export_name = "conclude_connection")]
pub extern "C" fn conclude(service: u32, passes: u32) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let Some(scope) = scope(scratch.entering.generation, service) else { return 0 };
    let Entering { step, asked, .. } = scratch.entering;
    if matches!(step, Step::None) {
        return 0;
    }
    if passes == 0 {
        leave();
        return 0;
    }
    match step {
        Step::Asks | Step::Forsakes => {
            for index in 0..PLACES {
                let Some(number) = concurrent(scope, index) else { break };
                if asked >> index & 1 != 0 {
                    asking::note_handshake(number);
                }
            }
        }
        Step::Continues => {
            if flow::go_on() != 0 {
                flow::await_again();
            }
        }
        _ => begin(scratch),
    }
    0
}

/// Writes the connection in the scratch space down, and goes on with it.
#[inline(always)]
fn begin(Scratch { entering, .. }: &Scratch) {
    let forwarded = entering.connection.state == Connection::FORWARDED;
    // The agent gives one that is only observed to be too many its places. Of those with a socket that itself is seen.
    if entering.count == 0 && !(forwarded && entering.is_observed) || write_down() == 0 {
        return;
    }
    if forwarded {
        flow::begin();
        // The first word may be the last too.
        flow::go_on();
    } else {
        entrances::note();
    }
}

/// Writes the connection in the scratch space down: 1 where it was.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn write_down() -> u32 {
    scratch().map_or(0, |scratch| u32::from(scratch.entering.enter()))
}

/// Gives the places of the connection in the scratch space back.
#[inline(never)]
#[unsafe(export_name = "leave_connection")]
pub extern "C" fn leave() -> u32 {
    if let Some(scratch) = scratch() {
        scratch.entering.leave();
    }
    0
}

/// The number of a limit on open connections.
#[inline(always)]
pub fn concurrent(scope: &Scope, index: usize) -> Option<u32> {
    if index >= usize::from(scope.concurrent) {
        return None;
    }
    Some(u32::from(scope.limits[(usize::from(scope.count) + index) % SCOPE_LIMITS]))
}
