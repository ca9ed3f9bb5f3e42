//! Places of connections that change while they are written down, and their ends.
//!
//! Whoever changes the places of a connection marks it before ([`begin_changing`]): no other does so meanwhile, and nobody
//! removes it. Whoever sees its end leaves a mark ([`sees_end`]), and removes it, unless its places are just being changed:
//! then the other one does ([`finish_changing`]). So every place that was taken for it is given back, once. Nobody waits
//! for another: a packet may have interrupted the very program that changes them.

use core::ptr::copy_nonoverlapping;

use throttle_common::records::{CONNECTION_LIMITS, Connection};

use super::Entering;
use crate::{atomic, tables::CONNECTIONS};

const MARKS: u64 = Connection::CHANGES | Connection::ENDS;

/// Begins to change the places of a connection that began then; `false` where it is no longer that one, or somebody else
/// changes them or has seen its end.
///
/// # Safety
///
/// An element of the map of connections.
#[inline(always)]
pub unsafe fn begin_changing(found: *mut Connection, since: u64) -> bool {
    // SAFETY: the caller's.
    since & MARKS == 0 && unsafe { atomic::swap(&raw mut (*found).since, since, since | Connection::CHANGES) }.0
}

/// Writes down the places that the connection has from now on, and nothing that packets write; or removes it, if its end was
/// seen meanwhile: `false` then.
///
/// # Safety
///
/// As for [`begin_changing`], which the caller was let by and `entering` was resumed after.
#[inline(always)]
pub unsafe fn finish_changing(found: *mut Connection, entering: &Entering) -> bool {
    let since = entering.connection.since;
    // SAFETY: the caller's.
    let done = unsafe {
        copy_nonoverlapping(&raw const entering.connection.holds, &raw mut (*found).holds, 1);
        atomic::swap(&raw mut (*found).since, since | Connection::CHANGES, since).0
    };
    if !done && CONNECTIONS.remove(&entering.ends).is_ok() {
        entering.leave();
    }
    done
}

/// Notes that a connection has ended. Whether whoever sees that is to remove it.
///
/// # Safety
///
/// As for [`begin_changing`].
#[inline(always)]
pub unsafe fn sees_end(found: *mut Connection) -> bool {
    // SAFETY: the caller's.
    unsafe { atomic::mark(&raw mut (*found).since, Connection::ENDS) & Connection::CHANGES == 0 }
}

impl Entering {
    /// Goes on with what was written down between the same ends.
    #[inline(always)]
    pub fn resume(&mut self, found: &Connection) {
        (self.connection, self.resumed) = (*found, true);
        self.connection.since &= !MARKS;
        let mut index = 0;
        while index < CONNECTION_LIMITS && self.connection.holds[index].is_some() {
            index += 1;
        }
        self.count = index as u32;
    }
}
