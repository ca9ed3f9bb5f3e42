//! The places of one limit: taken, and given back.

use throttle_common::{
    connections::{self, PLACE, STANDING},
    gcra::{self, MAX_DEPTH, Ticks},
    limits::{Table as _, outcome},
    records::{Connection, Hold, Home, Limit},
    table::{self, Check, Look as _, Request, Set as _, TRIES, WAYS, check},
    words::{Outcome, Overflow, Reason},
};

use super::{Entering, Step, asking::change};
use crate::{
    account::count,
    atomic,
    limits::{ADMITTED, MapSet, Maps, STOP, find, refused},
    tables::{AGGREGATES, LIMIT_TALLIES, POLICIES, scratch},
};

// What `look` saw, and above it in which way; and what `take` and `settle` make of it.
/// The limit has nothing to do with the connection.
pub const NOTHING: u32 = 0;
const HELD: u32 = 1;
const FREE: u32 = 2;
const FULL: u32 = 3;
const EXCEEDED: u32 = 4;
const TAKEN: u32 = 5;
const KIND: u32 = 7;
const WAY: u32 = 3;

/// There is a place of a guarantee: the limits behind that are not asked.
pub const GUARANTEED: u32 = 128;

/// Asks one limit for a place for the connection in the scratch space, whose handshake is complete.
///
/// The steps are functions of their own: the verifier follows every way through one from the end of every way through
/// the one before, and Linux 6.1, which finds fewer of them alike than later kernels, gives up.
#[inline(always)]
pub fn ask_for_place(number: u32) -> u32 {
    settle_place(number, attempt::<TRIES>(|| take_place(number, look_for_place(number))))
}

/// Tries to take a place until it is taken, refused, or lost to others so often. Whether to go on is asked last, so that the
/// loop jumps back to its beginning: Linux 6.1 refuses one that falls into it.
#[inline(always)]
pub fn attempt<const OFTEN: usize>(mut take: impl FnMut() -> u32) -> u32 {
    let mut left = OFTEN;
    loop {
        let taken = take();
        left -= 1;
        if left == 0 || taken != HELD && taken != FREE {
            return taken;
        }
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn look_for_place(number: u32) -> u32 {
    asked(number).map_or(NOTHING, |(entering, limit)| look(entering, limit, depth(entering, limit)))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn take_place(number: u32, looked: u32) -> u32 {
    asked(number).map_or(NOTHING, |(entering, limit)| {
        let depth = depth(entering, limit);
        take(entering, limit, number, depth, looked)
    })
}

/// Says what came of it, and counts that.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn settle_place(number: u32, taken: u32) -> u32 {
    let Some((entering, limit)) = asked(number) else { return ADMITTED };
    if limit.is_guarantee() && taken != TAKEN {
        return ADMITTED;
    }
    let is_open = reveals(entering);
    let depth = if is_open { WITHOUT_END } else { entering.allowed_together(limit) };
    // Where not even the table has room for what is open, it goes on without a place.
    if let Some(reason) = settle(entering, limit, number, depth, taken)
        && !is_open
    {
        return refuse(entering, limit, number, reason);
    }
    if let Some(tally) = LIMIT_TALLIES.get_ptr_mut(number) {
        // SAFETY: this CPU's own element, and nothing interrupts this program.
        count(unsafe { &mut (*tally).admitted }, entering.length);
    }
    if limit.is_guarantee() { GUARANTEED } else { ADMITTED }
}

/// How deep a limit is for the connection that asks.
#[inline(always)]
fn depth(entering: &Entering, limit: &Limit) -> Ticks {
    due(entering, limit, reveals(entering))
}

/// Whether it is open already: then it is counted and never refused.
#[inline(always)]
fn reveals(entering: &Entering) -> bool {
    matches!(entering.step, Step::Reveals)
}

/// The connection in the scratch space, and a limit.
#[inline(always)]
pub fn asked(number: u32) -> Option<(&'static mut Entering, &'static Limit)> {
    let entering = &mut scratch()?.entering;
    let limit = find(entering.generation, number)?;
    Some((entering, limit))
}

/// Counts a refusal, and says it in a number.
#[inline(always)]
pub fn refuse(entering: &Entering, limit: &Limit, number: u32, reason: Reason) -> u32 {
    let observes = POLICIES.get(entering.generation).is_some_and(|policy| policy.observe != 0);
    let outcome = outcome(limit, observes);
    if let Some(tally) = LIMIT_TALLIES.get_ptr_mut(number) {
        // SAFETY: this CPU's own element, and nothing interrupts this program.
        let tally = unsafe { &mut *tally };
        let refused = if matches!(outcome, Outcome::Observe) { &mut tally.observed } else { &mut tally.refused };
        count(refused, entering.length);
    }
    refused(reason, outcome) | if matches!(outcome, Outcome::Observe) { 0 } else { STOP }
}

/// Looks where the connection might have a place under a limit that is `depth` deep. Notes the bucket that it sees, and where.
#[inline(always)]
pub fn look(entering: &mut Entering, limit: &Limit, depth: Ticks) -> u32 {
    let Some(home) = entering.home(limit) else { return NOTHING };
    entering.sought = home;
    let Some((set, request)) = request(entering, depth) else { return NOTHING };
    let (kind, way, seen) = match check(&set, &request) {
        Check::Held { way, seen } => (HELD, way, seen),
        Check::Free { way, seen } => (FREE, way, seen),
        Check::Exceeded => return EXCEEDED,
        Check::Full => return FULL,
    };
    entering.seen = seen;
    kind | (way as u32) << WAY
}

/// Takes the place that was seen. Gives its kind where it has changed since.
#[inline(always)]
pub fn take(entering: &mut Entering, limit: &Limit, number: u32, depth: Ticks, looked: u32) -> u32 {
    let (kind, way, seen) = (looked & KIND, (looked >> WAY) as usize, entering.seen);
    let seen = match kind {
        HELD => Check::Held { way, seen },
        FREE => Check::Free { way, seen },
        _ => return kind,
    };
    let Some((set, request)) = request(entering, depth) else { return NOTHING };
    let way = if limit.is_shared() {
        table::attempt_shared(&set, &request, seen)
    } else {
        table::attempt_once(&set, &request, seen)
    };
    let Some(way) = way else { return kind };
    let Home { key, set: place } = entering.sought;
    entering.hold(Hold { key, place, way: way as u16, limit: number as u16 });
    TAKEN
}

/// Gives a source for which there is no place one of its aggregate's, which is so deep, where the limit's rule has it so.
/// Whoever has a place is noted to have completed a handshake, unless it has asked for none or only goes on.
#[inline(always)]
pub fn settle(entering: &mut Entering, limit: &Limit, number: u32, depth: Ticks, taken: u32) -> Option<Reason> {
    let Home { key, .. } = entering.home(limit)?;
    match taken {
        TAKEN => {}
        // A bucket that others keep changing is one that the source's own connections fight for, or one that many share and
        // that is full or empty every other moment.
        EXCEEDED | HELD => return Some(Reason::ConnectionLimit),
        FULL | FREE if limit.overflow == Overflow::Refuse as u8 => return Some(Reason::SourceOverflow),
        FULL | FREE if limit.overflow == Overflow::Aggregate as u8 => {
            let place = limit.aggregate(&entering.whose(), entering.secret);
            if !hold_in_aggregate(place, depth) {
                return Some(Reason::SourceOverflow);
            }
            entering.hold(Hold { key, place, way: Hold::AGGREGATE, limit: number as u16 });
        }
        _ => return None,
    }
    if entering.connection.state != Connection::FAST && !matches!(entering.step, Step::Continues) {
        let asking = entering.asking(limit, key);
        let now = entering.connection.since;
        change(asking, |cell| Some(asking.complete(cell, now)));
    }
    None
}

/// What is asked of the set in which the bucket was looked for that was seen last.
#[inline(always)]
fn request(entering: &Entering, depth: Ticks) -> Option<(MapSet, Request)> {
    // Who completes a handshake is proven by that.
    let Home { key, set } = entering.sought;
    Some((Maps.set(set)?, Request { key, now: STANDING, cost: PLACE, depth, ways: WAYS }))
}

/// Takes a place in an aggregate's bucket. After [`TRIES`] lost races there is none.
#[inline(always)]
fn hold_in_aggregate(place: u32, depth: Ticks) -> bool {
    let Some(cell) = AGGREGATES.get_ptr_mut(place) else { return false };
    // SAFETY: an element of the map.
    let mut seen = unsafe { atomic::load(cell) };
    for _ in 0..TRIES {
        let Some(next) = gcra::admit(seen, STANDING, PLACE, depth) else { return false };
        // SAFETY: an element of the map.
        let (done, found) = unsafe { atomic::swap(cell, seen, next) };
        if done {
            return true;
        }
        seen = found;
    }
    false
}

/// What a limit of this many connections allows when it must allow one more.
pub const WITHOUT_END: Ticks = MAX_DEPTH;
const _: () = assert!(connections::depth(connections::MOST) < WITHOUT_END);

/// How many may be open: of one that is open already as many as there are, but for what a guarantee reserves.
#[inline(always)]
pub fn due(entering: &Entering, limit: &Limit, is_open: bool) -> Ticks {
    if is_open && !limit.is_guarantee() { WITHOUT_END } else { entering.allowed(limit) }
}

/// Gives a place back, as long as it is still whose it was: where policy has given the region away, there is nothing left
/// to give back. An aggregate's bucket says of nobody whose it is: one that was cleared meanwhile is then below nothing,
/// which [`gcra::debt`] reads as nothing, and whoever takes a place there next puts it right. Before policy gives the region
/// to another limit the agent has seen to it that no connection holds places in it.
#[inline(always)]
pub fn give_back(hold: &Hold) {
    if !hold.is_some() {
        return;
    }
    if hold.in_aggregate() {
        if let Some(cell) = AGGREGATES.get_ptr_mut(hold.place) {
            // SAFETY: an element of the map.
            unsafe { atomic::subtract(cell, PLACE) };
        }
    } else if let Some(set) = Maps.set(hold.place)
        && set.key(hold.way.into()) == hold.key
    {
        set.refund(hold.way.into(), PLACE);
    }
}
