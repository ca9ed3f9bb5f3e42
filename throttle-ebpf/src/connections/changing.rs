//! Places of connections that change while they are written down, and their ends.
//!
//! Whoever changes a connection marks it before ([`begin_changing`]): no other does so meanwhile, and nobody removes it.
//! Whoever sees its end leaves a mark ([`sees_end`], [`mark_end`]), and removes it ([`remove`]), unless it is just being
//! changed: then the other one does ([`finish_changing`]). So every place that was taken for it is given back, once. Nobody
//! waits for another: a packet may have interrupted the very program that changes it.
//!
//! The marks stand in the word that says since when it counts. The kernel gives an element of the map to the next connection
//! as soon as one is removed: so marks are set by comparing with a word that was seen there when the element was still that
//! connection's ([`word`]), or that was noted when it was written down. No two that have the same element have the same word,
//! for they begin at different nanoseconds; and who finds a socket open leaves another word.

use core::ptr::copy_nonoverlapping;

use throttle_common::records::{CONNECTION_LIMITS, Connection, Ends};

use super::{Entering, give_back};
use crate::{atomic, tables::CONNECTIONS};

/// How often an end is tried to be marked: until whoever changes the connection has begun, and has finished.
const TRIES: u32 = 3;
/// -ENOENT of include/uapi/asm-generic/errno-base.h.
const NOT_THERE: i32 = -2;

/// Since when a connection counts, and its marks; `None` where it is removed, and the element may be another's.
///
/// # Safety
///
/// An element of the map of connections.
#[inline(always)]
pub unsafe fn word(found: *mut Connection, ends: &Ends) -> Option<u64> {
    // SAFETY: the caller's. It changes nothing; behind a mere load the look-up could be done before it.
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
    unsafe {
        copy_nonoverlapping(&raw const entering.connection.holds, &raw mut (*found).holds, 1);
        let done = unmark(found, entering.connection.since, state);
        if !done {
            remove(found, &entering.ends, &entering.connection);
        }
        done
    }
}

/// Ends the change of the connection with that word, and has it be in a state; `false` where its end was seen meanwhile, and it
/// is the caller's to [`remove`].
///
/// # Safety
///
/// As for [`begin_changing`], which the caller was let by.
#[inline(always)]
pub unsafe fn unmark(found: *mut Connection, since: u64, state: u32) -> bool {
    let (open, changes) = (state == Connection::OPEN, since | Connection::CHANGES);
    // SAFETY: the caller's. Only whoever has marked it writes its state.
    unsafe {
        let (word, state_word) = (&raw mut (*found).since, &raw mut (*found).state);
        let next = since + u64::from(open || state_word.read_volatile() != state);
        state_word.write_volatile(state);
        atomic::swap(word, changes, next).0 || open && atomic::swap(word, changes | Connection::FORSAKEN, next).0
    }
}

/// Notes that the connection between these ends has ended. Whether whoever sees that is to [`remove`] it.
///
/// # Safety
///
/// As for [`word`].
#[inline(always)]
pub unsafe fn sees_end(found: *mut Connection, ends: &Ends) -> bool {
    for _ in 0..TRIES {
        // SAFETY: the caller's.
        let Some(seen) = (unsafe { word(found, ends) }) else { return false };
        if seen & Connection::ENDS != 0 {
            return false;
        }
        // SAFETY: the caller's.
        if unsafe { atomic::swap(&raw mut (*found).since, seen, seen | Connection::ENDS).0 } {
            return seen & Connection::CHANGES == 0;
        }
    }
    false
}

/// The same of the connection with that word, without marks. While another changes it, it gets a mark for that one,
/// [`Connection::ENDS`] or [`Connection::FORSAKEN`].
///
/// # Safety
///
/// As for [`word`].
#[inline(always)]
pub unsafe fn mark_end(found: *mut Connection, since: u64, mark: u64) -> bool {
    let changes = since | Connection::CHANGES;
    // SAFETY: the caller's.
    unsafe {
        let word = &raw mut (*found).since;
        let ends = || atomic::swap(word, since, since | Connection::ENDS).0;
        // The last time because the change may have been finished in between.
        ends() || !atomic::swap(word, changes, changes | mark).0 && ends()
    }
}

/// Removes a connection whose end the caller has marked, and gives its places back: of all who see it close, one does. Where the
/// kernel does not remove it, as for an interrupt in the middle of its own work on the same bucket, its marks are taken
/// away and it has another word: whoever sees it next does so again, and nobody who has seen these marks.
///
/// # Safety
///
/// As for [`word`], and nobody else's to remove.
#[inline(always)]
pub unsafe fn remove(found: *mut Connection, ends: &Ends, connection: &Connection) -> bool {
    match CONNECTIONS.remove(ends) {
        Ok(()) => {
            leave(connection);
            true
        }
        Err(NOT_THERE) => false,
        Err(_) => {
            // SAFETY: the caller's.
            unsafe {
                let word = &raw mut (*found).since;
                atomic::store(word, (atomic::load(word) & !Connection::MARKS) + 1);
            }
            false
        }
    }
}

/// Gives the places of a connection back.
#[inline(always)]
pub fn leave(connection: &Connection) {
    let mut index = 0;
    while index < CONNECTION_LIMITS {
        give_back(&connection.holds[index]);
        index += 1;
    }
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
