//! Windows: so many units in a stretch of time, counted anew in each.
//!
//! A limit of N units a window of W is a bucket whose clock stands still while a window runs: it reads the instant at
//! which that began ([`start`]). So [`crate::gcra`] at that instant counts what the window has admitted, and the next
//! window finds every bucket full, because none ever owes more than W ([`price`]); but where guarantees were admitted
//! beyond that, which it then goes on owing. In one window it admits N; around the edge between two, up to 2 N within less
//! than W.
//!
//! A window that *slides* ([`Sliding`]) adds what the window before admitted, weighted by the part of it that the last W
//! still covers (the two counters of Cloudflare's rate limiting, 2017). A bucket then has two words, used by turns: the
//! window that runs counts in one, and nobody writes the other.
//!
//! All windows begin where the clock reads a multiple of W. Once in 2.28 years the clock wraps, and one is cut short.

use crate::gcra::{self, Price, Ticks};

/// The price of a unit where `amount` are due in a window of `length`, and the depth of a bucket that holds just as many;
/// `None` where a unit would be less than two ticks, or nothing is due.
///
/// The price only counts, so it is a whole number of ticks: rounding it costs nobody a unit.
pub const fn price(amount: u64, length: Ticks) -> Option<(Price, Ticks)> {
    if amount == 0 {
        return None;
    }
    let unit = (length / amount) & !1;
    if unit == 0 { None } else { Some((Price { mantissa: unit, shift: 0 }, unit * amount)) }
}

/// When the window began that runs at `now`.
#[inline(always)]
pub const fn start(now: Ticks, length: Ticks) -> Ticks {
    now - elapsed(now, length)
}

/// What has passed of the window that runs at `now`. No window is 0 long; that it says so here spares the kernel program
/// a panic that it may not have.
#[inline(always)]
const fn elapsed(now: Ticks, length: Ticks) -> Ticks {
    if length == 0 { 0 } else { now % length }
}

/// The bits that [`Sliding`] drops of a span within a window of `length`, so that two of them multiply within 64.
pub const fn shift(length: Ticks) -> u8 {
    (u64::BITS - length.leading_zeros()).saturating_sub(32) as u8
}

/// A window that slides, at an instant. Plain words, because it may wait in a map.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Sliding {
    length: Ticks,
    /// When the window before began.
    before: Ticks,
    /// Parts of the window before that the last `length` still covers.
    rest: u64,
    /// Bits of a part.
    shift: u32,
    /// Whether its number is odd: those of even numbers count in the first word of a bucket, these in the second.
    odd: u32,
}

impl Sliding {
    /// No window.
    pub const NONE: Self = Self { length: 0, before: 0, rest: 0, shift: 0, odd: 0 };

    /// The windows of `length` at `now`; `shift` is [`shift`] of the length.
    #[inline(always)]
    pub const fn at(now: Ticks, length: Ticks, shift: u8) -> Self {
        let elapsed = elapsed(now, length);
        let shift = shift as u32 & 63;
        let start = now - elapsed;
        let odd = match start.checked_div(length) {
            Some(number) => number as u32 & 1,
            None => 0,
        };
        Self { length, before: start.wrapping_sub(length), rest: (length - elapsed) >> shift, shift, odd }
    }

    /// Of what belongs to the first words, and to the second, that of the window that runs and that of the one before.
    #[inline(always)]
    pub const fn turn<T: Copy>(&self, first: T, second: T) -> (T, T) {
        if self.odd == 0 { (first, second) } else { (second, first) }
    }

    /// When the window that runs began: what the limit's clock reads.
    #[inline(always)]
    pub const fn start(&self) -> Ticks {
        self.before.wrapping_add(self.length)
    }

    /// What the window before admitted, by its word: more than two lengths of a window where the word is of a later one, as
    /// another CPU sees it whose clock is ahead.
    #[inline(always)]
    pub const fn owed(&self, word: Ticks) -> Ticks {
        gcra::debt(word, self.before)
    }

    /// What that weighs now, off by less than `3 W / 2^31`: for up to 7 x 10^8 units a window, by less than one. Never more
    /// than was admitted, nor than a window's length.
    #[inline(always)]
    pub const fn weight(&self, word: Ticks) -> Ticks {
        let (mut owed, parts) = (self.owed(word), self.length >> self.shift);
        if owed >= 2 * self.length || parts == 0 {
            return 0;
        }
        if owed > self.length {
            owed = self.length;
        }
        // Both factors are below 2^32.
        (((owed >> self.shift) * self.rest) / parts) << self.shift
    }
}

#[cfg(test)]
#[path = "windows_tests.rs"]
mod tests;
