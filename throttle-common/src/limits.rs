//! One limit and one packet: where the bucket lies, whether it has room, and what overflow does.
//!
//! [`weigh`] only looks. The kernel program asks it of its maps and then charges what it says; the agent's `explain` asks
//! it of a copy of the same bytes, at any instant. So the two cannot differ.

use crate::{
    gcra::{self, Ticks},
    guarantees::Guaranteed,
    handshakes::Asking,
    hash::Secret,
    packet::Packet,
    proven::Claim,
    records::{Home, Limit, NONE, PROVEN_LINES, Region, SourceEntry, Terms, Whose, override_key},
    table::{Check, Look, OPEN_WAYS, Request, WAYS, check},
    turns::Turns,
    windows::Sliding,
    words::{Action, Outcome, Overflow, Reason, Unit},
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
/// They flow: those of token buckets and leaky ones.
pub const FLOWING: u8 = 0;
/// They flow, or stand still while a window runs.
pub const STEPPING: u8 = 1;
/// They stand still while a window runs, and buckets have two words.
pub const SLIDING: u8 = 2;

/// What a packet asks of each of its limits. Plain words, because it may wait in a map.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Question {
    whose: Whose,
    secret: Secret,
    ways: u32,
    /// Bytes of the frame.
    pub length: u32,
    opens_connection: bool,
    /// Its class, with the generation of policy that it meets, for the terms of limits.
    class: u16,
    generation: u8,
    /// In which units it is within a guarantee, as far as it has been asked.
    pub guaranteed: Guaranteed,
}

impl Question {
    /// The question that a packet of `length` bytes puts, of whose source policy says this in its `entry`.
    #[inline(always)]
    pub fn about(packet: &Packet, length: u32, entry: Option<&SourceEntry>, generation: u32, secret: Secret) -> Self {
        let (mut ways, mut tenant, mut class) = (OPEN_WAYS, NONE, NONE);
        if let Some(entry) = entry {
            ways = if entry.knows() { WAYS } else { OPEN_WAYS };
            (tenant, class) = (entry.tenant(generation), entry.class(generation));
        }
        Self {
            whose: Whose { source: packet.source, family: packet.family, tenant },
            secret,
            ways: ways as u32,
            class,
            generation: generation as u8,
            length,
            opens_connection: packet.opens_connection(),
            guaranteed: Guaranteed::NOT,
        }
    }

    /// The part of the table in which a limit keeps sources of its family.
    pub fn region<'l>(&self, limit: &'l Limit) -> &'l Region {
        limit.region(self.whose.family)
    }

    /// The number of its tenant.
    #[inline(always)]
    pub fn tenant(&self) -> u16 {
        self.whose.tenant
    }

    /// The number of its class.
    #[inline(always)]
    pub fn class(&self) -> u16 {
        self.class
    }

    /// Where a limit keeps the bucket that the packet is charged to; `None` where it has nothing to do with it.
    #[inline(always)]
    pub fn home(&self, limit: &Limit) -> Option<Home> {
        limit.home(&self.whose, self.secret)
    }

    /// What the limit allows, if an override says so.
    #[inline(always)]
    pub fn overridden<T: Table>(&self, limit: &Limit, table: &T) -> Option<Terms> {
        if limit.overridden == 0 || self.class == NONE {
            return None;
        }
        table.terms(override_key(self.generation.into(), limit.number, self.class))
    }

    /// The aggregate's bucket that serves the source where it has no place of its own; likewise.
    #[inline(always)]
    pub fn shared(&self, limit: &Limit) -> Option<u32> {
        let Whose { source, family, .. } = self.whose;
        let region = limit.region(family);
        if region.sets == 0 || limit.is_shared() { None } else { Some(region.aggregate(source, family, self.secret)) }
    }

    /// The line that would remember a handshake of the source.
    #[inline(always)]
    pub fn claim(&self) -> Claim {
        Claim::of(self.whose.source, self.whose.family, PROVEN_LINES, self.secret)
    }

    /// Where it is noted what has been asked of a limit on open connections by those whose bucket is at `home`.
    #[inline(always)]
    pub fn asking(&self, limit: &Limit, home: Home) -> Asking {
        Asking::of(home.key, limit.region(self.whose.family).base, self.secret)
    }

    /// Whether the packet asks for a connection.
    #[inline(always)]
    pub fn opens_connection(&self) -> bool {
        self.opens_connection
    }

    /// What the question means to a set.
    #[inline(always)]
    pub fn request(&self, charge: &Charge, limit: &Limit) -> Request {
        let Charge { key, now, cost, ways, .. } = *charge;
        Request { key, now, cost, depth: self.guaranteed.room(limit, charge.depth), ways: ways as usize }
    }

    /// The set of a charge, where buckets have two words.
    #[inline(always)]
    pub fn turns<'c, T: Table>(&self, charge: &'c Charge, limit: &Limit, table: &T) -> Option<Turns<'c, T::Set>> {
        let second = table.set(charge.place + limit.region(self.whose.family).sets)?;
        Some(Turns::of(table.set(charge.place)?, second, &charge.window))
    }

    /// Whether its source completed a handshake lately.
    #[inline(always)]
    fn is_proven<T: Table, C: Clock>(&self, table: &T, clock: &mut C) -> bool {
        table.remembers(self.claim(), clock)
    }
}

/// What a limit is to be charged for a packet. Plain words, because it may wait in a map.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Charge {
    /// The source's key, where the charge is to a slot.
    pub key: u64,
    /// The bucket as it was read.
    pub seen: u64,
    /// What the limit's clock reads: once for all that is asked and charged.
    pub now: Ticks,
    /// The price of the packet.
    pub cost: Ticks,
    /// How deep the bucket is; where it is an aggregate's whose windows slide, how deep it is now.
    pub depth: Ticks,
    /// The set of the source's key, or the aggregate.
    pub place: u32,
    /// The set of the bucket: the same, but where buckets have two words.
    pub words: u32,
    /// The slot in the set.
    pub way: u32,
    /// The ways that the source may take.
    pub ways: u32,
    /// One of the kinds below.
    pub kind: u32,
    overflowed: u32,
    /// The windows at the instant of the packet, where they slide.
    pub window: Sliding,
}

/// The limit is not asked.
const UNASKED: u32 = 0;

impl Charge {
    /// The limit lets the packet pass and remembers nothing.
    pub const UNCHARGED: u32 = 1;
    /// The source's slot, which had room when it was read.
    pub const HELD: u32 = 2;
    /// A free slot for the source to take over.
    pub const FREE: u32 = 3;
    /// The aggregate's bucket, which had room when it was read.
    pub const AGGREGATE: u32 = 4;

    /// No charge.
    pub const NOTHING: Self = Self {
        key: 0,
        seen: 0,
        now: 0,
        cost: 0,
        depth: 0,
        place: 0,
        words: 0,
        way: 0,
        ways: 0,
        kind: UNASKED,
        overflowed: 0,
        window: Sliding::NONE,
    };

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

    /// Says where the charge goes.
    #[inline(always)]
    pub fn aim(&mut self, kind: u32, way: usize, seen: u64) {
        self.kind = kind;
        self.way = way as u32;
        self.seen = seen;
    }
}

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

/// What a limit says whose bucket has no room. Who is within a guarantee passes all the same.
#[inline(always)]
pub fn exceeded(limit: &Limit, question: &Question, charge: &mut Charge) -> Option<Reason> {
    if question.guaranteed.within(limit) {
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
    let Terms { price, depth } = question.overridden(limit, table).unwrap_or(limit.terms());
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
    if limit.unit == Unit::Connections as u8 && !question.opens_connection {
        return None;
    }
    let Home { key, set } = question.home(limit)?;
    (charge.key, charge.place, charge.words) = (key, set, set);
    // Who shares a bucket has it whoever else there is.
    charge.ways = if limit.is_shared() { WAYS as u32 } else { question.ways };
    Some(if limit.unit == Unit::Bytes as u8 { question.length } else { 1 })
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
        // Others change the bucket faster than this packet can.
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
    let Whose { source, family, .. } = question.whose;
    let region = limit.region(family);
    charge.place = region.aggregate(source, family, question.secret);
    if PACE == SLIDING {
        let (running, before) = charge.window.turn(charge.place, charge.place + region.sets);
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
