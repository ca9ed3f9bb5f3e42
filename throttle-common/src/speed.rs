//! The speed at which a limit's clock runs, and what such a clock reads.
//!
//! A bucket owes time on its limit's clock. Where what a limit protects is unwell, its clock runs slower than real time:
//! at a speed of a half, half as much is admitted, of every source at once, and nothing in any bucket is rewritten.
//!
//! What a clock reads is a [`Timeline`]: stretches of constant speed, each added to the last. A new speed begins a moment
//! ahead ([`LEAD`]), and what was said of the time before that stays word for word ([`Timeline::then`]). So the reading
//! never jumps and never goes back: not when a speed is published, nor when its lease ends or it returns to one. The lease
//! is how long a speed holds if nobody renews it; after it the clock runs at real time's speed, for as long as it may be.
//!
//! Pure and without 128-bit products, because the kernel programs read it too; [`crate::health_clock`] is where it lies.

use crate::gcra::Ticks;

/// How fast a clock runs, in parts of 2^16 of real time.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Speed(u64);

impl Speed {
    /// That of real time: limits admit what policy says.
    pub const ONE: Self = Self(1 << 16);
    /// The slowest, a sixteenth: what is to be refused altogether is no matter of speed, and slots of the table stay busy
    /// 16 times as long.
    pub const LEAST: Self = Self(Self::ONE.0 / 16);

    /// A speed of so many parts, where that is none too slow or too fast.
    pub const fn of_parts(parts: u64) -> Option<Self> {
        if parts < Self::LEAST.0 || parts > Self::ONE.0 { None } else { Some(Self(parts)) }
    }

    /// Its parts of 2^16.
    pub const fn parts(self) -> u64 {
        self.0
    }
}

/// How far ahead a new speed begins, in nanoseconds: longer than it takes to write it down.
pub const LEAD: u64 = 1_000_000;

/// Stretches of a timeline: two that readers may still be in, the new one, and what follows its lease.
pub const STRETCHES: usize = 4;

/// A time of constant speed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// When it begins, in nanoseconds of CLOCK_MONOTONIC; [`NEVER`] where there is no such stretch.
    pub from: u64,
    /// What the clock reads then; even.
    pub reading: Ticks,
    /// How fast it runs from then on.
    pub speed: Speed,
}

/// No instant.
pub const NEVER: u64 = u64::MAX;

/// Words of a stretch.
const WORDS: usize = size_of::<Stretch>() / size_of::<u64>();

/// What a clock reads, over all time: its stretches, the earliest first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// One after the other, each until the next begins.
    pub stretches: [Stretch; STRETCHES],
}

/// By how much a clock goes on in `nanos`: `nanos x 256 x speed`, rounded down to an even number, as every reading is
/// because every bucket must be. Right for any span: it wraps where ticks do.
#[inline(always)]
pub const fn advance(nanos: u64, speed: u64) -> Ticks {
    // A tick is 2^-8 ns and a part 2^-16, so the product is to be divided by 2^8.
    ((nanos >> 8).wrapping_mul(speed)).wrapping_add(((nanos & 0xff) * speed) >> 8) & !1
}

/// What a timeline reads at an instant, by its words. Before its first stretch it stands still.
#[inline(always)]
pub fn read(now: u64, word: impl Fn(usize) -> u64) -> Ticks {
    let mut at = 0;
    let mut from = word(0);
    let mut stretch = 1;
    while stretch < STRETCHES {
        let next = word(stretch * WORDS);
        if next > now {
            break;
        }
        (at, from) = (stretch * WORDS, next);
        stretch += 1;
    }
    word(at + 1).wrapping_add(advance(now.saturating_sub(from), word(at + 2)))
}

impl Timeline {
    /// That of a clock whose speed nobody ever set: CLOCK_MONOTONIC.
    pub const REAL: Self = {
        let mut stretches = [Stretch { from: NEVER, reading: 0, speed: Speed::ONE }; STRETCHES];
        stretches[0].from = 0;
        Self { stretches }
    };

    /// What it reads at an instant.
    pub fn at(&self, now: u64) -> Ticks {
        read(now, |word| {
            let stretch = self.stretches[word / WORDS];
            [stretch.from, stretch.reading, stretch.speed.0][word % WORDS]
        })
    }

    /// How fast it runs at an instant.
    pub fn speed_at(&self, now: u64) -> Speed {
        self.stretches[self.number_at(now)].speed
    }

    /// The first instant from `now` on at which it reads `reading` or more, which is at most 1.14 years of real time ahead.
    pub fn when(&self, now: u64, reading: Ticks) -> u64 {
        for number in self.number_at(now)..STRETCHES {
            let Stretch { from, speed, .. } = self.stretches[number];
            let begin = from.max(now);
            let Ok(ahead @ 1..) = u64::try_from(reading.wrapping_sub(self.at(begin)).cast_signed()) else {
                return begin;
            };
            // From one even number to the next, counted from the stretch's first instant on.
            let passed = (u128::from(begin - from) * u128::from(speed.0)) >> 9;
            let steps = passed + u128::from(ahead.div_ceil(2));
            let at = u128::from(from) + (steps << 9).div_ceil(u128::from(speed.0));
            let next = self.stretches.get(number + 1).map_or(NEVER, |next| next.from);
            if at < u128::from(next) {
                return at as u64;
            }
        }
        NEVER
    }

    /// What it is when a speed is published at `now`: this one until a moment later, then that speed for as long as the
    /// lease is, and real time's from there on; without a lease for ever. `None` where so much has been published within
    /// that moment that not all of it fits: it can be published when it has passed.
    ///
    /// The lease is in nanoseconds. Where the speed is the one that runs, only the lease is another.
    pub fn then(&self, now: u64, speed: Speed, lease: Option<u64>) -> Option<Self> {
        let begins = now.saturating_add(LEAD);
        let mut next = Self { stretches: [Stretch { from: NEVER, ..Self::REAL.stretches[1] }; STRETCHES] };
        let mut count = 0;
        let kept = self.stretches.iter().skip(self.number_at(now)).take_while(|it| it.from <= begins);
        for stretch in kept {
            next.stretches[count] = *stretch;
            count += 1;
        }
        if next.stretches[count.checked_sub(1)?].speed != speed {
            next.add(&mut count, begins, speed)?;
        }
        if let Some(lease) = lease
            && speed != Speed::ONE
        {
            next.add(&mut count, begins.saturating_add(lease), Speed::ONE)?;
        }
        Some(next)
    }

    /// When the lease of its last speed ends; `None` where that has none.
    pub fn lease_until(&self) -> Option<u64> {
        let last = self.stretches.iter().rev().find(|it| it.from != NEVER)?;
        (last.speed == Speed::ONE && last.from > 0).then_some(last.from)
    }

    /// What it is if its last speed is renewed until `end`, or for ever: what follows its lease begins then.
    #[must_use]
    pub fn renewed(&self, end: Option<u64>) -> Self {
        let mut renewed = *self;
        let last = self.stretches.iter().rposition(|it| it.from != NEVER).filter(|&last| last > 0);
        if let Some(mut last) = last {
            renewed.stretches[last].from = NEVER;
            if let Some(end) = end {
                renewed.add(&mut last, end, Speed::ONE);
            }
        }
        renewed
    }

    /// Adds a stretch to the first so many.
    fn add(&mut self, count: &mut usize, from: u64, speed: Speed) -> Option<()> {
        let reading = self.at(from);
        *self.stretches.get_mut(*count)? = Stretch { from, reading, speed };
        *count += 1;
        Some(())
    }

    /// The number of the stretch at an instant.
    fn number_at(&self, now: u64) -> usize {
        self.stretches.iter().skip(1).take_while(|it| it.from <= now).count()
    }
}

#[cfg(test)]
#[path = "speed_tests.rs"]
mod tests;
