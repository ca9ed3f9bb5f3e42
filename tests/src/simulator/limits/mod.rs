//! What may stand before the simulated server: the agent's controller, and what others have published.

mod named;
mod ours;

pub use named::{Aimd, EnvoyGradient, FixedConcurrency, FixedRate, Gradient2, Unlimited, Vegas};
pub use ours::{Ours, Sees};

use throttle_agent::health::Nanos;

/// What was seen within a period of 100 ms.
#[derive(Clone, Copy, Debug)]
pub struct View<'s> {
    /// How long each took that ended, in nanoseconds, waiting included.
    pub completed: &'s [Nanos],
    /// What is under way at the end.
    pub in_flight: u32,
    /// What was under way at most.
    pub most_in_flight: u32,
}

impl View<'_> {
    /// The mean of what ended, where anything did.
    fn mean(&self) -> Option<f64> {
        let sum: Nanos = self.completed.iter().sum();
        (!self.completed.is_empty()).then(|| sum as f64 / self.completed.len() as f64)
    }

    /// The median of what ended.
    fn median(&self) -> Option<Nanos> {
        let mut sorted = self.completed.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

/// What decides whether a request may begin.
pub trait Limit {
    /// Whether one more may, where so many are under way.
    fn admit(&mut self, now: Nanos, in_flight: u32) -> bool;

    /// Takes what was seen within a period.
    fn look(&mut self, now: Nanos, view: &View<'_>);
}
