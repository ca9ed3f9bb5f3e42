//! One limit and the table: where a source's bucket lies, whether it has room, and the charge.

use throttle_common::{
    gcra::{self, Ticks},
    hash::Secret,
    packet::{Family, Packet},
    proven::Claim,
    records::{Address, Limit, PROVEN_LINES, Slot},
    table::{Check, Commit, OPEN_WAYS, Request, Set, TRIES, WAYS, check, commit},
    words::{Overflow, Reason, Unit},
};

use crate::{
    atomic,
    clock::Clock,
    tables::{AGGREGATES, BUCKETS, InForce, PROVEN},
};

/// What a packet asks of each of its limits. Plain words, because it may wait in a map.
#[repr(C)]
pub struct Question {
    source: Address,
    secret: Secret,
    ways: u32,
    /// Bytes of the frame.
    pub length: u32,
    family: Family,
    opens_connection: bool,
}

impl Question {
    /// The question that `packet` puts.
    #[inline(always)]
    pub fn about(packet: &Packet, length: u32, proven: bool, in_force: &InForce) -> Self {
        Self {
            source: packet.source,
            secret: in_force.control.secret,
            ways: if proven { WAYS } else { OPEN_WAYS } as u32,
            length,
            family: packet.family,
            opens_connection: packet.opens_connection(),
        }
    }

    #[inline(always)]
    fn request(&self, charge: &Charge, limit: &Limit, clock: &mut Clock) -> Request {
        let ways = charge.ways as usize;
        Request { key: charge.key, now: clock.ticks(), cost: charge.cost, depth: limit.depth, ways }
    }

    /// Whether its source completed a handshake lately.
    #[inline(always)]
    fn is_proven(&self, clock: &mut Clock) -> bool {
        let claim = Claim::of(self.source, self.family, PROVEN_LINES, self.secret);
        PROVEN.get(claim.line).is_some_and(|line| claim.holds(line, clock.nanos()))
    }
}

/// What a limit is to be charged for a packet. Plain words, because it may wait in a map.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Charge {
    /// The source's key, where the charge is to a slot.
    key: u64,
    /// The bucket as it was read.
    seen: u64,
    cost: Ticks,
    /// The set, or the aggregate.
    place: u32,
    way: u32,
    /// The ways that the source may take.
    ways: u32,
    kind: u32,
    overflowed: u32,
    padding: u32,
}

/// The limit is not asked.
const UNASKED: u32 = 0;
/// The limit lets the packet pass and remembers nothing.
const UNCHARGED: u32 = 1;
/// The source's slot, which had room when it was read.
const HELD: u32 = 2;
/// A free slot for the source to take over.
const FREE: u32 = 3;
/// The aggregate's bucket, which had room when it was read.
const AGGREGATE: u32 = 4;

impl Charge {
    /// No charge.
    pub const NOTHING: Self =
        Self { key: 0, seen: 0, cost: 0, place: 0, way: 0, ways: 0, kind: UNASKED, overflowed: 0, padding: 0 };

    /// Forgets the charge.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.kind = UNASKED;
        self.overflowed = 0;
    }

    /// Whether the limit has a say in this packet.
    #[inline(always)]
    pub fn asked(&self) -> bool {
        self.kind != UNASKED
    }

    /// Whether the region had no room for the source.
    #[inline(always)]
    pub fn overflowed(&self) -> bool {
        self.overflowed != 0
    }
}

/// Looks whether the limit admits the packet, and notes in `charge` what that would cost. Writes to no bucket.
///
/// `None` where nothing refuses; so too where a place lies outside of the table, which no compiled policy has.
#[inline(always)]
pub fn weigh(limit: &Limit, question: &Question, clock: &mut Clock, charge: &mut Charge) -> Option<Reason> {
    let region = limit.region(question.family);
    if region.sets == 0 || (limit.unit == Unit::Connections as u8 && !question.opens_connection) {
        return None;
    }
    let units = if limit.unit == Unit::Bytes as u8 { question.length } else { 1 };
    charge.cost = limit.price.cost(units);
    charge.key = region.key(question.source, question.family, question.secret);
    charge.place = region.set(charge.key, question.secret);
    charge.ways = question.ways;
    let set = MapSet::at(charge.place)?;
    let mut seen = check(&set, &question.request(charge, limit, clock));
    if matches!(seen, Check::Full) && charge.ways < WAYS as u32 && question.is_proven(clock) {
        charge.ways = WAYS as u32;
        seen = check(&set, &question.request(charge, limit, clock));
    }
    match seen {
        Check::Held { way, seen } => charge.aim(HELD, way, seen),
        Check::Free { way, seen } => charge.aim(FREE, way, seen),
        Check::Exceeded => return Some(Reason::SourceLimit),
        Check::Full => return overflow(limit, question, clock, charge),
    }
    None
}

/// Makes the charge that was noted. What changed since is looked at again; a refusal leaves nothing charged.
#[inline(always)]
pub fn settle(limit: &Limit, question: &Question, clock: &mut Clock, charge: &mut Charge) -> Option<Reason> {
    let way = charge.way as usize;
    let seen = match charge.kind {
        HELD => Check::Held { way, seen: charge.seen },
        FREE => Check::Free { way, seen: charge.seen },
        AGGREGATE => return settle_aggregate(limit, clock, charge),
        _ => return None,
    };
    let set = MapSet::at(charge.place)?;
    match commit(&set, &question.request(charge, limit, clock), seen) {
        Commit::Charged(way) => {
            charge.aim(HELD, way, 0);
            None
        }
        Commit::Exceeded => Some(Reason::SourceLimit),
        Commit::Full => match overflow(limit, question, clock, charge) {
            None if charge.kind == AGGREGATE => settle_aggregate(limit, clock, charge),
            refusal => refusal,
        },
    }
}

/// Takes a charge back.
#[inline(always)]
pub fn take_back(charge: &Charge) {
    match charge.kind {
        HELD => {
            if let Some(set) = MapSet::at(charge.place)
                && set.key(charge.way as usize) == charge.key
            {
                set.refund(charge.way as usize, charge.cost);
            }
        }
        AGGREGATE => {
            if let Some(cell) = AGGREGATES.get_ptr_mut(charge.place) {
                // SAFETY: an element of the map.
                unsafe { atomic::subtract(cell, charge.cost) };
            }
        }
        _ => {}
    }
}

/// What the limit's rule does with a source that has no place.
#[inline(always)]
fn overflow(limit: &Limit, question: &Question, clock: &mut Clock, charge: &mut Charge) -> Option<Reason> {
    charge.overflowed = 1;
    if limit.overflow == Overflow::Admit as u8 {
        charge.aim(UNCHARGED, 0, 0);
        return None;
    }
    if limit.overflow == Overflow::Refuse as u8 {
        return Some(Reason::SourceOverflow);
    }
    charge.place = limit.region(question.family).aggregate(question.source, question.family, question.secret);
    let cell = AGGREGATES.get_ptr_mut(charge.place)?;
    // SAFETY: an element of the map.
    let seen = unsafe { atomic::load(cell) };
    if gcra::admit(seen, clock.ticks(), charge.cost, limit.depth).is_none() {
        return Some(Reason::SourceOverflow);
    }
    charge.aim(AGGREGATE, 0, seen);
    None
}

/// Charges the aggregate. After [`TRIES`] lost races it admits uncharged: the contention is not one source's.
#[inline(always)]
fn settle_aggregate(limit: &Limit, clock: &mut Clock, charge: &mut Charge) -> Option<Reason> {
    let cell = AGGREGATES.get_ptr_mut(charge.place)?;
    let mut seen = charge.seen;
    for _ in 0..TRIES {
        let Some(next) = gcra::admit(seen, clock.ticks(), charge.cost, limit.depth) else {
            return Some(Reason::SourceOverflow);
        };
        // SAFETY: an element of the map.
        let (done, found) = unsafe { atomic::swap(cell, seen, next) };
        if done {
            return None;
        }
        seen = found;
    }
    charge.aim(UNCHARGED, 0, 0);
    None
}

impl Charge {
    #[inline(always)]
    fn aim(&mut self, kind: u32, way: usize, seen: u64) {
        self.kind = kind;
        self.way = way as u32;
        self.seen = seen;
    }
}

/// A set of the table in map memory.
struct MapSet(*mut [Slot; WAYS]);

impl MapSet {
    #[inline(always)]
    fn at(place: u32) -> Option<Self> {
        BUCKETS.get_ptr_mut(place).map(Self)
    }

    #[inline(always)]
    fn slot(&self, way: usize) -> *mut Slot {
        // SAFETY: within the set, whatever the way.
        unsafe { self.0.cast::<Slot>().add(way & (WAYS - 1)) }
    }
}

// SAFETY (every block below): a word of a slot in the map, aligned to 8.
impl Set for MapSet {
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
