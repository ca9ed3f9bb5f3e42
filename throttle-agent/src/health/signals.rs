//! What the controller may know of a service, each with its age: who measures says when, and what is old is not used.

use super::{Nanos, SECOND};

/// What is older is not used: as long as the kernel keeps to the agent's word, at the least.
pub const STALE: Nanos = 3 * SECOND;

/// Something that was measured at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aged<T> {
    /// What was measured.
    pub value: T,
    /// When.
    pub at: Nanos,
}

impl<T: Copy> Aged<T> {
    /// Its age, where it is not stale.
    pub fn fresh(self, now: Nanos) -> Option<(T, Nanos)> {
        let age = now.saturating_sub(self.at);
        (age < STALE).then_some((self.value, age))
    }
}

/// The time to the first byte of the answers that began within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Their median.
    pub median: Nanos,
    /// How many they are; of none the median says nothing.
    pub samples: u32,
}

/// What the service took in and gave back within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// What ended.
    pub completed: u32,
    /// What was under way at its end.
    pub in_flight: u32,
}

/// What waits to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// How many connections wait.
    pub waiting: u32,
    /// How many were accepted within the period.
    pub accepted: u32,
}

/// All of it, for one service and period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Time to first byte.
    pub latency: Option<Aged<Latency>>,
    /// Completions.
    pub flow: Option<Aged<Flow>>,
    /// The listening socket's queue.
    pub backlog: Option<Aged<Backlog>>,
    /// Whether the last heartbeat or probe was bad: failed, later than the objective, or telling of overload.
    pub bad_beat: Option<Aged<bool>>,
    /// Whether most of the backends that serve are suspect or dead: no beat comes of them, and no answer to a probe, or they
    /// refuse connections.
    pub silent: bool,
    /// Whether something overflowed within the period: the listening socket, or more than half of the answers errors.
    pub overflow: bool,
    /// How many places were taken at once at most within the period: the kernel counts them, so this is never old.
    pub most_in_flight: u32,
}
