//! Flap damping: who dies often is held back for longer each time.
//!
//! As routes are damped (RFC 2439): each death adds a penalty, which halves with time; above one bound the backend is held
//! when it comes back, until the penalty has sunk below another or the hold has lasted as long as it may.

use super::{Nanos, SECOND};

/// What a death adds (RFC 2439, as routers set it).
pub const PENALTY: f64 = 1_000.0;
/// In so long a penalty halves. Routes take 15 minutes; a backend is restarted more often.
pub const HALF_LIFE: Nanos = 60 * SECOND;
/// Above this a backend is held.
pub const SUPPRESS: f64 = 2_500.0;
/// Below this it is let go.
pub const REUSE: f64 = 750.0;
/// How long it is held at most for each death that is not forgotten, as Envoy ejects.
pub const HOLD: Nanos = 30 * SECOND;
/// How long at most however many there were (Envoy).
pub const LONGEST_HOLD: Nanos = 300 * SECOND;

/// How often one backend died lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flapping {
    penalty: f64,
    at: Nanos,
    /// Deaths since the penalty was last below [`REUSE`].
    deaths: u64,
    held_until: Option<Nanos>,
}

impl Flapping {
    /// That of one that is held from now on for [`HOLD`]: how often it died is not known.
    pub fn held(now: Nanos) -> Self {
        Self { penalty: SUPPRESS, at: now, deaths: 1, held_until: Some(now + HOLD) }
    }

    /// The penalty at an instant.
    pub fn penalty(&self, now: Nanos) -> f64 {
        self.penalty * 0.5f64.powf(now.saturating_sub(self.at) as f64 / HALF_LIFE as f64)
    }

    /// Counts a death.
    pub fn count(&mut self, now: Nanos) {
        let penalty = self.penalty(now);
        self.deaths = if penalty < REUSE { 1 } else { self.deaths + 1 };
        (self.penalty, self.at) = (penalty + PENALTY, now);
    }

    /// Whether it is held when it comes back at `now`; then it is, until [`Flapping::released`].
    pub fn holds(&mut self, now: Nanos) -> bool {
        let holds = self.penalty(now) > SUPPRESS;
        self.held_until = holds.then(|| now + HOLD.saturating_mul(self.deaths).min(LONGEST_HOLD));
        holds
    }

    /// Whether it has been held for long enough.
    pub fn released(&self, now: Nanos) -> bool {
        self.penalty(now) < REUSE || self.held_until.is_none_or(|until| now >= until)
    }
}
