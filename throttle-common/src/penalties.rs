//! Whom a limit refuses again and again: its refusals of a source, counted until they are as many as policy bears.
//!
//! A count is one word: how many refusals there were, and when they are forgotten, which is a fixed time after the first of
//! them. So whoever is refused `after` times is known to have been so within that time: nobody else ever trips a penalty,
//! however long it is refused. Whoever is refused `after` times in that time trips it, unless some of these refusals fall to
//! the count before; at twice that rate, it always does.
//!
//! Counts lie in sets of four ([`crate::table::Look`]) in a table of their own, which limits share: a count that is over is
//! a free slot. Who finds none is not counted until one is, so that a flood of sources makes nobody forgotten.

use crate::{
    hash::{self, Secret},
    records::NAME,
    table::{Look, WAYS},
};

/// Sets of the table: 2 MiB, with room for 131 072 sources that are being refused.
pub const SETS: u32 = 1 << 15;
/// The most refusals that a penalty may bear.
pub const MOST: u32 = 1_000_000;
/// The longest time in which they are counted: a day, in milliseconds.
pub const LONGEST_MILLIS: u64 = 86_400_000;

/// Times are in units of 2^16 ns, 65.5 µs, modulo 2^40: 2.28 years.
const UNIT: u32 = 16;
const TIMES: u64 = (1 << 40) - 1;
/// The lower bits of a word are the count.
const COUNT: u32 = 24;
const COUNTS: u64 = (1 << COUNT) - 1;
const _: () = assert!((MOST as u64) < COUNTS);

/// A time in the units of [`crate::records::Penalty::within`], at least one.
pub const fn units(millis: u64) -> u32 {
    let units = (millis * 1_000_000) >> UNIT;
    if units == 0 { 1 } else { units as u32 }
}

/// The key of a source under one penalty: sources that differ have different ones.
#[inline(always)]
pub const fn key(source: u64, salt: u64, secret: Secret) -> u64 {
    hash::mix(source, [secret[0] ^ salt, secret[1]])
}

/// What tells one limit's counts from another's, and from those of the same limit under another penalty.
pub fn salt(name: &[u8; NAME], after: u32, within: u32) -> u64 {
    let mut words = [0; NAME / 8 + 1];
    for (place, byte) in name.iter().enumerate() {
        words[place / 8] |= u64::from(*byte) << (place % 8 * 8);
    }
    words[NAME / 8] = u64::from(after) << 32 | u64::from(within);
    hash::siphash(words, [0; 2])
}

/// How many refusals a word counts at an instant: 0 where it is over, or never began.
#[inline(always)]
pub const fn count(word: u64, now_nanos: u64) -> u32 {
    if is_over(word, now_nanos) { 0 } else { (word & COUNTS) as u32 }
}

/// Nanoseconds until they are forgotten.
pub const fn rest(word: u64, now_nanos: u64) -> u64 {
    if is_over(word, now_nanos) { 0 } else { ahead(word, now_nanos) << UNIT }
}

/// What a word becomes that counts one refusal more.
#[inline(always)]
pub const fn step(word: u64, now_nanos: u64, within: u32) -> u64 {
    if is_over(word, now_nanos) {
        begin(now_nanos, within)
    } else if word & COUNTS == COUNTS {
        word
    } else {
        word + 1
    }
}

/// A word that counts a first refusal.
#[inline(always)]
pub const fn begin(now_nanos: u64, within: u32) -> u64 {
    ((now_nanos >> UNIT).wrapping_add(within as u64) & TIMES) << COUNT | 1
}

#[inline(always)]
const fn ahead(word: u64, now_nanos: u64) -> u64 {
    (word >> COUNT).wrapping_sub(now_nanos >> UNIT) & TIMES
}

/// Whether nothing is counted any more. What ends further ahead than any count does ended before the clock wrapped.
#[inline(always)]
const fn is_over(word: u64, now_nanos: u64) -> bool {
    let ahead = ahead(word, now_nanos);
    word & COUNTS == 0 || ahead == 0 || ahead > units(LONGEST_MILLIS) as u64
}

/// The slot of a set in which a source is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its place in the set; [`WAYS`] where there is none, because others are counted in all.
    pub way: usize,
    /// The word in it.
    pub seen: u64,
    /// Whether it is the source's already.
    pub own: bool,
}

impl Place {
    /// Whether it is none. (An `Option` would leave the kernel's verifier with registers that nobody has written.)
    #[inline(always)]
    pub const fn is_none(&self) -> bool {
        self.way >= WAYS
    }
}

/// Where a source is counted, or could be.
#[inline(always)]
pub fn seek(set: &impl Look, key: u64, now_nanos: u64) -> Place {
    let mut free = Place { way: WAYS, seen: 0, own: false };
    let mut way = 0;
    while way < WAYS {
        let seen = set.tat(way);
        if set.key(way) == key {
            return Place { way, seen, own: true };
        }
        if free.is_none() && is_over(seen, now_nanos) {
            free = Place { way, seen, own: false };
        }
        way += 1;
    }
    free
}

#[cfg(test)]
#[path = "penalties_tests.rs"]
mod tests;
