//! Open connections: a bucket whose clock stands still.
//!
//! A limit of N connections at once is a bucket that holds N places. A connection takes one when its handshake completes
//! and gives it back when it closes; nothing flows in meanwhile. That is [`crate::gcra`] at the instant 0 with a price of
//! one place, so the table of buckets ([`crate::table`]) keeps these counts as it keeps all others: a source without
//! connections owes nothing and needs no slot, and no slot is given up that holds a place.

use crate::{
    gcra::{self, Price, Ticks},
    records::{CONNECTION_LIMITS, Connection, Hold, NO_LIMIT},
    table::{Look, WAYS},
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

/// How many places a source has in its set. Where they are an aggregate's, none: the completed handshake decides.
#[inline(always)]
pub fn open<S: Look>(set: &S, key: u64) -> u64 {
    let mut way = 0;
    while way < WAYS {
        if set.key(way) == key {
            return taken(gcra::debt(set.tat(way), STANDING));
        }
        way += 1;
    }
    0
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
