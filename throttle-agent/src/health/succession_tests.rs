//! The order of heartbeats, and of the starts that they are of.

use super::{Order::*, *};
use crate::health::SECOND;

const INTERVAL: Nanos = SECOND / 5;
const FIRST: Incarnation = Incarnation { boot: 1, generation: 1_000 };
const LOWER: Incarnation = Incarnation { boot: 1, generation: 10 };

fn beat(beats: &mut Succession, now: Nanos, of: Incarnation, sequence: u64) -> Order {
    beats.take(now, INTERVAL, of, sequence)
}

#[test]
fn within_a_boot_the_higher_generation_is_the_later_and_of_another_boot_any_is() {
    let mut beats = Succession::default();
    assert_eq!(beat(&mut beats, 0, FIRST, 7), Fresh);
    assert_eq!(beat(&mut beats, 1, LOWER, 8), Late);
    assert_eq!(beat(&mut beats, 2, Incarnation { generation: 1_001, ..FIRST }, 1), Restarted);
    assert_eq!(beat(&mut beats, 3, FIRST, 8), Late);
    assert_eq!(beat(&mut beats, 4, Incarnation { boot: 2, generation: 1 }, 1), Restarted);
    assert_eq!(beat(&mut beats, 5, Incarnation { generation: 1_001, ..FIRST }, 2), Late, "that is the one before");
}

#[test]
fn a_lower_generation_waits_until_the_higher_has_been_silent_for_long_and_is_then_the_one() {
    let mut beats = Succession::default();
    beat(&mut beats, 0, FIRST, 7);
    let mut back = 0;
    while beat(&mut beats, back, LOWER, back) == Late {
        back += INTERVAL;
    }
    assert_eq!(back, HANGS_AFTER, "who is back within less may be of before");
    assert_eq!(beat(&mut beats, back + 1, LOWER, back + 1), Fresh);
    assert_eq!(beat(&mut beats, back + 2, FIRST, 8), Late, "what comes late of the one before is no heartbeat");
    assert_eq!(beat(&mut beats, back + 3, Incarnation { generation: 11, ..LOWER }, 1), Late, "nor of one between them");
    let next = Incarnation { generation: 1_001, ..FIRST };
    assert_eq!(beat(&mut beats, back + 4, next, 1), Restarted);
}

#[test]
fn who_beats_rarely_is_given_three_intervals() {
    let (mut beats, every) = (Succession::default(), 60 * SECOND);
    beats.take(0, every, FIRST, 7);
    assert_eq!(beats.take(186 * SECOND - 1, every, LOWER, 1), Late);
    assert_eq!(beats.take(186 * SECOND, every, LOWER, 1), Restarted);
}

#[test]
fn silence_makes_no_old_heartbeat_of_the_same_start_a_new_one() {
    let mut beats = Succession::default();
    beat(&mut beats, 0, FIRST, 7);
    assert_eq!(beat(&mut beats, 100 * SECOND, FIRST, 7), Repeated);
    assert_eq!(beat(&mut beats, 100 * SECOND, FIRST, 6), Late);
}
