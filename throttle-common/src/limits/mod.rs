//! One limit and one packet: where the bucket lies, whether it has room, and what overflow does.
//!
//! [`weigh`] only looks. The kernel program asks it of its maps and then charges what it says; the agent's `explain` asks
//! it of a copy of the same bytes, at any instant. So the two cannot differ. What a packet wants is a [`Question`], what it
//! comes to a [`Charge`].

mod charge;
mod glance;
mod question;
mod wait;

pub use self::{
    charge::Charge,
    glance::{Glance, glance},
    question::Question,
    wait::Owed,
};
use crate::{
    gcra::{self, Ticks},
    proven::Claim,
    records::{Home, Limit, Terms},
    table::{Check, Look, WAYS, check},
    words::{Action, Outcome, Overflow, Reason},
};

/// When a packet is judged.
pub trait Clock {
    /// Nanoseconds of CLOCK_MONOTONIC; the same however often it is asked.
    fn nanos(&mut self) -> u64;

    /// What a health clock reads at this instant.
    fn reads(&mut self, clock: u16) -> Ticks;
}

/// What lies in the table and beside it.
pub trait Table {
    /// One set, or what leads to it.
    type Set: Look + Copy;

    /// A set by its place; `None` outside of the table.
    fn set(&self, place: u32) -> Option<Self::Set>;
    /// An aggregate's bucket by its place.
    fn aggregate(&self, place: u32) -> Option<Ticks>;
    /// What the limit allows where an override says so: see [`crate::records::override_key`].
    fn terms(&self, key: u64) -> Option<Terms>;
    /// Whether the line of this claim remembers a handshake.
    fn remembers<C: Clock>(&self, claim: Claim, clock: &mut C) -> bool;
}

/// What the clocks of limits do: a program is compiled for no more than it meets, because its stack is short.
///
/// They flow: those of token buckets and leaky ones, of which nobody has other terms.
pub const FLOWING: u8 = 0;
/// They flow, or stand still while a window runs.
pub const STEPPING: u8 = 1;
/// They stand still while a window runs, and buckets have two words.
pub const SLIDING: u8 = 2;

/// Looks whether the limit admits the packet, and notes in `charge` what that would cost. Writes to no bucket.
///
/// `None` where nothing refuses; so too where a place lies outside of the table, which no compiled policy has.
pub fn weigh<T: Table, C: Clock>(
    limit: &Limit,
    question: &Question,
    table: &T,
    clock: &mut C,
    charge: &mut Charge,
) -> Option<Reason> {
    if limit.is_sliding() {
        weigh_at::<SLIDING, _, _>(limit, question, table, clock, charge)
    } else {
        weigh_at::<STEPPING, _, _>(limit, question, table, clock, charge)
    }
}

/// Likewise, where it is known what the limit's clock does.
#[inline(always)]
pub fn weigh_at<const PACE: u8, T: Table, C: Clock>(
    limit: &Limit,
    question: &Question,
    table: &T,
    clock: &mut C,
    charge: &mut Charge,
) -> Option<Reason> {
    match seek::<PACE, _, _>(limit, question, table, clock, charge)? {
        Check::Exceeded => exceeded(limit, question, charge),
        Check::Full => overflow::<PACE, _>(limit, question, table, charge),
        Check::Held { .. } | Check::Free { .. } => None,
    }
}

/// What a limit says whose bucket has no room. Who is within a guarantee by its clock passes all the same.
#[inline(always)]
pub fn exceeded(limit: &Limit, question: &Question, charge: &mut Charge) -> Option<Reason> {
    if question.guaranteed.passes(limit) {
        charge.aim(Charge::UNCHARGED, 0, 0);
        return None;
    }
    Some(limit.refusal())
}

/// Looks for the source's place, and notes the charge where there is one with room; `None` where the limit has no say in
/// the packet.
#[inline(always)]
pub fn seek<const PACE: u8, T: Table, C: Clock>(
    limit: &Limit,
    question: &Question,
    table: &T,
    clock: &mut C,
    charge: &mut Charge,
) -> Option<Check> {
    let units = begin(limit, question, charge)?;
    let overridden = if PACE == FLOWING { None } else { question.overridden(limit, table) };
    let Terms { price, depth } = overridden.unwrap_or(limit.terms());
    (charge.cost, charge.depth) = (price.cost(units), depth);
    let set = charge.place;
    let reads = clock.reads(limit.clock);
    charge.now = match PACE {
        FLOWING => reads,
        SLIDING => {
            charge.window = limit.sliding(reads);
            charge.words = charge.window.turn(set, set + limit.region(question.whose.family).sets).0;
            charge.window.start()
        }
        _ => limit.reading(reads),
    };
    let mut seen = look::<PACE, _>(limit, question, table, charge)?;
    if matches!(seen, Check::Full) && charge.ways < WAYS as u32 && question.is_proven(table, clock) {
        charge.ways = WAYS as u32;
        seen = look::<PACE, _>(limit, question, table, charge)?;
    }
    match seen {
        Check::Held { way, seen } => charge.aim(Charge::HELD, way, seen),
        Check::Free { way, seen } => charge.aim(Charge::FREE, way, seen),
        Check::Exceeded | Check::Full => {}
    }
    Some(seen)
}

/// Notes which bucket the packet is to be charged to, and gives how many units it is; `None` where the limit has no say in
/// it.
#[inline(always)]
fn begin(limit: &Limit, question: &Question, charge: &mut Charge) -> Option<u32> {
    let units = question.units(limit)?;
    let Home { key, set } = question.home(limit)?;
    (charge.key, charge.place, charge.words) = (key, set, set);
    // Who shares a bucket has it whoever else there is.
    charge.ways = if limit.is_shared() { WAYS as u32 } else { question.ways };
    Some(units)
}

/// Reads the source's set.
#[inline(always)]
fn look<const PACE: u8, T: Table>(limit: &Limit, question: &Question, table: &T, charge: &Charge) -> Option<Check> {
    let request = question.request(charge, limit);
    if PACE == SLIDING {
        Some(check(&question.turns(charge, limit, table)?, &request))
    } else {
        Some(check(&table.set(charge.place)?, &request))
    }
}

/// What the limit's rule does with a source that has no place.
#[inline(always)]
pub fn overflow<const PACE: u8, T: Table>(
    limit: &Limit,
    question: &Question,
    table: &T,
    charge: &mut Charge,
) -> Option<Reason> {
    if limit.is_shared() {
        // Others hold its slot, which only an agent of an earlier version has left to whoever came first.
        charge.aim(Charge::UNCHARGED, 0, 0);
        return None;
    }
    charge.overflowed = 1;
    if limit.overflow == Overflow::Admit as u8 {
        charge.aim(Charge::UNCHARGED, 0, 0);
        return None;
    }
    if limit.overflow == Overflow::Refuse as u8 {
        return Some(Reason::SourceOverflow);
    }
    if PACE != FLOWING && limit.overridden != 0 {
        // An override is for a bucket of its own: whoever shares one does so by the terms that all have.
        (charge.cost, charge.depth) = (limit.price.cost(question.units(limit)?), limit.depth);
    }
    charge.place = limit.aggregate(&question.whose, question.secret);
    if PACE == SLIDING {
        let (running, before) = charge.window.turn(charge.place, charge.place + question.region(limit).sets);
        charge.place = running;
        charge.depth = charge.depth.saturating_sub(charge.window.weight(table.aggregate(before)?));
    }
    let seen = table.aggregate(charge.place)?;
    if gcra::admit(seen, charge.now, charge.cost, charge.depth).is_none() {
        return Some(Reason::SourceOverflow);
    }
    charge.aim(Charge::AGGREGATE, 0, seen);
    None
}

/// What becomes of a packet that the limit refuses; `host_observes` where the whole host does.
#[inline(always)]
pub const fn outcome(limit: &Limit, host_observes: bool) -> Outcome {
    if limit.observe != 0 || host_observes {
        Outcome::Observe
    } else if limit.action == Action::Reject as u8 {
        Outcome::Reject
    } else {
        Outcome::Drop
    }
}
