//! One limit and the table: where a source's bucket lies, whether it has room, and the charge.

use throttle_common::{
    connections::{PLACE, taken},
    gcra::{self, MAX_DEPTH, Ticks},
    handshakes::Asking,
    hash::Secret,
    packet::{Family, Packet},
    proven::Claim,
    records::{Address, Hold, Limit, PROVEN_LINES, Slot},
    table::{Check, Commit, OPEN_WAYS, Request, Set, TRIES, WAYS, check, commit},
    words::{Overflow, Reason, Unit},
};

use crate::{
    atomic,
    clock::Clock,
    connections::Step,
    tables::{AGGREGATES, BUCKETS, HANDSHAKES, InForce, PROVEN},
};

/// What a packet asks of each of its limits. Plain words, because it may wait in a map.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Question {
    source: Address,
    secret: Secret,
    ways: u32,
    /// Bytes of the frame.
    pub length: u32,
    step: Step,
    family: Family,
    padding: [u8; 3],
}

impl Question {
    /// The question that `packet` puts.
    #[inline(always)]
    pub fn about(packet: &Packet, length: u32, step: Step, proven: bool, in_force: &InForce) -> Self {
        // Who completes a handshake is proven by that.
        let proven = proven || matches!(step, Step::Completes | Step::Open);
        Self {
            source: packet.source,
            secret: in_force.control.secret,
            ways: if proven { WAYS } else { OPEN_WAYS } as u32,
            length,
            step,
            family: packet.family,
            padding: [0; 3],
        }
    }

    /// Whether its packet completes a handshake.
    #[inline(always)]
    pub fn completes(&self) -> bool {
        matches!(self.step, Step::Completes)
    }

    /// Whether a limit has a say in its packet.
    #[inline(always)]
    fn concerns(&self, limit: &Limit) -> bool {
        if limit.is_concurrency() {
            !matches!(self.step, Step::None)
        } else {
            limit.unit != Unit::Connections as u8 || matches!(self.step, Step::Asks)
        }
    }

    #[inline(always)]
    fn request(&self, charge: &Charge, limit: &Limit, clock: &mut Clock) -> Request {
        let ways = charge.ways as usize;
        Request { key: charge.key, now: now(limit, clock), cost: charge.cost, depth: self.depth(limit), ways }
    }

    /// How deep the bucket is: what is open is counted also beyond the limit.
    #[inline(always)]
    fn depth(&self, limit: &Limit) -> Ticks {
        if matches!(self.step, Step::Open) { MAX_DEPTH } else { limit.depth }
    }

    /// Whether its source completed a handshake lately.
    #[inline(always)]
    fn is_proven(&self, clock: &mut Clock) -> bool {
        let claim = Claim::of(self.source, self.family, PROVEN_LINES, self.secret);
        PROVEN.get(claim.line).is_some_and(|line| claim.holds(line, clock.nanos()))
    }
}

/// What the limit's clock reads.
#[inline(always)]
fn now(limit: &Limit, clock: &mut Clock) -> Ticks {
    if limit.is_concurrency() { limit.reading(0) } else { clock.ticks() }
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
/// The cell of what the source asks for; `way` connections of it were open when it was read.
const ASKING: u32 = 5;

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

    /// The place that was taken under the limit of this number.
    #[inline(always)]
    pub fn hold(&self, limit: u32) -> Option<Hold> {
        let way = match self.kind {
            HELD => self.way as u16,
            AGGREGATE => Hold::AGGREGATE,
            _ => return None,
        };
        Some(Hold { key: self.key, place: self.place, way, limit: limit as u16 })
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
    if region.sets == 0 || !question.concerns(limit) {
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
    if limit.is_concurrency() && matches!(question.step, Step::Asks) {
        return ask(limit, question, clock, charge, seen);
    }
    match seen {
        Check::Held { way, seen } => charge.aim(HELD, way, seen),
        Check::Free { way, seen } => charge.aim(FREE, way, seen),
        Check::Exceeded => return Some(exceeded(limit)),
        Check::Full => return overflow(limit, question, clock, charge),
    }
    None
}

/// Why a limit refuses whose bucket is empty.
#[inline(always)]
fn exceeded(limit: &Limit) -> Reason {
    if limit.is_concurrency() { Reason::ConnectionLimit } else { Reason::SourceLimit }
}

/// Looks whether the source may ask for one connection more; `seen` is what it holds.
#[inline(always)]
fn ask(limit: &Limit, question: &Question, clock: &mut Clock, charge: &mut Charge, seen: Check) -> Option<Reason> {
    let open = match seen {
        Check::Held { seen, .. } => taken(seen),
        Check::Exceeded => return Some(Reason::ConnectionLimit),
        // Where its places are an aggregate's, the completed handshake decides.
        Check::Free { .. } | Check::Full => 0,
    };
    let asking = asking(limit, question, charge);
    let cell = HANDSHAKES.get_ptr_mut(asking.cell)?;
    // SAFETY: an element of the map.
    let cell = unsafe { atomic::load(cell) };
    if asking.begin(cell, clock.nanos(), open, limit.depth / PLACE).is_none() {
        return Some(Reason::ConnectionLimit);
    }
    charge.aim(ASKING, open as usize, cell);
    None
}

#[inline(always)]
fn asking(limit: &Limit, question: &Question, charge: &Charge) -> Asking {
    Asking::of(charge.key, limit.region(question.family).base, question.secret)
}

/// Notes what the source asks for, or that one of its handshakes has come to an end. After [`TRIES`] lost races it is
/// not noted: the completed handshake decides.
#[inline(always)]
fn note(asking: Asking, next: impl Fn(u64) -> Option<u64>) -> bool {
    let Some(cell) = HANDSHAKES.get_ptr_mut(asking.cell) else { return true };
    // SAFETY: an element of the map.
    let mut seen = unsafe { atomic::load(cell) };
    for _ in 0..TRIES {
        let Some(next) = next(seen) else { return false };
        // SAFETY: an element of the map.
        let (done, found) = unsafe { atomic::swap(cell, seen, next) };
        if done {
            break;
        }
        seen = found;
    }
    true
}

/// Makes the charge that was noted. What changed since is looked at again; a refusal leaves nothing charged.
#[inline(always)]
pub fn settle(limit: &Limit, question: &Question, clock: &mut Clock, charge: &mut Charge) -> Option<Reason> {
    let way = charge.way as usize;
    let seen = match charge.kind {
        HELD => Check::Held { way, seen: charge.seen },
        FREE => Check::Free { way, seen: charge.seen },
        AGGREGATE => return settle_aggregate(limit, question, clock, charge),
        ASKING => {
            let (asking, now) = (asking(limit, question, charge), clock.nanos());
            let (open, most) = (u64::from(charge.way), limit.depth / PLACE);
            let noted = note(asking, |cell| asking.begin(cell, now, open, most));
            return (!noted).then_some(Reason::ConnectionLimit);
        }
        _ => return None,
    };
    let set = MapSet::at(charge.place)?;
    match commit(&set, &question.request(charge, limit, clock), seen) {
        Commit::Charged(way) => {
            charge.aim(HELD, way, 0);
            if limit.is_concurrency() {
                let (asking, now) = (asking(limit, question, charge), clock.nanos());
                note(asking, |cell| Some(asking.complete(cell, now)));
            }
            None
        }
        Commit::Exceeded => Some(exceeded(limit)),
        Commit::Full => match overflow(limit, question, clock, charge) {
            None if charge.kind == AGGREGATE => settle_aggregate(limit, question, clock, charge),
            refusal => refusal,
        },
    }
}

/// Takes a charge back. A SYN that was noted stays so: it is doubted after a second.
#[inline(always)]
pub fn take_back(charge: &Charge) {
    match charge.kind {
        HELD => refund(charge.place, charge.way as usize, charge.key, charge.cost),
        AGGREGATE => refund_aggregate(charge.place, charge.cost),
        _ => {}
    }
}

/// Gives a connection's place back.
#[inline(always)]
pub fn give_back(hold: &Hold) {
    if !hold.is_some() {
        return;
    }
    if hold.in_aggregate() {
        refund_aggregate(hold.place, PLACE);
    } else {
        refund(hold.place, hold.way.into(), hold.key, PLACE);
    }
}

/// Only while the slot is still whose it was: where policy has given the region away, there is nothing left to refund.
#[inline(always)]
fn refund(place: u32, way: usize, key: u64, cost: Ticks) {
    if let Some(set) = MapSet::at(place)
        && set.key(way) == key
    {
        set.refund(way, cost);
    }
}

#[inline(always)]
fn refund_aggregate(place: u32, cost: Ticks) {
    if let Some(cell) = AGGREGATES.get_ptr_mut(place) {
        // SAFETY: an element of the map.
        unsafe { atomic::subtract(cell, cost) };
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
    if gcra::admit(seen, now(limit, clock), charge.cost, question.depth(limit)).is_none() {
        return Some(Reason::SourceOverflow);
    }
    charge.aim(AGGREGATE, 0, seen);
    None
}

/// Charges the aggregate. After [`TRIES`] lost races it admits uncharged: the contention is not one source's.
#[inline(always)]
fn settle_aggregate(limit: &Limit, question: &Question, clock: &mut Clock, charge: &mut Charge) -> Option<Reason> {
    let cell = AGGREGATES.get_ptr_mut(charge.place)?;
    let mut seen = charge.seen;
    for _ in 0..TRIES {
        let admitted = gcra::admit(seen, now(limit, clock), charge.cost, question.depth(limit));
        let Some(next) = admitted else {
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
