//! What a packet asks of each of its limits.

use super::{Charge, Clock, Table};
use crate::{
    connections::{self, Room},
    gcra::Ticks,
    guarantees::Guaranteed,
    handshakes::Asking,
    hash::Secret,
    packet::Packet,
    proven::Claim,
    records::{Home, Limit, NONE, PROVEN_LINES, Region, SourceEntry, Terms, Whose, override_key},
    table::{OPEN_WAYS, Request, WAYS},
    turns::Turns,
};

/// What a packet asks of each of its limits. Plain words, because it may wait in a map.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub(super) whose: Whose,
    pub(super) secret: Secret,
    pub(super) ways: u32,
    /// Bytes of the frame.
    pub length: u32,
    pub(super) opens_connection: bool,
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

    /// What a packet of `length` bytes asks that opens a connection, from the same source.
    #[inline(always)]
    #[must_use]
    pub const fn opening(self, length: u32) -> Self {
        Self { length, opens_connection: true, ..self }
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

    /// How many units of a limit the packet is; `None` where the limit does not count it.
    #[inline(always)]
    pub fn units(&self, limit: &Limit) -> Option<u32> {
        limit.units(self.length, self.opens_connection)
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
        if self.region(limit).sets == 0 || limit.is_shared() {
            None
        } else {
            Some(limit.aggregate(&self.whose, self.secret))
        }
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

    /// Where its source's next connection has its place under a limit on open connections that is `depth` deep for it.
    pub fn room<T: Table>(&self, limit: &Limit, depth: Ticks, table: &T) -> Option<Room> {
        connections::room(limit, &self.whose, self.secret, depth, table)
    }

    /// Whether the packet asks for a connection.
    #[inline(always)]
    pub fn opens_connection(&self) -> bool {
        self.opens_connection
    }

    /// What the question means to a set.
    #[inline(always)]
    pub fn request(&self, charge: &Charge, limit: &Limit) -> Request {
        Request { depth: self.guaranteed.room(limit, charge.depth), ..charge.request() }
    }

    /// The set of a charge, where buckets have two words.
    #[inline(always)]
    pub fn turns<'c, T: Table>(&self, charge: &'c Charge, limit: &Limit, table: &T) -> Option<Turns<'c, T::Set>> {
        let second = table.set(charge.place + limit.region(self.whose.family).sets)?;
        Some(Turns::of(table.set(charge.place)?, second, &charge.window))
    }

    /// Whether its source completed a handshake lately.
    #[inline(always)]
    pub(super) fn is_proven<T: Table, C: Clock>(&self, table: &T, clock: &mut C) -> bool {
        table.remembers(self.claim(), clock)
    }
}
