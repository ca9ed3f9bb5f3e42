//! The places of one limit: taken, given back, and what is asked for.

use throttle_common::{
    connections::{self, PLACE, STANDING, open},
    gcra::{self, MAX_DEPTH, Ticks},
    handshakes::Asking,
    limits::{Table as _, outcome},
    records::{Hold, Limit},
    table::{Check, Commit, Look as _, Request, Set as _, TRIES, WAYS, check, commit},
    words::{Outcome, Overflow, Reason},
};

use super::{Entering, Step};
use crate::{
    account::count,
    atomic,
    limits::{ADMITTED, CROWDED, Maps, OBSERVED, OVERFLOWED, REFUSED, REJECTED, STOP, find},
    tables::{AGGREGATES, HANDSHAKES, LIMIT_TALLIES, POLICIES, scratch},
};

/// Asks one limit for the connection in the scratch space: a SYN whether it may, a completed handshake for a place.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn ask_for_place(number: u32) -> u32 {
    let Some(scratch) = scratch() else { return ADMITTED };
    let entering = &mut scratch.entering;
    let Some(limit) = find(entering.generation, number) else { return ADMITTED };
    let asks = matches!(entering.step, Step::Asks);
    let refusal = if asks { weigh(entering, limit) } else { hold(entering, limit, number, limit.depth) };
    let observes = POLICIES.get(entering.generation).is_some_and(|policy| policy.observe != 0);
    match refusal {
        None if asks => ADMITTED,
        None => {
            if let Some(tally) = LIMIT_TALLIES.get_ptr_mut(number) {
                // SAFETY: this CPU's own element, and nothing interrupts this program.
                count(unsafe { &mut (*tally).admitted }, entering.length);
            }
            ADMITTED
        }
        Some(reason) => refuse(entering, limit, number, reason, observes),
    }
}

/// Counts a refusal, and says it in a number.
#[inline(always)]
fn refuse(entering: &Entering, limit: &Limit, number: u32, reason: Reason, observes: bool) -> u32 {
    let outcome = outcome(limit, observes);
    if let Some(tally) = LIMIT_TALLIES.get_ptr_mut(number) {
        // SAFETY: this CPU's own element, and nothing interrupts this program.
        let tally = unsafe { &mut *tally };
        let refused = if matches!(outcome, Outcome::Observe) { &mut tally.observed } else { &mut tally.refused };
        count(refused, entering.length);
    }
    let why = if matches!(reason, Reason::SourceOverflow) { OVERFLOWED } else { CROWDED };
    let how = match outcome {
        Outcome::Observe => OBSERVED,
        Outcome::Reject => REJECTED | STOP,
        _ => STOP,
    };
    REFUSED | why | how
}

/// Whether the source may ask for one connection more.
#[inline(always)]
fn weigh(entering: &Entering, limit: &Limit) -> Option<Reason> {
    let region = limit.region(entering.family);
    if region.sets == 0 {
        return None;
    }
    let key = region.key(entering.ends.source, entering.family, entering.secret);
    let asking = Asking::of(key, region.base, entering.secret);
    let cell = HANDSHAKES.get_ptr_mut(asking.cell)?;
    // SAFETY: an element of the map.
    let cell = unsafe { atomic::load(cell) };
    let open = open(&Maps.set(region.set(key, entering.secret))?, key);
    let begun = asking.begin(cell, entering.connection.since, open, limit.depth / PLACE);
    if begun.is_none() { Some(Reason::ConnectionLimit) } else { None }
}

/// Notes that the source asks for a connection. After [`TRIES`] lost races it is not noted: the completed handshake
/// decides.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn note_asking(number: u32) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let entering = &scratch.entering;
    let Some(limit) = find(entering.generation, number) else { return 0 };
    let region = limit.region(entering.family);
    let key = region.key(entering.ends.source, entering.family, entering.secret);
    let asking = Asking::of(key, region.base, entering.secret);
    let now = entering.connection.since;
    // What is open was weighed; here it is as if nothing were.
    change(asking, |cell| asking.begin(cell, now, 0, u64::MAX));
    0
}

#[inline(always)]
fn change(asking: Asking, next: impl Fn(u64) -> Option<u64>) {
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

/// Takes a place under a limit that is `depth` deep.
#[inline(always)]
pub fn hold(entering: &mut Entering, limit: &Limit, number: u32, depth: Ticks) -> Option<Reason> {
    let region = limit.region(entering.family);
    if region.sets == 0 {
        return None;
    }
    let key = region.key(entering.ends.source, entering.family, entering.secret);
    let place = region.set(key, entering.secret);
    // Who completes a handshake is proven by that.
    let request = Request { key, now: STANDING, cost: PLACE, depth, ways: WAYS };
    let set = Maps.set(place)?;
    let held = Hold { key, place, way: Hold::AGGREGATE, limit: number as u16 };
    // What is refused at a look goes no further: what it leaves unsaid must not reach the verifier.
    let committed = match check(&set, &request) {
        Check::Exceeded => return Some(Reason::ConnectionLimit),
        Check::Full => Commit::Full,
        seen => commit(&set, &request, seen),
    };
    match committed {
        Commit::Charged(way) => entering.hold(Hold { way: way as u16, ..held }),
        Commit::Exceeded => return Some(Reason::ConnectionLimit),
        Commit::Full if limit.overflow == Overflow::Refuse as u8 => return Some(Reason::SourceOverflow),
        Commit::Full if limit.overflow == Overflow::Admit as u8 => return None,
        Commit::Full => {
            let place = region.aggregate(entering.ends.source, entering.family, entering.secret);
            if !hold_in_aggregate(place, depth) {
                return Some(Reason::SourceOverflow);
            }
            entering.hold(Hold { place, ..held });
        }
    }
    let asking = Asking::of(key, region.base, entering.secret);
    let now = entering.connection.since;
    change(asking, |cell| Some(asking.complete(cell, now)));
    None
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

/// Gives a place back, as long as it is still whose it was: where policy has given the region away, there is nothing left
/// to give back.
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
