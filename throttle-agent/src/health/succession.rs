//! Which of two heartbeats is the later, and whether it is of another start of the backend.
//!
//! Within a start sequences grow, within a boot of the host generations do, and of another boot nothing is known but that it
//! is not the one before. What comes late of a start that is over is no heartbeat, for as long as the one after it beats. Once
//! that is silent for long it may be over itself, and whoever beats then is the later: a generation that is a wall clock's
//! time may be lower after the clock was set back, and who beats must not be kept out for as long as that.

use super::{Nanos, detector::HANGS_AFTER, life::Incarnation, suspicion::is_silence};

#[cfg(test)]
#[path = "succession_tests.rs"]
mod tests;

/// The heartbeats of a backend, one start after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Succession {
    last: Option<Last>,
    /// The start before the last one's.
    former: Option<Incarnation>,
}

/// The latest heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    of: Incarnation,
    sequence: u64,
    at: Nanos,
}

/// How a heartbeat stands to what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It is the latest.
    Fresh,
    /// It is the latest, and the first of another start.
    Restarted,
    /// It is the last one, once more.
    Repeated,
    /// It is older than that.
    Late,
}

impl Order {
    /// Whether it is the latest.
    pub const fn is_fresh(self) -> bool {
        matches!(self, Self::Fresh | Self::Restarted)
    }
}

impl Succession {
    /// Takes a heartbeat of a backend that is to beat every `interval`, if it is the latest.
    pub fn take(&mut self, now: Nanos, interval: Nanos, of: Incarnation, sequence: u64) -> Order {
        let order = self.order(now, interval, of, sequence);
        if order == Order::Restarted {
            self.former = self.last.map(|last| last.of);
        }
        if order.is_fresh() {
            self.last = Some(Last { of, sequence, at: now });
        }
        order
    }

    fn order(&self, now: Nanos, interval: Nanos, of: Incarnation, sequence: u64) -> Order {
        let Some(last) = self.last else { return Order::Fresh };
        if last.of == of {
            return match sequence.cmp(&last.sequence) {
                std::cmp::Ordering::Greater => Order::Fresh,
                std::cmp::Ordering::Equal => Order::Repeated,
                std::cmp::Ordering::Less => Order::Late,
            };
        }
        let silence = now.saturating_sub(last.at);
        if silence >= HANGS_AFTER && is_silence(silence, interval, 1) {
            return Order::Restarted;
        }
        let is_older = last.of.boot == of.boot && last.of.generation > of.generation;
        let is_former = self.former.is_some_and(|it| it.boot == of.boot && it.generation >= of.generation);
        if is_older || is_former { Order::Late } else { Order::Restarted }
    }
}
