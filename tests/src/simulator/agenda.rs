//! What is to happen: in the order of time, and at one instant in the order in which it was noted.

use std::{cmp::Reverse, collections::BinaryHeap};
use throttle_agent::health::Nanos;

pub(super) struct Agenda<E> {
    /// The time that it is.
    pub(super) now: Nanos,
    events: BinaryHeap<Reverse<(Nanos, u64, E)>>,
    count: u64,
}

impl<E: Ord> Agenda<E> {
    pub(super) fn new() -> Self {
        Self { now: 0, events: BinaryHeap::new(), count: 0 }
    }

    /// Notes what is to happen at an instant.
    pub(super) fn note(&mut self, at: Nanos, event: E) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, event)));
    }

    /// The same, so long from now.
    pub(super) fn after(&mut self, time: Nanos, event: E) {
        self.note(self.now + time, event);
    }

    /// What happens next, which it is then the time of; none where nothing does before `end`.
    pub(super) fn next_before(&mut self, end: Nanos) -> Option<E> {
        if self.events.peek().is_none_or(|event| event.0.0 >= end) {
            return None;
        }
        let Reverse((at, _, event)) = self.events.pop()?;
        self.now = at;
        Some(event)
    }
}
