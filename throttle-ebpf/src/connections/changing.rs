//! Places of connections that change while they are written down, and their ends.
//!
//! Whoever changes a connection marks it before ([`begin_changing`]): no other does so meanwhile, and nobody removes it.
//! Whoever sees its end leaves a mark ([`sees_end`]), and removes it, unless it is just being changed: then the other one does
//! ([`finish_changing`]). So every place that was taken for it is given back, once. Nobody waits for another: a packet may have
//! interrupted the very program that changes it.
//!
//! The marks stand in the word that says since when it counts. The kernel gives an element of the map to the next connection
//! as soon as one is removed: so marks are set only on the word of which it is known whose it is ([`word`]), and it is another
//! one from the change of a state on.

use core::ptr::copy_nonoverlapping;

use throttle_common::records::{CONNECTION_LIMITS, Connection, Ends};

use super::Entering;
use crate::{atomic, tables::CONNECTIONS};

/// How often an end is tried to be marked: until whoever changes the connection has begun, and has finished.
const TRIES: u32 = 3;

/// Since when a connection counts, and its marks; `None` where it is removed, and the element may be another's.
///
/// # Safety
///
/// An element of the map of connections.
#[inline(always)]
pub unsafe fn word(found: *mut Connection, ends: &Ends) -> Option<u64> {
    // SAFETY: the caller's. It writes nothing, and what comes behind is not read before.
    let since = unsafe { atomic::mark(&raw mut (*found).since, 0) };
    (CONNECTIONS.get_ptr_mut(ends) == Some(found)).then_some(since)
}

/// Begins to change the connection with that word; `false` where it has become another one, or somebody else changes it or has
/// seen its end.
///
/// # Safety
///
/// As for [`word`].
#[inline(always)]
pub unsafe fn begin_changing(found: *mut Connection, since: u64) -> bool {
    // SAFETY: the caller's.
    since & Connection::MARKS == 0
        && unsafe { atomic::swap(&raw mut (*found).since, since, since | Connection::CHANGES).0 }
}

/// Writes down the places that the connection has from now on, and its state, and nothing that packets write; or removes it, if
/// its end was seen meanwhile: `false` then.
///
/// # Safety
///
/// As for [`begin_changing`], which the caller was let by and `entering` was resumed after.
#[inline(always)]
pub unsafe fn finish_changing(found: *mut Connection, entering: &Entering, state: u32) -> bool {
    // SAFETY: the caller's.
    let done = unsafe {
        copy_nonoverlapping(&raw const entering.connection.holds, &raw mut (*found).holds, 1);
        finish(found, entering.connection.since, state)
    };
    if !done && CONNECTIONS.remove(&entering.ends).is_ok() {
        entering.leave();
    }
    done
}

/// Ends the change of the connection with that word, and has it be in a state; `false` where its end was seen meanwhile, and it
/// is the caller's to remove.
///
/// # Safety
///
/// As for [`begin_changing`], which the caller was let by.
#[inline(always)]
pub unsafe fn finish(found: *mut Connection, since: u64, state: u32) -> bool {
    // SAFETY: the caller's. Only whoever has marked it writes its state.
    unsafe {
        let word = &raw mut (*found).state;
        let opens = state == Connection::OPEN || word.read_volatile() != state;
        word.write_volatile(state);
        atomic::swap(&raw mut (*found).since, since | Connection::CHANGES, since + u64::from(opens)).0
    }
}

/// Notes that the connection between these ends has ended. Whether whoever sees that is to remove it.
///
/// # Safety
///
/// As for [`word`].
#[inline(always)]
pub unsafe fn sees_end(found: *mut Connection, ends: &Ends) -> bool {
    for _ in 0..TRIES {
        // SAFETY: the caller's.
        let Some(since) = (unsafe { word(found, ends) }) else { return false };
        if since & Connection::ENDS != 0 {
            return false;
        }
        // SAFETY: the caller's.
        if unsafe { mark_end(found, since) } {
            return since & Connection::CHANGES == 0;
        }
    }
    false
}

/// Marks that the connection with that word has ended; `false` where it has become another one.
///
/// # Safety
///
/// As for [`word`].
#[inline(always)]
pub unsafe fn mark_end(found: *mut Connection, since: u64) -> bool {
    // SAFETY: the caller's.
    unsafe { atomic::swap(&raw mut (*found).since, since, since | Connection::ENDS).0 }
}

impl Entering {
    /// Goes on with what was written down between the same ends.
    #[inline(always)]
    pub fn resume(&mut self, found: &Connection) {
        (self.connection, self.resumed) = (*found, true);
        self.connection.since = found.began();
        let mut index = 0;
        while index < CONNECTION_LIMITS && self.connection.holds[index].is_some() {
            index += 1;
        }
        self.count = index as u32;
    }
}
