//! Connections that are kept: a window that shrinks takes nothing from who has come before, so the oldest are closed.

use super::{Control, ServiceHealth, Terms};
use crate::health::controller::{Adjustment, Cause};

/// A period closes this part of what is open above the window: half of it, and one at least.
const PART: u32 = 2;

impl ServiceHealth {
    /// How many connections are to be closed, where so many are open; and what was decided, but for a window that runs ahead of
    /// what could be closed so far.
    pub(super) fn close(&mut self, adjustment: Adjustment, open: Option<u32>) -> (Adjustment, u32) {
        let Terms { control, enforces, closes, .. } = self.terms;
        let moves = control != Control::Fixed && adjustment.cause != Cause::NoSignal;
        match open.filter(|_| enforces && closes && moves) {
            Some(open) => {
                let adjustment = self.controller.wait_for(adjustment, open);
                (adjustment, part(open.saturating_sub(adjustment.window)))
            }
            None => (adjustment, 0),
        }
    }
}

fn part(above: u32) -> u32 {
    above.div_ceil(PART)
}
