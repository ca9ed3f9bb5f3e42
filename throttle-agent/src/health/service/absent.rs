//! Backends that are away: what was known of them is kept for a while.
//!
//! A name that has many addresses may answer with some of them, and with others the next time. Who is not among them is
//! neither asked nor counted; who comes back soon is as bad or as well as it was, its deaths and openings not forgotten.

use super::{Backend, Place};
use crate::health::{Nanos, detector::Detector, flapping::LONGEST_HOLD};

/// How long it is kept: a backend that comes and goes is held out for no longer.
const KEPT_FOR: Nanos = LONGEST_HOLD;
/// Of how many.
const MOST: usize = 1_024;

/// Those who are away, the longest away first.
#[derive(Clone, Debug, Default)]
pub(super) struct Absent(Vec<(Nanos, Backend, Detector)>);

impl Absent {
    /// Keeps what is known of one that goes.
    pub(super) fn keep(&mut self, now: Nanos, backend: Backend, detector: Detector) {
        self.0.retain(|(since, ..)| now.saturating_sub(*since) < KEPT_FOR);
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push((now, backend, detector));
    }

    /// Gives back what was known of one that comes and is to beat every `interval`, as it is to be judged now: that nobody
    /// asked it is no silence of its own.
    pub(super) fn take(&mut self, now: Nanos, place: &Place, interval: Nanos) -> Option<(Backend, Detector)> {
        let number = self.0.iter().position(|(_, backend, _)| backend.place == *place)?;
        let (since, mut backend, mut detector) = self.0.remove(number);
        let away = now.saturating_sub(since);
        if away >= KEPT_FOR || detector.interval() != interval {
            return None;
        }
        backend.circuit.breaker.look_again();
        detector.excuse(now, away);
        Some((backend, detector))
    }
}
