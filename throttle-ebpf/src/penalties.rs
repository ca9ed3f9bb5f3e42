//! Whom a limit refuses again and again: refusals are counted for each source, and whoever has too many is told to the agent,
//! which blocks it for a while.
//!
//! Only refusals of sources that are known not to be spoofed count, unless policy says otherwise: else anybody could have
//! anybody else blocked. Refusals by limits that have no penalty cost no more than the look at that.

use throttle_common::{
    gcra, hash,
    packet::protocol,
    penalties::{self, Place, SETS},
    proven::Claim,
    records::{Event, MAX_LIMITS, Offence, PROVEN_LINES, Penalty, PenaltyTally, SourceEntry},
    table::{Set as _, TRIES},
    words::{Outcome, Reason},
};

use crate::{
    clock::Clock,
    frame::only_copy,
    limits::{self, MapSet},
    sources,
    tables::{InForce, OFFENCE_BUCKETS, OFFENCES, PENALTIES, PENALTY_TALLIES, PROVEN, REFUSALS, scratch},
    verdict::Verdict,
};

/// What a CPU may tell: a thousand offences a second, and as many at once.
const COST: gcra::Ticks = gcra::ticks(1_000_000);
const DEPTH: gcra::Ticks = 1_000 * COST;

/// Set beside the number of a limit where its refusal was only observed.
const OBSERVED: u32 = 1 << 16;

/// Counts a refusal by a limit that has a penalty.
#[inline(always)]
pub fn note(in_force: &InForce, verdict: &Verdict, clock: &mut Clock) {
    // That others have taken all places is not its fault.
    if verdict.limit == Event::NO_LIMIT || verdict.reason == Reason::SourceOverflow as u8 {
        return;
    }
    let number = u32::from(verdict.limit);
    if of(in_force.generation, number).is_none_or(|penalty| penalty.after == 0) {
        return;
    }
    let observed = if matches!(verdict.outcome, Outcome::Observe) { OBSERVED } else { 0 };
    count(in_force.epoch, number | observed, clock.nanos());
}

#[inline(always)]
fn of(generation: u32, number: u32) -> Option<&'static Penalty> {
    PENALTIES.get(generation * MAX_LIMITS + number)
}

/// Counts one of the packet in the scratch space, by the limit of that number.
///
/// A global function, which the verifier checks once and by itself; so are the others.
#[inline(never)]
#[unsafe(export_name = "count_refusal")]
extern "C" fn count(epoch: u32, refusal: u32, now: u64) -> u32 {
    let number = refusal & (OBSERVED - 1);
    let (Some(in_force), Some(scratch)) = (InForce::of(epoch), scratch()) else { return 0 };
    let packet = &scratch.packet;
    let (Some(penalty), Some(limit)) = (of(in_force.generation, number), limits::find(in_force.generation, number))
    else {
        return 0;
    };
    if penalty.unproven == 0 && is_proven(epoch, now) == 0 {
        tally(|tally| &mut tally.unproven);
        return 0;
    }
    let secret = in_force.control.secret;
    let source = limit.region(packet.family).key(packet.source, packet.family, secret);
    let key = penalties::key(source, penalty.salt, secret);
    let Some(set) = REFUSALS.get_ptr_mut(hash::place(key, SETS, secret)).map(MapSet::of) else { return 0 };
    for _ in 0..TRIES {
        let place = penalties::seek(&set, key, now);
        if place.is_none() {
            tally(|tally| &mut tally.uncounted);
            return 0;
        }
        let Place { way, seen, own } = place;
        // The compiler knows that it lies in the set, the verifier does not: so it is masked.
        let way = only_copy(way);
        let next = if own { penalties::step(seen, now, penalty.within) } else { penalties::begin(now, penalty.within) };
        if set.swap_tat(way, seen, next) {
            if !own {
                // Of two sources that begin in one slot the later has it, and one refusal too many.
                set.set_key(way, key);
            }
            if penalties::count(next, now) == penalty.after {
                tell(epoch, refusal, now);
            }
            return 0;
        }
    }
    0
}

/// 1 where the source of the packet in the scratch space is known not to be spoofed: policy says so, or it is of TCP, by
/// which the source has lately completed a handshake.
#[inline(never)]
#[unsafe(export_name = "is_proven")]
extern "C" fn is_proven(epoch: u32, now: u64) -> u32 {
    let (Some(in_force), Some(scratch)) = (InForce::of(epoch), scratch()) else { return 0 };
    let packet = &scratch.packet;
    if sources::recalled(&in_force, packet).is_some_and(SourceEntry::knows) {
        return 1;
    }
    let claim = Claim::of(packet.source, packet.family, PROVEN_LINES, in_force.control.secret);
    let holds = || PROVEN.get(claim.line).is_some_and(|line| claim.holds(line, now));
    u32::from(packet.protocol == protocol::TCP && holds())
}

/// Tells the agent of the source of the packet in the scratch space, within this CPU's budget.
#[inline(never)]
#[unsafe(export_name = "tell_offence")]
extern "C" fn tell(epoch: u32, refusal: u32, now: u64) -> u32 {
    let number = refusal & (OBSERVED - 1);
    let (Some(scratch), Some(bucket)) = (scratch(), OFFENCE_BUCKETS.get_ptr_mut(0)) else { return 0 };
    let Some(penalty) = of(epoch & 1, number) else { return 0 };
    // SAFETY: this CPU's own element, and nothing interrupts the program that judges packets.
    let bucket = unsafe { &mut *bucket };
    let Some(tat) = gcra::admit(*bucket, gcra::ticks(now), COST, DEPTH) else {
        tally(|tally| &mut tally.withheld);
        return 0;
    };
    *bucket = tat;
    let Some(mut entry) = OFFENCES.reserve(0) else {
        tally(|tally| &mut tally.lost);
        return 0;
    };
    entry.write(Offence {
        time: now,
        salt: penalty.salt,
        source: scratch.packet.source,
        limit: number as u16,
        family: scratch.packet.family as u8,
        observed: u8::from(refusal & OBSERVED != 0),
        padding: [0; 4],
    });
    entry.submit(0);
    tally(|tally| &mut tally.told);
    0
}

#[inline(always)]
fn tally(of: impl FnOnce(&mut PenaltyTally) -> &mut u64) {
    if let Some(tally) = PENALTY_TALLIES.get_ptr_mut(0) {
        // SAFETY: this CPU's own element, and nothing interrupts the program that judges packets.
        *of(unsafe { &mut *tally }) += 1;
    }
}
