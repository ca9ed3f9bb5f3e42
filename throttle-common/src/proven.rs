//! Who has completed a handshake lately, and so is no spoofed source.
//!
//! A line of eight cells, each a tag and an end, serves the sources that hash to it. It remembers in the kernel where a
//! handshake completes, and is asked only when a region has no room for a source. What it forgets too early costs a
//! source its claim to the way of the proven until the next handshake; it never takes one source for another but with a
//! probability of 2^-37 a question.

use crate::{
    hash::{self, Secret},
    packet::Family,
    records::Address,
};

/// Cells of a line: 64 bytes, one cache line.
pub const CELLS: usize = 8;
/// The cells of one line.
pub type Line = [u64; CELLS];

/// How long a handshake is remembered: an hour. Clients that keep coming back never lose their claim, and an address
/// that was given to another subscriber soon does.
pub const LIFE_NANOS: u64 = 3_600 * 1_000_000_000;

/// Ends are in units of 2^30 ns, 1.07 s, modulo 2^24: 208 days.
const UNIT: u32 = 30;
const END: u64 = (1 << 24) - 1;

/// A source as the lines know it: where, and under which tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The number of its line.
    pub line: u32,
    /// Forty bits, in the upper part of a cell; never 0.
    tag: u64,
}

impl Claim {
    /// The claim of an IPv4 address or of an IPv6 /64, among `lines`.
    #[inline(always)]
    pub const fn of(source: Address, family: Family, lines: u32, secret: Secret) -> Self {
        let key = match family {
            Family::V4 => !source.low,
            Family::V6 => source.high,
        };
        // The other way round, so that the tag says what the line does not.
        let tag = hash::mix(key, [secret[1], secret[0]]) & !END;
        Self { line: hash::place(key, lines, secret), tag: if tag == 0 { !END } else { tag } }
    }

    /// Whether this line remembers it.
    #[inline(always)]
    pub fn holds(self, line: &Line, now_nanos: u64) -> bool {
        let mut cell = 0;
        while cell < CELLS {
            if line[cell] & !END == self.tag {
                return rest(line[cell], now_nanos) > 0;
            }
            cell += 1;
        }
        false
    }

    /// Which cell to write, and what: its own, a free one, or the one that would end first.
    #[inline(always)]
    pub fn remember(self, line: &Line, now_nanos: u64) -> (usize, u64) {
        let end = ((now_nanos + LIFE_NANOS) >> UNIT) & END;
        (place(line, self.tag, now_nanos), self.tag | end)
    }
}

/// Which cell of a line to write so that it remembers what a cell of another line with this number does. `None` where
/// there is nothing to remember, or it does so at least as long, or all that it remembers lasts longer.
pub fn carry(line: &Line, cell: u64, now_nanos: u64) -> Option<usize> {
    let chosen = place(line, cell & !END, now_nanos);
    (rest(cell, now_nanos) > rest(line[chosen], now_nanos)).then_some(chosen)
}

/// The cell for a tag: its own, a free one, or the one that would end first.
#[inline(always)]
fn place(line: &Line, tag: u64, now_nanos: u64) -> usize {
    let (mut chosen, mut least) = (0, u64::MAX);
    let mut cell = 0;
    while cell < CELLS {
        let left = if line[cell] & !END == tag { 0 } else { rest(line[cell], now_nanos) + 1 };
        if left < least {
            (chosen, least) = (cell, left);
        }
        cell += 1;
    }
    chosen
}

/// Units until a cell ends; 0 where it has.
#[inline(always)]
const fn rest(cell: u64, now_nanos: u64) -> u64 {
    let ahead = (cell & END).wrapping_sub(now_nanos >> UNIT) & END;
    if cell == 0 || ahead > (LIFE_NANOS >> UNIT) + 1 { 0 } else { ahead }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: Secret = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
    const HOUR: u64 = LIFE_NANOS;

    fn claim(address: u32) -> Claim {
        Claim::of(Address::v4(address), Family::V4, 1, SECRET)
    }

    fn tell(line: &mut Line, claim: Claim, now: u64) {
        let (cell, value) = claim.remember(line, now);
        line[cell] = value;
    }

    #[test]
    fn a_handshake_is_remembered_for_its_time_and_no_longer() {
        for start in [0, 1, HOUR * 5_000, u64::MAX >> 8] {
            let mut line = Line::default();
            assert!(!claim(7).holds(&line, start));
            tell(&mut line, claim(7), start);
            assert!(claim(7).holds(&line, start) && claim(7).holds(&line, start + HOUR - (2 << UNIT)));
            assert!(!claim(7).holds(&line, start + HOUR + (1 << UNIT)), "from {start}");
            assert!(!claim(8).holds(&line, start));
        }
    }

    #[test]
    fn a_full_line_forgets_the_handshake_that_is_longest_ago() {
        let mut line = Line::default();
        for address in 0..=CELLS as u32 {
            tell(&mut line, claim(address), u64::from(address) << (UNIT + 2));
        }
        let now = (CELLS as u64) << (UNIT + 2);
        assert!(!claim(0).holds(&line, now));
        assert!((1..=CELLS as u32).all(|address| claim(address).holds(&line, now)));
    }

    #[test]
    fn who_comes_back_takes_no_second_cell() {
        let mut line = Line::default();
        for minute in 0..100 {
            tell(&mut line, claim(7), minute << 36);
        }
        assert_eq!(line.iter().filter(|&&cell| cell != 0).count(), 1);
    }

    #[test]
    fn a_line_that_is_carried_over_is_remembered_as_long_and_no_later_handshake_is_forgotten() {
        let now = 9 * HOUR;
        let (mut old, mut new) = (Line::default(), Line::default());
        (0..4).for_each(|address| tell(&mut old, claim(address), now - HOUR / 2));
        tell(&mut new, claim(3), now);
        for _ in 0..2 {
            for cell in old {
                if let Some(place) = carry(&new, cell, now) {
                    new[place] = cell;
                }
            }
            assert_eq!(
                new.iter().filter(|&&cell| cell != 0).count(),
                4,
                "each has one cell, however often it is carried"
            );
        }
        let holds = |address, at| claim(address).holds(&new, at);
        assert!((0..4).all(|address| holds(address, now + HOUR / 2 - (2 << UNIT))));
        assert!((0..3).all(|address| !holds(address, now + HOUR / 2 + (1 << UNIT))) && holds(3, now + HOUR / 2));
        assert_eq!(carry(&new, old[0], now + HOUR), None, "what has ended");
        (10..18).for_each(|address| tell(&mut new, claim(address), now));
        assert_eq!(carry(&new, old[0], now), None, "all that the line remembers lasts longer");
    }

    #[test]
    fn the_addresses_of_a_64_are_one_source() {
        let claim = |low| Claim::of(Address { high: 0x2001_0db8 << 32, low }, Family::V6, 1000, SECRET);
        assert_eq!(claim(1), claim(u64::MAX));
    }
}
