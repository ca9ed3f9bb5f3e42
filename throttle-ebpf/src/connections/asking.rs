//! What a SYN asks of one limit: it is weighed against the room that there is, and noted.

use throttle_common::{
    connections::{self, PLACE, Room},
    handshakes::Asking,
    records::{Home, Limit},
    table::TRIES,
    words::Reason,
};

use super::{
    Entering, Step,
    places::{GUARANTEED, asked, refuse},
};
use crate::{
    atomic,
    limits::{ADMITTED, Maps, find},
    tables::{HANDSHAKES, scratch},
};

// What `look_for_room` saw: see `Room`.
const OUTSIDE: u32 = 0;
const OWN: u32 = 1;
const SHARED: u32 = 2;
const UNCOUNTED: u32 = 3;
const NOWHERE: u32 = 4;

/// Asks one limit, at an index of the scope, whether the SYN in the scratch space may ask for a connection.
#[inline(always)]
pub fn weigh_asking(index: u32, number: u32) -> u32 {
    weigh_in_room(index, number, look_for_room(number))
}

/// Looks where the connection that the SYN asks for would have its place. Notes how many are taken there.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn look_for_room(number: u32) -> u32 {
    let Some((entering, limit)) = asked(number) else { return OUTSIDE };
    let depth = entering.allowed(limit);
    match connections::room(limit, &entering.whose(), entering.secret, depth, &Maps) {
        None => OUTSIDE,
        Some(Room::Own(taken)) => {
            entering.seen = taken;
            OWN
        }
        Some(Room::Shared(taken)) => {
            entering.seen = taken;
            SHARED
        }
        Some(Room::Uncounted) => UNCOUNTED,
        Some(Room::Nowhere) => NOWHERE,
    }
}

/// Decides by what was seen there and what the source has asked for.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weigh_in_room(index: u32, number: u32, looked: u32) -> u32 {
    let Some((entering, limit)) = asked(number) else { return ADMITTED };
    let room = match looked {
        OWN => Room::Own(entering.seen),
        SHARED => Room::Shared(entering.seen),
        UNCOUNTED => Room::Uncounted,
        NOWHERE => Room::Nowhere,
        _ => return ADMITTED,
    };
    let refusal = weigh(entering, limit, room);
    if limit.is_guarantee() && refusal.is_some() {
        return ADMITTED;
    }
    if room.counts() {
        entering.asked |= 1 << (index & 15);
    }
    if limit.is_guarantee() {
        return GUARANTEED;
    }
    refusal.map_or(ADMITTED, |reason| refuse(entering, limit, number, reason))
}

/// Why the source may not ask for one connection more, where its place would be in this room.
#[inline(always)]
fn weigh(entering: &Entering, limit: &Limit, room: Room) -> Option<Reason> {
    let Home { key, .. } = entering.home(limit)?;
    let asking = entering.asking(limit, key);
    let cell = HANDSHAKES.get_ptr_mut(asking.cell)?;
    // SAFETY: an element of the map.
    let cell = unsafe { atomic::load(cell) };
    let depth = if room.is_shared() { entering.allowed_together(limit) } else { entering.allowed(limit) };
    room.refusal(asking, cell, entering.connection.since, depth / PLACE)
}

/// Notes that the source asks for a connection, or resets the handshake of one: that says nothing of others. After [`TRIES`]
/// lost races it is not noted: the completed handshake decides.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn note_handshake(number: u32) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let entering = &scratch.entering;
    let Some(limit) = find(entering.generation, number) else { return 0 };
    let Some(home) = entering.home(limit) else { return 0 };
    let asking = entering.asking(limit, home.key);
    let now = entering.connection.since;
    if matches!(entering.step, Step::Forsakes) {
        if limit.is_shared() {
            return 0;
        }
        change(asking, |cell| Some(asking.forsake(cell, now)));
    } else {
        // What is open was weighed; here it is as if nothing were.
        change(asking, |cell| asking.begin(cell, now, 0, u64::MAX));
    }
    0
}

/// Changes what is noted of a source, as long as others do not keep changing it meanwhile.
#[inline(always)]
pub fn change(asking: Asking, next: impl Fn(u64) -> Option<u64>) {
    let Some(cell) = HANDSHAKES.get_ptr_mut(asking.cell) else { return };
    // SAFETY: an element of the map.
    let mut seen = unsafe { atomic::load(cell) };
    for _ in 0..TRIES {
        let Some(next) = next(seen) else { return };
        // SAFETY: an element of the map.
        let (done, found) = unsafe { atomic::swap(cell, seen, next) };
        if done {
            return;
        }
        seen = found;
    }
}
