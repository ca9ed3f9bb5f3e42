//! The alternatives that have a name, each by its published code and defaults; those that adapt look every 100 ms, as often
//! as ours does and more often than their own default of 1 s.

use super::{Limit, View};
use crate::simulator::dice::Dice;
use throttle_agent::health::{Nanos, SECOND, whole};

/// No limit.
pub struct Unlimited;

impl Limit for Unlimited {
    fn admit(&mut self, _: Nanos, _: u32) -> bool {
        true
    }

    fn look(&mut self, _: Nanos, _: &View<'_>) {}
}

/// So many requests a second, with a burst of a tenth of that.
pub struct FixedRate {
    rate: f64,
    tokens: f64,
    filled: Nanos,
}

impl FixedRate {
    /// A full bucket.
    pub const fn new(rate: f64) -> Self {
        Self { rate, tokens: rate / 10.0, filled: 0 }
    }
}

impl Limit for FixedRate {
    fn admit(&mut self, now: Nanos, _: u32) -> bool {
        self.tokens += (now - self.filled) as f64 / SECOND as f64 * self.rate;
        self.tokens = self.tokens.min(self.rate / 10.0);
        self.filled = now;
        let admitted = self.tokens >= 1.0;
        if admitted {
            self.tokens -= 1.0;
        }
        admitted
    }

    fn look(&mut self, _: Nanos, _: &View<'_>) {}
}

/// So many requests at once.
pub struct FixedConcurrency(pub u32);

impl Limit for FixedConcurrency {
    fn admit(&mut self, _: Nanos, in_flight: u32) -> bool {
        in_flight < self.0
    }

    fn look(&mut self, _: Nanos, _: &View<'_>) {}
}

/// Additive increase, multiplicative decrease as in Netflix' concurrency-limits: a tenth less when an answer takes longer
/// than the timeout, which is the clients' second here, one more while half is used; 20 to 200.
pub struct Aimd(f64);

impl Default for Aimd {
    fn default() -> Self {
        Self(20.0)
    }
}

impl Limit for Aimd {
    fn admit(&mut self, _: Nanos, in_flight: u32) -> bool {
        f64::from(in_flight) < self.0.floor()
    }

    fn look(&mut self, _: Nanos, view: &View<'_>) {
        if view.completed.iter().any(|wait| *wait > SECOND) {
            self.0 *= 0.9;
        } else if f64::from(view.most_in_flight) * 2.0 >= self.0 {
            self.0 += 1.0;
        }
        self.0 = self.0.clamp(20.0, 200.0);
    }
}

/// Vegas as in Netflix' concurrency-limits: the queue by Little's law against the least time seen, which is taken anew
/// every so often; 20 at first, 1 000 at most.
pub struct Vegas {
    limit: f64,
    least: f64,
    looks: f64,
    dice: Dice,
    jitter: f64,
}

impl Vegas {
    /// With a seed for the jitter of its probes.
    pub const fn new(seed: u64) -> Self {
        Self { limit: 20.0, least: f64::INFINITY, looks: 0.0, dice: Dice::new(seed), jitter: 0.75 }
    }
}

impl Limit for Vegas {
    fn admit(&mut self, _: Nanos, in_flight: u32) -> bool {
        f64::from(in_flight) < self.limit.floor()
    }

    fn look(&mut self, _: Nanos, view: &View<'_>) {
        let Some(time) = view.mean() else { return };
        self.looks += 1.0;
        if self.looks >= self.jitter * 30.0 * self.limit {
            (self.looks, self.least) = (0.0, time);
            self.jitter = 0.5 + self.dice.unit() / 2.0;
            return;
        }
        self.least = self.least.min(time);
        if f64::from(view.most_in_flight) * 2.0 < self.limit {
            return;
        }
        let log = self.limit.log10().floor().max(1.0);
        let queue = (self.limit * (1.0 - self.least / time)).ceil();
        self.limit = match queue {
            queue if queue <= log => self.limit + 6.0 * log,
            queue if queue < 3.0 * log => self.limit + log,
            queue if queue > 6.0 * log => self.limit - log,
            _ => self.limit,
        }
        .clamp(1.0, 1_000.0);
    }
}

/// Gradient2 as in Netflix' concurrency-limits: the long average against the short one, with a tolerance of 1.5; 20 to 200.
pub struct Gradient2 {
    limit: f64,
    long: f64,
    looks: f64,
}

impl Default for Gradient2 {
    fn default() -> Self {
        Self { limit: 20.0, long: 0.0, looks: 0.0 }
    }
}

impl Limit for Gradient2 {
    fn admit(&mut self, _: Nanos, in_flight: u32) -> bool {
        f64::from(in_flight) < self.limit.floor()
    }

    fn look(&mut self, _: Nanos, view: &View<'_>) {
        const WARM_UP: f64 = 10.0;
        let Some(short) = view.mean() else { return };
        self.looks += 1.0;
        if self.looks <= WARM_UP {
            self.long += (short - self.long) / self.looks;
        } else {
            self.long += (short - self.long) * 2.0 / 601.0;
        }
        if self.long / short > 2.0 {
            self.long *= 0.95;
        }
        if f64::from(view.most_in_flight) < self.limit / 2.0 {
            return;
        }
        let gradient = (1.5 * self.long / short).clamp(0.5, 1.0);
        self.limit = (0.8 * self.limit + 0.2 * (self.limit * gradient + 4.0)).clamp(20.0, 200.0);
    }
}

/// Envoy's gradient controller: the median against that of a window in which only 3 are let in, every 60 s; 3 to 1 000.
pub struct EnvoyGradient {
    limit: f64,
    least: f64,
    measuring: Option<Vec<Nanos>>,
    next: Nanos,
    at_least: u32,
    dice: Dice,
}

const FEWEST: f64 = 3.0;

impl EnvoyGradient {
    /// With a seed for the jitter of its windows.
    pub const fn new(seed: u64) -> Self {
        let measuring = Some(Vec::new());
        Self { limit: FEWEST, least: 0.0, measuring, next: 0, at_least: 0, dice: Dice::new(seed) }
    }
}

impl Limit for EnvoyGradient {
    fn admit(&mut self, _: Nanos, in_flight: u32) -> bool {
        let limit = if self.measuring.is_some() { FEWEST } else { self.limit };
        f64::from(in_flight) < limit.floor()
    }

    fn look(&mut self, now: Nanos, view: &View<'_>) {
        if let Some(samples) = &mut self.measuring {
            // What began before is left out: with 3 at once nothing that ends now is older than a few of their times.
            if f64::from(view.most_in_flight) <= FEWEST {
                samples.extend(view.completed);
            }
            if samples.len() >= 50 {
                samples.sort_unstable();
                self.least = samples[samples.len() / 2] as f64;
                self.measuring = None;
                self.next = now + whole(60.0 * SECOND as f64 * (1.0 + 0.15 * self.dice.unit()));
                self.limit = self.limit.max(FEWEST);
            }
            return;
        }
        if let Some(median) = view.median() {
            let gradient = (self.least * 1.25 / median as f64).clamp(0.5, 2.0);
            let grown = self.limit * gradient;
            self.limit = (grown + grown.sqrt()).clamp(FEWEST, 1_000.0);
        }
        self.at_least = if self.limit <= FEWEST { self.at_least + 1 } else { 0 };
        if now >= self.next || self.at_least >= 5 {
            (self.measuring, self.at_least) = (Some(Vec::new()), 0);
        }
    }
}
