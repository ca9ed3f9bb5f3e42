//! Open connections: a bucket whose clock stands still.
//!
//! A limit of N connections at once is a bucket that holds N places. A connection takes one when its handshake completes
//! and gives it back when it closes; nothing flows in meanwhile. That is [`crate::gcra`] at the instant 0 with a price of
//! one place, so the table of buckets ([`crate::table`]) keeps these counts as it keeps all others: a source without
//! connections owes nothing and needs no slot, and no slot is given up that holds a place.

use crate::{
    gcra::{self, Price, Ticks},
    handshakes::Asking,
    hash::Secret,
    limits::Table,
    packet::{Family, Packet, Part, protocol},
    records::{CONNECTION_LIMITS, Connection, Ends, Hold, Home, Limit, NO_LIMIT, Whose},
    table::{Check, Look, Request, WAYS, check, is_lock},
    words::{Overflow, Reason},
};

/// The instant at which every count of connections is read.
pub const STANDING: Ticks = 0;

/// What one connection owes; even, as every cost is.
pub const PLACE: Ticks = 2;

/// The price of a connection.
pub const PRICE: Price = Price { mantissa: PLACE, shift: 0 };

/// The most connections that a limit can allow.
pub const MOST: u32 = 10_000_000;

/// How deep the bucket of a limit of so many connections is.
pub const fn depth(connections: u32) -> Ticks {
    connections as Ticks * PLACE
}

/// How many places a bucket has given out.
#[inline(always)]
pub const fn taken(bucket: Ticks) -> u64 {
    bucket / PLACE
}

/// Where the next connection of a source has its place under a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// In the source's own bucket, or one that is free for it; so many places of it are taken.
    Own(u64),
    /// In the bucket of its aggregate, because none is free for it; likewise.
    Shared(u64),
    /// Nowhere, and it passes uncounted.
    Uncounted,
    /// Nowhere, and it is refused.
    Nowhere,
}

impl Room {
    /// Whether others have it too, and so by the terms that all have.
    #[inline(always)]
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::Shared(_))
    }

    /// Why a SYN of the source is refused, of which `cell` says what it has asked for, where so many are `allowed` there. A
    /// SYN is only a claim and takes nothing; it is refused where the completed handshake would be, so that nobody believes
    /// himself connected.
    #[inline(always)]
    pub const fn refusal(self, asking: Asking, cell: u64, now_nanos: u64, allowed: u64) -> Option<Reason> {
        let (taken, reason) = match self {
            Self::Own(taken) => (taken, Reason::ConnectionLimit),
            Self::Shared(taken) => (taken, Reason::SourceOverflow),
            Self::Uncounted => return None,
            Self::Nowhere => return Some(Reason::SourceOverflow),
        };
        if asking.begin(cell, now_nanos, taken, allowed).is_some() { None } else { Some(reason) }
    }

    /// Whether the connection is counted: only then is it noted that it was asked for.
    #[inline(always)]
    pub const fn counts(self) -> bool {
        matches!(self, Self::Own(_) | Self::Shared(_))
    }
}

/// Looks where the next connection of a source has its place under a limit that is `depth` deep for it. Takes none. `None`
/// where the limit has nothing to do with the source.
///
/// Whoever completes a handshake is proven by that, so all ways are its.
#[inline(always)]
pub fn room<T: Table>(limit: &Limit, whose: &Whose, secret: Secret, depth: Ticks, table: &T) -> Option<Room> {
    let Home { key, set } = limit.home(whose, secret)?;
    let set = table.set(set)?;
    let request = Request { key, now: STANDING, cost: PLACE, depth, ways: WAYS };
    if !matches!(check(&set, &request), Check::Full) {
        return Some(Room::Own(open(&set, key)));
    }
    if limit.overflow == Overflow::Refuse as u8 {
        return Some(Room::Nowhere);
    }
    if limit.overflow != Overflow::Aggregate as u8 {
        return Some(Room::Uncounted);
    }
    let place = limit.aggregate(whose, secret);
    Some(Room::Shared(taken(gcra::debt(table.aggregate(place)?, STANDING))))
}

/// How many places a source has in its set. Where they are an aggregate's, none.
#[inline(always)]
pub fn open<S: Look>(set: &S, key: u64) -> u64 {
    let mut way = 0;
    while way < WAYS {
        let bucket = set.tat(way);
        // One that is being taken over for another source was full.
        if set.key(way) == key && !is_lock(bucket) {
            return taken(gcra::debt(bucket, STANDING));
        }
        way += 1;
    }
    0
}

impl Ends {
    /// The family of its addresses.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        if self.family == Family::V4 as u8 { Family::V4 } else { Family::V6 }
    }

    /// A packet from who opened it.
    #[inline(always)]
    pub fn packet(&self) -> Packet {
        Packet {
            family: self.family(),
            source: self.source,
            destination: self.destination,
            protocol: protocol::TCP,
            part: Part::Whole,
            source_port: self.source_port,
            destination_port: self.destination_port,
            ..Packet::default()
        }
    }
}

impl Hold {
    /// No place.
    pub const NONE: Self = Self { key: 0, place: 0, way: 0, limit: NO_LIMIT };

    /// Whether it stands for a place.
    #[inline(always)]
    pub const fn is_some(&self) -> bool {
        self.limit != NO_LIMIT
    }

    /// Whether the place is in an aggregate's bucket.
    #[inline(always)]
    pub const fn in_aggregate(&self) -> bool {
        self.way == Self::AGGREGATE
    }

    /// Stands in for the way where the place is in an aggregate's bucket.
    pub const AGGREGATE: u16 = u16::MAX;
}

impl Connection {
    /// One that nothing is known of.
    pub const NEW: Self = Self {
        since: 0,
        state: Self::ENTERING,
        seen: 0,
        said: [0; 2],
        closing: [0; 2],
        padding: [0; 2],
        acknowledged: 0,
        holds: [Hold::NONE; CONNECTION_LIMITS],
    };

    /// The place that it holds under a limit.
    pub fn hold(&self, limit: u16) -> Option<&Hold> {
        self.holds.iter().find(|hold| hold.is_some() && hold.limit == limit)
    }
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
