//! One limit and the table in map memory: the charge that [`throttle_common::limits::weigh`] noted is made, or taken back.

use throttle_common::{
    gcra::{self, Ticks},
    limits::{self, Charge, FLOWING, Question, SLIDING, Table, overflow},
    proven::Claim,
    records::{Limit, Slot, Terms},
    table::{Add, Check, Commit, LATE, Look, Set, WAYS, attempt, commit_among},
    words::Reason,
};

use super::lease;
use crate::{
    atomic,
    tables::{AGGREGATES, BUCKETS, OVERRIDES, PROVEN},
};

/// Makes the charge that was noted. What changed since is looked at again; a refusal leaves nothing charged.
#[inline(always)]
pub fn settle<const PACE: u8>(limit: &Limit, question: &Question, charge: &mut Charge) -> Option<Reason> {
    let Some(seen) = seen(charge) else { return settle_shared::<PACE>(limit, question, charge) };
    match commit_among(&Maps.set(charge.place)?, &question.request(charge, limit), seen, late_of_many::<PACE>(limit)) {
        Commit::Charged(way) => {
            charge.aim(Charge::HELD, way, 0);
            None
        }
        Commit::Exceeded | Commit::Contended(_) => limits::exceeded(limit, question, charge),
        Commit::Full => settle_shared::<PACE>(limit, question, charge),
    }
}

/// [`Limit::late`], which is known where clocks flow.
#[inline(always)]
fn late<const PACE: u8>(limit: &Limit) -> Ticks {
    match PACE {
        FLOWING => LATE,
        SLIDING => 0,
        _ => limit.late(),
    }
}

/// The same where many share the limit's buckets.
#[inline(always)]
fn late_of_many<const PACE: u8>(limit: &Limit) -> Option<Ticks> {
    if limit.is_shared() { Some(late::<PACE>(limit)) } else { None }
}

/// Makes the charge of a plain limit, once; `false` where the bucket has changed since, or is no slot's.
#[inline(always)]
pub fn settle_at_once(charge: &mut Charge) -> bool {
    let Some(seen) = seen(charge) else { return false };
    let way = Maps.set(charge.place).and_then(|set| attempt(&set, &charge.request(), seen));
    if let Some(way) = way {
        charge.aim(Charge::HELD, way, 0);
    }
    way.is_some()
}

/// Makes the charge where buckets have two words; [`Commit::Full`] where what remains is for [`settle_shared`].
#[inline(always)]
pub fn settle_sliding(limit: &Limit, question: &Question, charge: &mut Charge) -> Option<Commit> {
    let Some(seen) = seen(charge) else { return Some(Commit::Full) };
    let request = question.request(charge, limit);
    let settled = commit_among(&question.turns(charge, limit, &Maps)?, &request, seen, late_of_many::<SLIDING>(limit));
    if let Commit::Charged(way) = settled {
        charge.aim(Charge::HELD, way, 0);
    }
    Some(settled)
}

/// What was seen of the source's set; `None` where the charge is no slot's.
#[inline(always)]
pub fn seen(charge: &Charge) -> Option<Check> {
    let way = charge.way as usize;
    match charge.kind {
        Charge::HELD => Some(Check::Held { way, seen: charge.seen }),
        Charge::FREE => Some(Check::Free { way, seen: charge.seen }),
        _ => None,
    }
}

/// Makes a charge that is no slot's, or whose slot is gone.
#[inline(always)]
pub fn settle_shared<const PACE: u8>(limit: &Limit, question: &Question, charge: &mut Charge) -> Option<Reason> {
    if seen(charge).is_some()
        && let Some(reason) = overflow::<PACE, _>(limit, question, &Maps, charge)
    {
        return Some(reason);
    }
    if charge.kind == Charge::AGGREGATE { settle_aggregate::<PACE>(limit, charge) } else { None }
}

/// Takes a charge back.
#[inline(always)]
pub fn take_back(charge: &Charge) {
    match charge.kind {
        Charge::HELD => {
            if let (Some(set), Some(words)) = (Maps.set(charge.place), Maps.set(charge.words))
                && set.key(charge.way as usize) == charge.key
            {
                words.refund(charge.way as usize, charge.cost);
            }
        }
        Charge::AGGREGATE => {
            if let Some(cell) = AGGREGATES.get_ptr_mut(charge.place) {
                // SAFETY: an element of the map.
                unsafe { atomic::subtract(cell, charge.cost) };
            }
        }
        Charge::LEASED => lease::take_back(charge),
        _ => {}
    }
}

/// Charges the aggregate, which many share: by addition where others were faster, which loses no race while there is room.
#[inline(always)]
fn settle_aggregate<const PACE: u8>(limit: &Limit, charge: &mut Charge) -> Option<Reason> {
    let cell = AGGREGATES.get_ptr_mut(charge.place)?;
    let Charge { seen, now, cost, depth, .. } = *charge;
    let Some(next) = gcra::admit(seen, now, cost, depth) else { return Some(Reason::SourceOverflow) };
    // SAFETY: an element of the map.
    if unsafe { atomic::swap(cell, seen, next) }.0 {
        return None;
    }
    // SAFETY: likewise.
    let seen = unsafe { atomic::add(cell, cost) };
    if gcra::adds_up(seen, now, cost, depth, late::<PACE>(limit)) {
        return None;
    }
    // SAFETY: likewise.
    unsafe { atomic::subtract(cell, cost) };
    Some(Reason::SourceOverflow)
}

/// The table, the aggregates and the handshakes, in their maps.
pub struct Maps;

impl Table for Maps {
    type Set = MapSet;

    #[inline(always)]
    fn set(&self, place: u32) -> Option<MapSet> {
        BUCKETS.get_ptr_mut(place).map(MapSet)
    }

    #[inline(always)]
    fn aggregate(&self, place: u32) -> Option<Ticks> {
        let cell = AGGREGATES.get_ptr_mut(place)?;
        // SAFETY: an element of the map.
        Some(unsafe { atomic::load(cell) })
    }

    #[inline(always)]
    fn terms(&self, key: u64) -> Option<Terms> {
        // SAFETY: an entry is written before any packet asks for it, and changed or removed only when none does any more.
        unsafe { OVERRIDES.get(&key) }.copied()
    }

    #[inline(always)]
    fn remembers<C: limits::Clock>(&self, claim: Claim, clock: &mut C) -> bool {
        PROVEN.get(claim.line).is_some_and(|line| claim.holds(line, clock.nanos()))
    }
}

/// A set of the table in map memory.
#[derive(Clone, Copy)]
pub struct MapSet(*mut [Slot; WAYS]);

impl MapSet {
    /// The set that an element of a map of sets is.
    #[inline(always)]
    pub fn of(set: *mut [Slot; WAYS]) -> Self {
        Self(set)
    }

    #[inline(always)]
    fn slot(&self, way: usize) -> *mut Slot {
        // SAFETY: within the set, whatever the way.
        unsafe { self.0.cast::<Slot>().add(way & (WAYS - 1)) }
    }
}

// SAFETY (every block below): a word of a slot in the map, aligned to 8.
impl Look for MapSet {
    #[inline(always)]
    fn key(&self, way: usize) -> u64 {
        // SAFETY: see above.
        unsafe { atomic::load(&raw const (*self.slot(way)).key) }
    }

    #[inline(always)]
    fn tat(&self, way: usize) -> Ticks {
        // SAFETY: see above.
        unsafe { atomic::load(&raw const (*self.slot(way)).tat) }
    }
}

// SAFETY (every block below): likewise.
impl Set for MapSet {
    #[inline(always)]
    fn set_key(&self, way: usize, key: u64) {
        // SAFETY: see above.
        unsafe { (&raw mut (*self.slot(way)).key).write_volatile(key) }
    }

    #[inline(always)]
    fn swap_tat(&self, way: usize, old: Ticks, new: Ticks) -> bool {
        // SAFETY: see above.
        unsafe { atomic::swap(&raw mut (*self.slot(way)).tat, old, new) }.0
    }

    #[inline(always)]
    fn refund(&self, way: usize, cost: Ticks) {
        // SAFETY: see above.
        unsafe { atomic::subtract(&raw mut (*self.slot(way)).tat, cost) };
    }
}

impl Add for MapSet {
    #[inline(always)]
    fn add(&self, way: usize, cost: Ticks) -> Ticks {
        // SAFETY: see above.
        unsafe { atomic::add(&raw mut (*self.slot(way)).tat, cost) }
    }
}
