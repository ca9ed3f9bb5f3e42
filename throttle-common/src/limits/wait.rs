//! How long a source that a limit refuses is to wait.

use super::{Question, Table};
use crate::{
    gcra::{self, Ticks},
    records::Limit,
    table::{Look, WAYS, is_lock},
    windows::Sliding,
};

/// What a limit's bucket owes, and what a packet would add. Plain words, because it may wait in a map.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Owed {
    /// The bucket; of one of two words, the first and the second.
    words: [Ticks; 2],
    cost: Ticks,
    depth: Ticks,
}

impl Owed {
    /// What is owed to a limit by those whose bucket the packet would be charged to; `None` where the limit has no say in it,
    /// and where time alone makes no room: connections that are open close when they do.
    #[inline(always)]
    pub fn to<T: Table>(limit: &Limit, question: &Question, table: &T) -> Option<Self> {
        if limit.is_guarantee() || limit.is_concurrency() {
            return None;
        }
        let (units, home) = (question.units(limit)?, question.home(limit)?);
        let behind = if limit.is_sliding() { question.region(limit).sets } else { 0 };
        let (terms, words) = if let Some(way) = way_of(table, home.set, home.key) {
            let word = |set| table.set(set).map_or(gcra::UNUSED, |set| set.tat(way));
            let terms = question.overridden(limit, table).unwrap_or(limit.terms());
            (terms, [word(home.set), word(home.set + behind)])
        } else {
            // Whoever finds no place shares a bucket, by the terms that all have.
            let place = question.shared(limit)?;
            (limit.terms(), [table.aggregate(place)?, table.aggregate(place + behind)?])
        };
        Some(Self { words, cost: terms.price.cost(units), depth: terms.depth })
    }

    /// How long until there is room, if nothing is charged meanwhile, when the limit's health clock reads `reads`; in ticks of
    /// that clock. 0 where there is room now.
    #[inline(always)]
    pub const fn wait(&self, limit: &Limit, reads: Ticks) -> Ticks {
        let Self { words: [first, second], cost, depth } = *self;
        if limit.is_sliding() {
            let window = limit.sliding(reads);
            return slide(limit.window, &window, reads, window.turn(first, second), (cost, depth));
        }
        let now = limit.reading(reads);
        match gcra::wait(first, now, cost, depth) {
            0 => 0,
            wait if limit.window == 0 => wait,
            // Its clock stands still until the window ends.
            _ => limit.window.saturating_sub(reads.wrapping_sub(now)),
        }
    }
}

/// The slot of a key in a set.
#[inline(always)]
fn way_of<T: Table>(table: &T, set: u32, key: u64) -> Option<usize> {
    let set = table.set(set)?;
    let mut way = 0;
    while way < WAYS {
        if set.key(way) == key && !is_lock(set.tat(way)) {
            return Some(way);
        }
        way += 1;
    }
    None
}

/// The same where windows slide: what the one before admitted weighs less and less, and so will what this one has.
#[inline(always)]
const fn slide(
    length: Ticks,
    window: &Sliding,
    reads: Ticks,
    words: (Ticks, Ticks),
    (cost, depth): (Ticks, Ticks),
) -> Ticks {
    let (used, before) = (gcra::debt(words.0, window.start()), window.owed(words.1));
    let room = depth.saturating_sub(cost);
    if used + window.weight(words.1) <= room {
        return 0;
    }
    let rest = length.saturating_sub(reads.wrapping_sub(window.start()));
    if used <= room && before <= 2 * length {
        rest.saturating_sub(part_of(length, room - used, before))
    } else {
        rest + length - part_of(length, room, used)
    }
}

/// `length` times `part` by `whole`, rounded down; `length` where that is more.
#[inline(always)]
const fn part_of(length: Ticks, part: Ticks, whole: Ticks) -> Ticks {
    // Of 2^24 ticks, 66 ms: a day has less than 2^31 of them.
    const UNIT: u32 = 24;
    if part >= whole {
        return length;
    }
    let parts = (part >> UNIT) * (length >> UNIT) / ((whole >> UNIT) + 1);
    parts << UNIT
}

#[cfg(test)]
#[path = "wait_tests.rs"]
mod tests;
