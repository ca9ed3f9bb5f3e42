//! Connections whose packet was let through and dropped behind us: whoever comes next gives their places back.
//!
//! See [`throttle_common::entrances`]. What its SYN has opened is given up only by packets of the interface by which that came;
//! the rest is the agent's. Of what is overdue a socket that is open all the same is left what it is: the programs
//! at the sockets may have missed that it opened.

use core::ptr::{copy_nonoverlapping, from_mut};

use aya_ebpf::bindings::xdp_md;
use throttle_common::{
    entrances::{self, is_overdue},
    records::Connection,
};

use super::{
    changing::{begin_changing, mark_end, remove, unmark},
    handshake,
};
use crate::{
    atomic,
    tables::{CONNECTIONS, ENTRANCE_TURNS, ENTRANCES, scratch},
};

/// Each looks after so many, and notes one at most: so the ring runs empty.
const AT_ONCE: usize = 2;

/// Notes the connection in the scratch space, which was just written down.
///
/// A global function, which the verifier checks once and by itself; so are the others.
#[inline(never)]
#[unsafe(export_name = "note_entrance")]
pub extern "C" fn note() -> u32 {
    let (Some(scratch), Some(turns)) = (scratch(), ENTRANCE_TURNS.get_ptr_mut(0)) else { return 0 };
    // SAFETY: words of an element of the map.
    let (first, next) = unsafe { (&raw mut (*turns).first, &raw mut (*turns).next) };
    // SAFETY: likewise.
    let turn = unsafe {
        if !entrances::has_room(atomic::load(first), atomic::load(next)) {
            return 0;
        }
        atomic::count_up(next)
    };
    let Some(cell) = ENTRANCES.get_ptr_mut(entrances::cell(turn)) else { return 0 };
    // SAFETY: an element of the map that nobody else writes, nor reads before its turn is written: whoever compares and swaps
    // that has written the rest before.
    unsafe {
        ((*cell).since, (*cell).interface) = (scratch.entering.connection.since, scratch.entering.interface);
        copy_nonoverlapping(&raw const scratch.entering.ends, &raw mut (*cell).ends, 1);
        let word = &raw mut (*cell).turn;
        atomic::swap(word, atomic::load(word), turn.wrapping_add(1));
    }
    0
}

/// Gives the places back of those that are overdue, a few at most.
#[inline(always)]
pub fn look_after(ctx: *mut xdp_md) {
    for _ in 0..AT_ONCE {
        if take_overdue() == 0 {
            break;
        }
        give_up(ctx);
    }
}

/// Takes the oldest entrance from the ring into the scratch space, where it is overdue: 1 then.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn take_overdue() -> u32 {
    let (Some(scratch), Some(turns)) = (scratch(), ENTRANCE_TURNS.get_ptr_mut(0)) else { return 0 };
    let now = scratch.entering.connection.since;
    // SAFETY: a word of an element of the map.
    let first = unsafe { &raw mut (*turns).first };
    // SAFETY: likewise.
    let turn = unsafe { atomic::load(first) };
    let Some(cell) = ENTRANCES.get_ptr(entrances::cell(turn)) else { return 0 };
    // SAFETY: words of an element of the map. As long as its turn is the first, nobody writes it any more: what was read of it
    // counts only where that is so still.
    unsafe {
        if atomic::load(&raw const (*cell).turn) != turn.wrapping_add(1)
            || !is_overdue(atomic::load(&raw const (*cell).since), now)
        {
            return 0;
        }
        atomic::fence(from_mut(&mut scratch.fence));
        copy_nonoverlapping(cell, from_mut(&mut scratch.overdue), 1);
        if !is_overdue(scratch.overdue.since, now) {
            return 0;
        }
        u32::from(atomic::swap(first, turn, turn.wrapping_add(1)).0)
    }
}

/// Gives the places of that one back, where there is no socket. Of all who may do so, the one who removes it does.
#[inline(never)]
#[unsafe(export_name = "give_up_overdue")]
extern "C" fn give_up(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let overdue = &scratch.overdue;
    let Some(found) = CONNECTIONS.get_ptr_mut(&overdue.ends) else { return 0 };
    // SAFETY: an element of the map.
    let (since, state) =
        unsafe { (atomic::load(&raw const (*found).since), (&raw const (*found).state).read_volatile()) };
    // Most have opened, or closed again.
    if since & !Connection::MARKS != overdue.since || !matches!(state, Connection::ENTERING | Connection::FAST) {
        return 0;
    }
    // The socket of one that its SYN has opened may be bound to the interface by which that came, and is not found from here.
    // Of the others the programs at the sockets have told.
    if state == Connection::FAST && overdue.interface != scratch.entering.interface {
        return 0;
    }
    let socket = handshake::state_of(ctx, &overdue.ends);
    if socket == handshake::SYN_RECEIVED {
        // Its socket says when it ends, whether or not its handshake completes before.
        return 0;
    }
    // SAFETY: as above. No other has this word.
    unsafe {
        let ours = if handshake::is_open(socket) {
            begin_changing(found, overdue.since) && !unmark(found, overdue.since, Connection::OPEN)
        } else {
            mark_end(found, overdue.since, Connection::FORSAKEN)
        };
        if ours {
            copy_nonoverlapping(found, from_mut(&mut scratch.forsaken), 1);
            remove(found, &overdue.ends, &scratch.forsaken);
        }
    }
    0
}
