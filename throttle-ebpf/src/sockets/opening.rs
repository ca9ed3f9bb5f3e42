//! Connections that are found open hold the places that they took on their way in, and those that they did not: what a watcher
//! sees, and what the agent has mended ([`crate::mending`]).

use throttle_common::{
    packet::Packet,
    records::{Connection, Limit, NONE, Scope, SourceEntry},
};

use crate::{
    clock::Clock,
    connections::{self, Entering, GUARANTEED, NOTHING, PLACES, WITHOUT_END, concurrent},
    limits, services, sources,
    tables::{CONNECTIONS, CONTROL, ENTERING, InForce},
};

/// What a program keeps for a moment, where the functions that the verifier checks apart can find it.
#[repr(C)]
pub struct Opening {
    /// A packet of the connection.
    pub packet: Packet,
    /// What was found of its source.
    pub said: SourceEntry,
    /// The connection itself.
    pub entering: Entering,
}

impl Opening {
    /// Begins with the connection that the packet describes.
    #[inline(always)]
    pub fn arrive(&mut self, in_force: &InForce) {
        let (generation, secret) = (in_force.generation, in_force.control.secret);
        self.entering.arrive(&self.packet, Clock::read().nanos(), generation, secret);
    }
}

/// Which of them is of who mends: see [`crate::mending`].
pub const MENDER: u32 = 2;

/// Counts a connection that is open: its places are those that it took on its way in, and those that it did not. One whose
/// end was seen, or that is just being changed, is left to whoever did; what it lacks then the agent finds.
#[inline(always)]
pub fn open<const WATCHER: u32>(in_force: &InForce, opening: &mut Opening) {
    opening.arrive(in_force);
    let found = CONNECTIONS.get_ptr_mut(&opening.entering.ends);
    // SAFETY: an element of the map.
    if found.is_some_and(|found| !unsafe { begin_opening(found, &mut opening.entering) }) {
        return;
    }
    let (service, scope) = services::classify(in_force, &opening.packet);
    let forwarded = services::is_forwarded(in_force.generation, u32::from(service));
    if !forwarded {
        hold_missing::<WATCHER>(in_force, opening, service, scope);
    }
    let entering = &mut opening.entering;
    match found {
        Some(found) => {
            let state = if forwarded { entering.connection.state } else { Connection::OPEN };
            // SAFETY: an element of the map, and `begin_opening` let us by.
            unsafe { connections::finish_changing(found, entering, state) };
        }
        None if entering.count > 0 => {
            entering.connection.state = Connection::OPEN;
            entering.enter();
        }
        None => {}
    }
}

/// Begins to change a connection that is written down, and goes on with it; `false` where it is not ours to do so.
///
/// # Safety
///
/// An element of the map of connections.
#[inline(always)]
unsafe fn begin_opening(found: *mut Connection, entering: &mut Entering) -> bool {
    // SAFETY: the caller's.
    unsafe {
        let Some(since) = connections::word(found, &entering.ends) else { return false };
        if !connections::begin_changing(found, since) {
            return false;
        }
        entering.resume(&*found);
    }
    true
}

/// Has the connection that a watcher, or who mends, has described hold a place under each limit of its service, as far as it
/// lacks some.
#[inline(always)]
pub fn hold_missing<const WATCHER: u32>(in_force: &InForce, opening: &mut Opening, service: u16, scope: &Scope) {
    let generation = in_force.generation;
    let missing = u32::from(scope.concurrent) > opening.entering.count;
    let entry = missing.then(|| {
        find_opener(WATCHER);
        &opening.said
    });
    opening.entering.tenant = entry.map_or(NONE, |entry| entry.tenant(generation));
    opening.entering.class = entry.map_or(NONE, |entry| entry.class(generation));
    if missing && !entry.is_some_and(SourceEntry::allows) {
        for index in 0..PLACES as u32 {
            if hold_open(WATCHER, service.into(), index) == NO_MORE {
                break;
            }
        }
    }
}

/// Looks up who opens the connection that a watcher, or who mends, has described, and says there what is found.
///
/// A global function, which the verifier checks once and by itself.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn find_opener(watcher: u32) -> u32 {
    if let (Some(control), Some(opening)) = (CONTROL.get(0), ENTERING.get_ptr_mut(watcher)) {
        // SAFETY: as in `super::watch`.
        let Opening { packet, said, .. } = unsafe { &mut *opening };
        sources::look_up(control, packet, said);
    }
    0
}

/// How often a place is tried to be taken for what is open: whatever is not counted here is only the agent's to find.
const OFTEN: usize = 32;

/// Above the number of a limit, the watcher that asks for it.
const WATCHER_SHIFT: u32 = 16;

/// There is no further place to be held.
const NO_MORE: u32 = 1;

/// Has the connection that a watcher sees open on this CPU hold a place under one of the limits of its service, by its index
/// there; [`NO_MORE`] where that is the last, because there are no more limits or the place is one of a guarantee.
///
/// A global function, which the verifier checks once and by itself; so are its three steps: see `connections::places`. The
/// loop around it ends by a number that is written there: of others Linux 6.1 does not see that they end it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn hold_open(watcher: u32, service: u32, index: u32) -> u32 {
    let Some(opening) = ENTERING.get_ptr_mut(watcher) else { return NO_MORE };
    // SAFETY: as in `super::watch`.
    let generation = unsafe { (*opening).entering.generation };
    let number = limits::scope(generation, service).and_then(|scope| concurrent(scope, index as usize));
    let Some(number) = number else { return NO_MORE };
    let asked = watcher << WATCHER_SHIFT | number;
    let taken = connections::attempt::<OFTEN>(|| take_open(asked, look_for_open(asked)));
    if settle_open(asked, taken) == GUARANTEED { NO_MORE } else { 0 }
}

/// Looks for a place for it, if it has none.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn look_for_open(asked: u32) -> u32 {
    match opened(asked) {
        Some((entering, limit, number)) if !entering.holds(number) && entering.has_room() => {
            // What was asked for places on its way in has none of the guarantee's, or holds it.
            let depth = connections::due(entering, limit, true);
            if limit.is_guarantee() && entering.resumed { NOTHING } else { connections::look(entering, limit, depth) }
        }
        _ => NOTHING,
    }
}

/// Takes it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn take_open(asked: u32, looked: u32) -> u32 {
    let Some((entering, limit, number)) = opened(asked) else { return NOTHING };
    let depth = connections::due(entering, limit, true);
    connections::take(entering, limit, number, depth, looked)
}

/// Notes it. Where the table has no room for it either, the agent says so.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn settle_open(asked: u32, taken: u32) -> u32 {
    let Some((entering, limit, number)) = opened(asked) else { return 0 };
    let guaranteed = limit.is_guarantee() && entering.holds(number);
    if guaranteed || !limit.is_guarantee() {
        connections::settle(entering, limit, number, WITHOUT_END, taken);
    }
    if guaranteed { GUARANTEED } else { 0 }
}

/// The connection that a watcher sees open, and a limit with its number.
#[inline(always)]
fn opened(asked: u32) -> Option<(&'static mut Entering, &'static Limit, u32)> {
    let opening = ENTERING.get_ptr_mut(asked >> WATCHER_SHIFT)?;
    // SAFETY: as in `super::watch`.
    let entering = unsafe { &mut (*opening).entering };
    let number = asked & ((1 << WATCHER_SHIFT) - 1);
    let limit = limits::find(entering.generation, number)?;
    Some((entering, limit, number))
}
