//! A backend: its workers, and what waits for them.

use super::BACKENDS;
use crate::simulator::scenario::{Job, MEAN, WORKERS};
use std::collections::VecDeque;
use throttle_agent::health::{MILLISECOND, Nanos};

/// How long an answer takes that needs no work.
pub(super) const QUICK: Nanos = MILLISECOND;
const OWN_WORKERS: u32 = WORKERS / BACKENDS as u32;

#[derive(Debug, Default)]
pub(super) struct Backend {
    pub(super) queue: VecDeque<Job>,
    pub(super) busy: u32,
    /// What it never answers.
    pub(super) stuck: Vec<Job>,
}

impl Backend {
    /// What a worker begins now, if one is free and something waits.
    pub(super) fn take_up(&mut self) -> Option<Job> {
        if self.busy >= OWN_WORKERS {
            return None;
        }
        let job = self.queue.pop_front()?;
        self.busy += 1;
        Some(job)
    }

    /// A client has gone that was never to be answered. Whoever waits for work is worked for all the same.
    pub(super) fn forget(&mut self, client: u32, attempt: u8) {
        self.stuck.retain(|job| (job.client, job.attempt) != (client, attempt));
    }

    /// How long a probe would wait for a worker.
    pub(super) fn waits(&self) -> Nanos {
        self.queue.len() as Nanos * MEAN / Nanos::from(OWN_WORKERS)
    }
}
