//! Handshakes on their way: how many connections a source has asked for that are not open yet.
//!
//! A limit on open connections is decided when a handshake completes (see [`crate::connections`]). That alone would let
//! every SYN pass, and refuse clients that believe themselves connected. So a SYN is weighed too: what is open and what
//! has been asked for must not exceed the limit. Whoever completes no handshakes is not counted so for long: SYNs in a
//! victim's name would else keep the victim out. Once a handshake is reset, as a host does that never asked for it, or has
//! been under way for a whole [`Moment`], what the source asks for is doubted until [`DOUBT`] moments after the last such
//! one: its SYNs pass, and the completed handshake decides.
//!
//! A cell of 64 bits remembers this of a source, in an array without keys: 12 bits of tag tell two sources apart that
//! fall on one cell. Whoever has handshakes under way keeps it, and whoever is doubted, so that no flood from everywhere
//! has a victim's doubt forgotten. Of others nothing is noted meanwhile, which costs nothing but early refusals.

use crate::hash::{self, Secret};

/// Cells of the array: 2 MiB.
pub const CELLS: u32 = 1 << 18;

/// 2^28 ns, 0.27 s: few round trips take longer. Whose do is decided when its handshakes complete.
pub type Moment = u64;

/// A moment is two to this many nanoseconds.
pub const MOMENT_BITS: u32 = 28;
/// How long what a source asks for is not counted: 64 s, as long as the kernel keeps trying to complete a handshake (63 s
/// with five retries).
pub const DOUBT: Moment = 64_000_000_000 >> MOMENT_BITS;
const BITS: u64 = (1 << 12) - 1;
/// The most handshakes of a moment that are counted. Larger limits are decided when handshakes complete.
const MOST: u64 = BITS;
/// Moments are counted modulo 2^16: 4.9 hours.
const MOMENTS: u64 = (1 << 16) - 1;

/// What a cell says.
#[derive(Clone, Copy)]
struct State {
    tag: u64,
    /// When `begun` was counted.
    moment: Moment,
    /// Moments that the doubt goes on after `moment`.
    doubt: u64,
    /// Asked for in the moment before, and not complete.
    before: u64,
    /// Asked for in this moment, and not complete.
    begun: u64,
}

impl State {
    #[inline(always)]
    const fn of(cell: u64) -> Self {
        Self {
            tag: cell >> 52,
            moment: cell >> 36 & MOMENTS,
            doubt: cell >> 24 & BITS,
            before: cell >> 12 & BITS,
            begun: cell & BITS,
        }
    }

    #[inline(always)]
    const fn cell(self) -> u64 {
        self.tag << 52 | self.moment << 36 | self.doubt << 24 | self.before << 12 | self.begun
    }

    /// What a cell says at `moment` of the source of this tag. `None` where it is another's.
    #[inline(always)]
    const fn at(cell: u64, tag: u64, moment: Moment) -> Option<Self> {
        let state = Self::of(cell).aged(moment);
        if state.tag == tag {
            Some(state)
        } else if state.before + state.begun + state.doubt == 0 {
            Some(Self { tag, moment, doubt: 0, before: 0, begun: 0 })
        } else {
            None
        }
    }

    /// The state at `moment`: what is too old is doubted.
    #[inline(always)]
    const fn aged(mut self, moment: Moment) -> Self {
        let passed = moment.wrapping_sub(self.moment) & MOMENTS;
        if passed == 0 {
            return self;
        }
        self.doubt = self.doubt.saturating_sub(passed);
        let stale = if passed == 1 { self.before } else { self.before + self.begun };
        self.before = if passed == 1 { self.begun } else { 0 };
        self.begun = 0;
        self.moment = moment;
        if stale > 0 {
            self.doubt = DOUBT.saturating_sub(passed);
        }
        self
    }
}

/// What a source has asked for that is not open yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// So many handshakes are on their way.
    pub handshakes: u64,
    /// Whether they are doubted, and so not counted; or not noted, because another source has the cell.
    pub doubted: bool,
}

/// A source's place in the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking {
    /// The number of its cell.
    pub cell: u32,
    tag: u64,
}

impl Asking {
    /// The place of a source, by its key in the limit of this number.
    #[inline(always)]
    pub const fn of(key: u64, limit: u32, secret: Secret) -> Self {
        let key = key ^ (limit as u64) << 48;
        Self { cell: hash::place(key, CELLS, secret), tag: hash::mix(key, [secret[1], secret[0]]) >> 52 }
    }

    /// What to store when the source asks for one connection more, while `open` of its `limit` are open. `None` where
    /// that would be too many.
    #[inline(always)]
    pub const fn begin(self, cell: u64, now_nanos: u64, open: u64, limit: u64) -> Option<u64> {
        if open >= limit {
            return None;
        }
        let Some(mut state) = State::at(cell, self.tag, moment(now_nanos)) else { return Some(cell) };
        if state.doubt == 0 && open + state.before + state.begun >= limit {
            return None;
        }
        // Also while it is doubted: whether it goes on is seen from what is not completed.
        if state.begun < MOST {
            state.begun += 1;
        }
        Some(state.cell())
    }

    /// The handshakes that the source has on their way.
    pub const fn under_way(self, cell: u64, now_nanos: u64) -> UnderWay {
        match State::at(cell, self.tag, moment(now_nanos)) {
            Some(State { doubt, before, begun, .. }) => UnderWay { handshakes: before + begun, doubted: doubt > 0 },
            None => UnderWay { handshakes: 0, doubted: true },
        }
    }

    /// What to store when one of its handshakes is reset.
    #[inline(always)]
    pub const fn forsake(self, cell: u64, now_nanos: u64) -> u64 {
        let Some(mut state) = State::at(cell, self.tag, moment(now_nanos)) else { return cell };
        state.doubt = DOUBT;
        state.cell()
    }

    /// What to store when one of its handshakes completes: the oldest.
    #[inline(always)]
    pub const fn complete(self, cell: u64, now_nanos: u64) -> u64 {
        let Some(mut state) = State::at(cell, self.tag, moment(now_nanos)) else { return cell };
        if state.before > 0 {
            state.before -= 1;
        } else if state.begun > 0 {
            state.begun -= 1;
        }
        state.cell()
    }
}

#[inline(always)]
const fn moment(nanos: u64) -> Moment {
    nanos >> MOMENT_BITS & MOMENTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: Secret = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
    const MOMENT: u64 = 1 << MOMENT_BITS;

    /// A source, its cell and its open connections.
    struct Source {
        asking: Asking,
        cell: u64,
        open: u64,
    }

    impl Source {
        fn new(key: u64) -> Self {
            Self { asking: Asking::of(key, 7, SECRET), cell: 0, open: 0 }
        }

        fn asks(&mut self, now: u64, limit: u64) -> bool {
            let next = self.asking.begin(self.cell, now, self.open, limit);
            self.cell = next.unwrap_or(self.cell);
            next.is_some()
        }

        fn completes(&mut self, now: u64) {
            self.cell = self.asking.complete(self.cell, now);
            self.open += 1;
        }
    }

    #[test]
    fn at_once_no_more_is_asked_for_than_the_limit_leaves() {
        for open in [0, 3, 50, 70] {
            let mut source = Source { open, ..Source::new(1) };
            let asked = (0..500).filter(|_| source.asks(5, 50)).count() as u64;
            assert_eq!(asked, 50_u64.saturating_sub(open));
        }
    }

    #[test]
    fn who_completes_its_handshakes_may_ask_until_all_are_open() {
        let mut source = Source::new(1);
        for step in 0..50 {
            assert!(source.asks(step * MOMENT / 7, 50));
            source.completes(step * MOMENT / 7 + 1);
        }
        assert!(!source.asks(8 * MOMENT, 50));
        source.open -= 1;
        assert!(source.asks(8 * MOMENT, 50), "one has closed");
    }

    #[test]
    fn a_name_that_others_use_keeps_nobody_out_for_long() {
        let mut source = Source::new(1);
        // A flood of SYNs that nobody answers.
        let mut out = 0;
        for now in (0..200 * MOMENT).step_by(MOMENT as usize / 1_000) {
            out = if source.asks(now, 50) { out } else { now };
        }
        assert!(out < 2 * MOMENT, "refused for {} ms", out / 1_000_000);
        // And when it has ended, what is asked for counts again.
        let later = (200 + DOUBT + 2) * MOMENT;
        assert_eq!((0..500).filter(|_| source.asks(later, 50)).count(), 50);
    }

    #[test]
    fn nor_do_names_that_others_use_by_turns_on_one_cell() {
        let victim = Asking::of(1, 7, SECRET);
        let (mut cell, mut out) = (0, 0);
        for step in 0..20_000 {
            // Another stranger comes four times a moment; between, the victim's name does.
            let now = step * MOMENT / 1_000;
            let asking = if step % 250 == 0 { Asking::of(2 + step, 7, SECRET) } else { victim };
            match asking.begin(cell, now, 0, 50) {
                Some(next) => cell = next,
                None => out = now,
            }
        }
        assert!(out < 2 * MOMENT, "refused for {} ms", out / 1_000_000);
    }

    #[test]
    fn whose_handshakes_are_complete_leaves_its_cell_to_others() {
        let [one, other] = [1, 2].map(|key| Asking::of(key, 7, SECRET));
        let begun = one.begin(0, 0, 0, 50).unwrap();
        assert_eq!(
            (other.begin(begun, 1, 0, 50), other.complete(begun, 1), other.forsake(begun, 1)),
            (Some(begun), begun, begun)
        );
        assert_eq!(other.under_way(begun, 1), UnderWay { handshakes: 0, doubted: true });
        assert_eq!(other.begin(begun, 1, 50, 50), None, "what is open counts");
        let free = one.complete(begun, 2);
        assert_eq!(other.under_way(other.begin(free, 3, 0, 50).unwrap(), 3).handshakes, 1);
        let late = (DOUBT + 3) * MOMENT;
        assert_eq!(other.under_way(other.begin(begun, late, 0, 50).unwrap(), late).handshakes, 1, "doubted no more");
    }

    #[test]
    fn who_resets_a_handshake_is_doubted_at_once_and_for_as_long() {
        let mut source = Source::new(1);
        assert_eq!((0..500).filter(|_| source.asks(5, 50)).count(), 50);
        source.cell = source.asking.forsake(source.cell, 6);
        assert_eq!((0..500).filter(|_| source.asks(7, 50)).count(), 500);
        let mut other = Source::new(2);
        other.cell = other.asking.forsake(0, 0);
        assert_eq!((0..500).filter(|_| other.asks(DOUBT * MOMENT, 50)).count(), 50, "long after the only one");
    }

    #[test]
    fn what_is_open_counts_whatever_is_doubted() {
        let mut source = Source::new(1);
        source.asks(0, 50);
        source.open = 50;
        assert!(!source.asks(3 * MOMENT, 50));
    }

    #[test]
    fn two_limits_do_not_share_what_a_source_asks_of_them() {
        assert_ne!(Asking::of(1, 7, SECRET), Asking::of(1, 8, SECRET));
    }

    proptest! {
        #[test]
        fn a_source_that_answers_within_half_a_moment_is_never_doubted(
            steps in prop::collection::vec((0u64..MOMENT / 4, any::<bool>()), 1..400),
            limit in 1u64..200,
        ) {
            let mut source = Source::new(3);
            let (mut now, mut under_way) = (0, std::collections::VecDeque::new());
            for (pause, close) in steps {
                now += pause;
                while under_way.front().is_some_and(|begun| now - begun > MOMENT / 2) {
                    source.completes(under_way.pop_front().unwrap() + MOMENT / 2);
                }
                if source.asks(now, limit) {
                    under_way.push_back(now);
                }
                if close {
                    source.open = source.open.saturating_sub(1);
                }
                prop_assert_eq!(State::of(source.cell).doubt, 0);
                prop_assert!(source.open + under_way.len() as u64 <= limit);
            }
        }

        #[test]
        fn any_cell_can_be_read(cell: u64, now: u64, open in 0u64..100, limit in 0u64..100) {
            let asking = Asking::of(9, 0, SECRET);
            let begun = asking.begin(cell, now, open, limit);
            prop_assert!(begun.is_none() || open < limit);
            asking.complete(cell, now);
            asking.forsake(cell, now);
        }
    }
}
