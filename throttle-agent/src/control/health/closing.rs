//! Kept connections above a window are closed, as often as finding them costs little.

use std::time::Instant;

use super::Control;

/// The part of a CPU that finding them may take: a twentieth.
const PARTS: u32 = 20;

/// What was closed of a service.
#[derive(Debug, Default)]
pub(super) struct Closed {
    /// How many connections since the agent runs.
    pub(super) count: u64,
    /// When more may be looked for.
    next: Option<Instant>,
}

impl Control {
    /// Closes so many of the connections to a service that have been open longest.
    pub(super) fn close_oldest(&mut self, name: &str, count: u32) {
        let begin = Instant::now();
        let Some(followed) = self.health.services.get_mut(name) else { return };
        if count == 0 || followed.closed.next.is_some_and(|next| begin < next) {
            return;
        }
        let (closed, outcome) = self.datapath.close_oldest(followed.number, count as usize);
        followed.closed.next = Some(begin + begin.elapsed() * PARTS);
        followed.closed.count += closed as u64;
        let outcome = outcome.map_err(|error| format!("kept connections of {name} are not closed: {error:#}"));
        self.faults.note("closing", outcome);
    }
}
