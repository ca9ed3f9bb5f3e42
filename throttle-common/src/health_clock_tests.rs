//! A clock that is read while it is written: whatever is stored between any two of a reader's loads.

use super::*;
use crate::speed::Speed;
use proptest::prelude::*;
use std::{cell::RefCell, collections::VecDeque, vec::Vec};

const SECOND: u64 = 1_000_000_000;

/// The words of a clock; before each load some stores of a writer are done.
struct Shared {
    words: RefCell<Vec<u64>>,
    stores: RefCell<VecDeque<(usize, u64)>>,
    /// How many before each load, from the first load on.
    pace: RefCell<VecDeque<usize>>,
}

impl Shared {
    fn new() -> Self {
        let words = RefCell::new(std::vec![0; size_of::<HealthClock>() / 8]);
        Self { words, stores: RefCell::default(), pace: RefCell::default() }
    }

    fn store_some(&self, count: usize) {
        for _ in 0..count {
            let Some((index, word)) = self.stores.borrow_mut().pop_front() else { return };
            self.words.borrow_mut()[index] = word;
        }
    }

    fn publish(&self, publication: &Publication, to_its_end: bool) {
        let mut stores = self.stores.borrow_mut();
        publication.prepare(|index, word| stores.push_back((index, word)));
        if to_its_end {
            publication.finish(|index, word| stores.push_back((index, word)));
        }
    }
}

impl Words for Shared {
    fn word(&self, index: usize) -> u64 {
        let count = self.pace.borrow_mut().pop_front().unwrap_or(0);
        self.store_some(count);
        self.words.borrow()[index]
    }
}

fn speed(parts: u64) -> Speed {
    Speed::of_parts(parts).unwrap()
}

#[test]
fn a_clock_of_zeros_reads_the_monotonic_clock() {
    assert_eq!(read(&Shared::new(), 77), gcra::ticks(77));
}

#[test]
fn the_first_number_after_the_last_is_no_zero_and_the_other_timeline() {
    let publication = Publication::of(u64::MAX, 0, Timeline::REAL);
    assert!(publication.sequence != 0 && publication.sequence & 1 == 0);
}

proptest! {
    /// The agent may be held up, or killed, at any of its stores: what is read is what one of the two timelines says, and
    /// the next agent goes on from there.
    #[test]
    fn a_half_written_record_moves_no_reading(
        parts in prop::collection::vec(4096u64..=65536, 1..20), cuts in prop::collection::vec(0usize..16, 20),
        later in 0..2 * SECOND,
    ) {
        let shared = Shared::new();
        let (mut now, mut timeline, mut sequence) = (SECOND, Timeline::REAL, 0);
        for (parts, cut) in parts.into_iter().zip(cuts) {
            now += SECOND / 10;
            let next = timeline.then(now, speed(parts), Some(5 * SECOND)).unwrap();
            let publication = Publication::of(sequence, timeline.at(now), next);
            // One that is cut off, and then the next agent's.
            shared.publish(&publication, false);
            shared.store_some(cut);
            shared.stores.borrow_mut().clear();
            prop_assert_eq!(read(&shared, now + later), timeline.at(now + later));
            shared.publish(&publication, true);
            shared.store_some(usize::MAX);
            prop_assert_eq!(read(&shared, now + later), next.at(now + later));
            (timeline, sequence) = (next, publication.sequence);
        }
    }

    /// However many speeds are published while a reader reads: it gets what one of them says, or what the clock read when
    /// one of them was published. None of these lies ahead of the clock, or before what it read when the reading began.
    #[test]
    fn no_reading_is_torn(
        parts in prop::collection::vec(4096u64..=65536, 2..12), pace in prop::collection::vec(0usize..40, 0..40),
    ) {
        let shared = Shared::new();
        let (mut now, mut timeline, mut sequence) = (SECOND, Timeline::REAL, 0);
        let mut floors = Vec::new();
        let start = now;
        let mut said = Vec::new();
        for (number, parts) in parts.into_iter().enumerate() {
            let next = timeline.then(now, speed(parts), Some(5 * SECOND)).unwrap();
            let publication = Publication::of(sequence, timeline.at(now), next);
            shared.publish(&publication, true);
            if number == 0 {
                shared.store_some(usize::MAX);
            } else {
                floors.push(publication.floor);
            }
            said.push(next.at(start));
            (timeline, sequence) = (next, publication.sequence);
            now += 2_000_000;
        }
        floors.push(Timeline::REAL.at(start));
        *shared.pace.borrow_mut() = pace.into();
        let reading = read(&shared, start);
        prop_assert!(said.contains(&reading) || floors.contains(&reading), "{} is nobody's", reading);
        prop_assert!(reading <= timeline.at(now));
    }
}

#[test]
fn who_is_overtaken_thrice_reads_what_the_clock_read_last() {
    let shared = Shared::new();
    let half = Timeline::REAL.then(SECOND, speed(1 << 15), Some(5 * SECOND)).unwrap();
    shared.publish(&Publication::of(0, gcra::ticks(SECOND), half), true);
    shared.store_some(usize::MAX);
    // The sequence number is another one at each second load of it.
    let next = |sequence, floor| Publication::of(sequence, floor, half);
    for (sequence, floor) in (1..=3).zip([10, 20, 30]) {
        shared.publish(&next(sequence, floor), true);
    }
    let stores = shared.stores.borrow().len() / 3;
    // Loads of a try: the number, three words of the stretch and the beginning of the next, and the number again.
    let loads: [usize; 6] = [0, 0, 0, 0, 0, stores];
    *shared.pace.borrow_mut() = loads.into_iter().cycle().take(18).collect();
    assert_eq!(read(&shared, SECOND), 30);
}
