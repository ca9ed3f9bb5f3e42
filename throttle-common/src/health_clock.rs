//! A health clock where it lies: a [`Timeline`] twice, so that one can be written while the other is read.
//!
//! The agent writes the timeline that nobody reads and then makes it the one that is read, with one store of a sequence
//! number (the kernel's `seqcount_latch`). So an agent that is held up or killed while it writes holds nobody up, and
//! nothing half-written is ever read: a reader that was overtaken sees that the number has changed, and reads again.
//!
//! After [`TRIES`] of them it takes [`HealthClock::floor`], which the clock had read when the last speed was published:
//! late by the time since then at most, and never ahead of the clock. A limit that counts by it may refuse what was due,
//! and admits nothing that was not. Nobody has to: publications are some hundred microseconds apart, and a reader needs a
//! hundredth of one.

use crate::{
    gcra::{self, Ticks},
    speed::{self, Timeline},
};

/// How often a reading is tried while speeds are published.
pub const TRIES: usize = 3;

/// A health clock. All bytes zero, it is one whose speed nobody ever set: it reads CLOCK_MONOTONIC.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthClock {
    /// How often a speed was published; the lowest bit says which timeline is read.
    pub sequence: u64,
    /// What the clock read when that was done the last time.
    pub floor: Ticks,
    /// The one that is read, and the one that is written next.
    pub timelines: [Timeline; 2],
    /// Zero: the size is a power of two.
    pub padding: [u64; 6],
}

/// Access to the words of a health clock.
pub trait Words {
    /// Reads a word that somebody may write meanwhile; words are read in the order in which this is called.
    fn word(&self, index: usize) -> u64;
}

const SEQUENCE: usize = 0;
const FLOOR: usize = 1;
const TIMELINES: usize = 2;
const TIMELINE_WORDS: usize = size_of::<Timeline>() / size_of::<u64>();

/// What the clock reads at `now`, in nanoseconds of CLOCK_MONOTONIC.
#[inline(always)]
pub fn read<W: Words>(clock: &W, now: u64) -> Ticks {
    let mut tries = 0;
    while tries < TRIES {
        let sequence = clock.word(SEQUENCE);
        if sequence == 0 {
            return gcra::ticks(now);
        }
        let first = TIMELINES + (sequence & 1) as usize * TIMELINE_WORDS;
        let reading = speed::read(now, |word| clock.word(first + word));
        if clock.word(SEQUENCE) == sequence {
            return reading;
        }
        tries += 1;
    }
    clock.word(FLOOR)
}

/// What is to be stored so that a clock follows another timeline: words by their places, in this order, each visible
/// before the next.
#[derive(Clone, Copy, Debug)]
pub struct Publication {
    sequence: u64,
    floor: Ticks,
    timeline: Timeline,
}

impl Publication {
    /// The timeline is to be followed from now on by a clock of this sequence number, which now reads `floor`.
    pub const fn of(sequence: u64, floor: Ticks, timeline: Timeline) -> Self {
        // 0 says that nobody ever set a speed.
        let next = match sequence.wrapping_add(1) {
            0 => 2,
            next => next,
        };
        Self { sequence: next, floor, timeline }
    }

    /// What may be stored at any time: nobody reads it before the last word is there.
    pub fn prepare(&self, mut store: impl FnMut(usize, u64)) {
        let first = TIMELINES + (self.sequence & 1) as usize * TIMELINE_WORDS;
        for (number, stretch) in self.timeline.stretches.iter().enumerate() {
            for (place, word) in [stretch.from, stretch.reading, stretch.speed.parts()].into_iter().enumerate() {
                store(first + number * 3 + place, word);
            }
        }
        store(FLOOR, self.floor);
    }

    /// The last word, with which the timeline is the one that is read.
    pub fn finish(&self, mut store: impl FnMut(usize, u64)) {
        store(SEQUENCE, self.sequence);
    }
}

impl HealthClock {
    /// The timeline that it follows.
    pub const fn timeline(&self) -> Timeline {
        if self.sequence == 0 { Timeline::REAL } else { self.timelines[(self.sequence & 1) as usize] }
    }
}

#[cfg(test)]
#[path = "health_clock_tests.rs"]
mod tests;
