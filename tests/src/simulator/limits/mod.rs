//! What may stand before the simulated server: the agent's controller, and what others have published.

mod named;
mod ours;

pub use named::{Aimd, EnvoyGradient, FixedConcurrency, FixedRate, Gradient2, Unlimited, Vegas};
pub use ours::{Ours, Sees};

use std::collections::VecDeque;
use throttle_agent::health::{Nanos, controller::PERIOD};

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
    pub(super) fn median(&self) -> Option<Nanos> {
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

impl<L: Limit + ?Sized> Limit for &mut L {
    fn admit(&mut self, now: Nanos, in_flight: u32) -> bool {
        (**self).admit(now, in_flight)
    }

    fn look(&mut self, now: Nanos, view: &View<'_>) {
        (**self).look(now, view);
    }
}

/// A limit that hears late of what ended; what is under way it counts itself, and knows.
pub struct Delayed<L> {
    limit: L,
    periods: usize,
    under_way: VecDeque<Vec<Nanos>>,
}

impl<L> Delayed<L> {
    /// One that hears of it so much later.
    pub const fn new(limit: L, delay: Nanos) -> Self {
        Self { limit, periods: (delay / PERIOD) as usize, under_way: VecDeque::new() }
    }
}

impl<L: Limit> Limit for Delayed<L> {
    fn admit(&mut self, now: Nanos, in_flight: u32) -> bool {
        self.limit.admit(now, in_flight)
    }

    fn look(&mut self, now: Nanos, view: &View<'_>) {
        self.under_way.push_back(view.completed.to_vec());
        let arrived = self.under_way.len() > self.periods;
        let completed = if arrived { self.under_way.pop_front().unwrap_or_default() } else { Vec::new() };
        self.limit.look(now, &View { completed: &completed, ..*view });
    }
}
