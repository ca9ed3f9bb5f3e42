//! The sockets of this host's network namespace: who completes a handshake is no spoofed source, and what is open is open
//! until its socket closes.
//!
//! The kernel calls [`sockets`] at every change of a TCP socket's state, which [`socket`] describes. What opens is counted in
//! [`opening`].
//!
//! A run that is interrupted keeps the kernel from running the same program again on that CPU: it counts a miss, and
//! the socket whose state changed then goes unseen. From Linux 7.0 on tasks may be preempted here, so that happens. Hence
//! [`sockets_again`] watches beside [`sockets`]: what the one has noted the other finds, and what the one must miss the
//! other sees. So it is, too, while an earlier build watches beside this one.

mod opening;
mod socket;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use throttle_common::{
    packet::Family,
    proven::Claim,
    records::{Address, Connection, Ends, PROVEN_LINES},
};

use self::{opening::open, socket::Socket};
pub use self::{
    opening::{MENDER, Opening, hold_missing},
    socket::SOCKET_NET,
};
use crate::{
    clock::Clock,
    connections,
    tables::{CONNECTIONS, CONTROL, ENTERING, InForce, PROVEN},
};

// include/net/tcp_states.h.
const ESTABLISHED: i32 = 1;
const SYN_RECEIVED: i32 = 3;
const CLOSED: i32 = 7;

/// Sees a socket go from one state to another.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn sockets(ctx: BtfTracePointContext) -> i32 {
    watch::<0>(&ctx)
}

/// Sees it once more, or alone.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn sockets_again(ctx: BtfTracePointContext) -> i32 {
    watch::<1>(&ctx)
}

/// What either does, in a place of its own.
#[inline(always)]
fn watch<const WATCHER: u32>(ctx: &BtfTracePointContext) -> i32 {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    // One that its SYN has opened (TCP fast open) may end before its handshake completes.
    let opens = old == SYN_RECEIVED && new != CLOSED;
    if !opens && new != CLOSED {
        return 0;
    }
    let socket = Socket(ctx.arg(0));
    let Some(opening) = ENTERING.get_ptr_mut(WATCHER) else { return 0 };
    let Some(in_force) = InForce::read() else { return 0 };
    // SAFETY: this CPU's own element, and the kernel lets nothing that interrupts this program run it again.
    let opening = unsafe { &mut *opening };
    let counted = in_force.policy.counts_connections != 0;
    if !(opens || counted) || !socket.is_ours() || !socket.describe(&mut opening.packet) {
        return 0;
    }
    if opens && new == ESTABLISHED {
        prove(opening.packet.source, opening.packet.family);
    }
    if counted {
        if opens { open::<WATCHER>(&in_force, opening) } else { close(opening, old == SYN_RECEIVED) }
    }
    0
}

/// Gives the places of a connection back. Of all who see it close, the one who removes it does.
///
/// A socket that ends before its handshake does may be a second one for the same request, made on another CPU: what is open
/// already is not its.
#[inline(always)]
fn close(opening: &mut Opening, before_it_opened: bool) {
    let entering = &mut opening.entering;
    entering.begin(&opening.packet);
    let Some(found) = CONNECTIONS.get_ptr_mut(&entering.ends) else { return };
    // SAFETY: an element of the map.
    unsafe {
        let ours = if before_it_opened {
            ends_before_it_opens(found, &entering.ends)
        } else {
            connections::sees_end(found, &entering.ends)
        };
        if ours {
            entering.resume(&*found);
            connections::remove(found, &entering.ends, &entering.connection);
        }
    }
}

/// Marks the end of a connection that has not opened; `false` where it has, or is not ours to remove.
///
/// # Safety
///
/// An element of the map of connections.
#[inline(always)]
unsafe fn ends_before_it_opens(found: *mut Connection, ends: &Ends) -> bool {
    // SAFETY: the caller's. The word is another one when it has opened.
    unsafe {
        connections::word(found, ends).is_some_and(|since| {
            let state = (&raw const (*found).state).read_volatile();
            matches!(state, Connection::ENTERING | Connection::FAST)
                && connections::mark_end(found, since & !Connection::MARKS, Connection::FORSAKEN)
        })
    }
}

#[inline(always)]
fn prove(peer: Address, family: Family) {
    let Some(control) = CONTROL.get(0) else { return };
    let now = Clock::read().nanos();
    let claim = Claim::of(peer, family, PROVEN_LINES, control.secret);
    if let Some(line) = PROVEN.get_ptr_mut(claim.line) {
        // SAFETY: an element of the map. Of two handshakes that meet here one may be forgotten.
        let line = unsafe { &mut *line };
        let (cell, value) = claim.remember(line, now);
        if let Some(cell) = line.get_mut(cell) {
            *cell = value;
        }
    }
}
