//! The agent's controller, with the signals that a kernel would give it, and a policy limit on the clock that it drives.

use super::{Limit, View};
use crate::simulator::scenario::{CAPACITY, OBJECTIVE, WORKERS};
use std::collections::VecDeque;
use throttle_agent::health::{
    Nanos, SECOND,
    controller::{Adjustment, Controller, PERIOD, Terms},
    signals::{Aged, Backlog, Flow, Latency, Signals},
    whole,
};
use throttle_common::speed::Speed;

/// What the controller gets to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    /// Time to first byte, and completions.
    Latency,
    /// Completions only.
    Flow,
    /// Only what waits and what is taken up.
    Backlog,
}

/// The agent's controller.
pub struct Ours {
    controller: Controller,
    sees: Sees,
    /// How old the signals are that it gets.
    delay: Nanos,
    under_way: VecDeque<Signals>,
    /// What it last decided.
    pub last: Option<Adjustment>,
    window: u32,
    speed: f64,
    /// Of the policy's limit: twice the capacity, with a burst of a tenth of a second.
    tokens: f64,
    filled: Nanos,
}

const RATE: f64 = 2.0 * CAPACITY;

impl Ours {
    /// One whose policy allows 1 000 at once, and 100 where nothing is known.
    pub fn new(sees: Sees, delay: Nanos) -> Self {
        let terms = Terms { objective: OBJECTIVE, least: 2, most: 1_000, fixed: 100, rate: Some(RATE) };
        Self {
            controller: Controller::new(terms),
            sees,
            delay,
            under_way: VecDeque::new(),
            last: None,
            window: terms.fixed,
            speed: 1.0,
            tokens: RATE / 10.0,
            filled: 0,
        }
    }
}

impl Limit for Ours {
    fn admit(&mut self, now: Nanos, in_flight: u32) -> bool {
        self.tokens += (now - self.filled) as f64 / SECOND as f64 * RATE * self.speed;
        self.tokens = self.tokens.min(RATE / 10.0);
        self.filled = now;
        let admitted = in_flight < self.window && self.tokens >= 1.0;
        if admitted {
            self.tokens -= 1.0;
        }
        admitted
    }

    fn look(&mut self, now: Nanos, view: &View<'_>) {
        let completed = view.completed.len() as u32;
        let latency = Latency { median: of_histogram(view).unwrap_or_default(), samples: completed };
        let flow = Flow { completed, in_flight: view.in_flight };
        let waiting = view.in_flight.saturating_sub(WORKERS);
        let mut signals = Signals { most_in_flight: view.most_in_flight, ..Signals::default() };
        match self.sees {
            Sees::Latency => {
                signals.latency = Some(Aged { value: latency, at: now });
                signals.flow = Some(Aged { value: flow, at: now });
            }
            Sees::Flow => signals.flow = Some(Aged { value: flow, at: now }),
            Sees::Backlog => signals.backlog = Some(Aged { value: Backlog { waiting, accepted: completed }, at: now }),
        }
        self.under_way.push_back(signals);
        let arrived = self.under_way.len() as u64 > self.delay / PERIOD;
        let mut seen = if arrived { self.under_way.pop_front().unwrap_or_default() } else { Signals::default() };
        seen.most_in_flight = view.most_in_flight;
        let decided = self.controller.step(now, &seen, 1.0);
        (self.window, self.last) = (decided.window, Some(decided));
        self.speed = decided.speed.parts() as f64 / Speed::ONE.parts() as f64;
    }
}

/// The median as a histogram by powers of two gives it: as if what is in a bucket lay evenly in it.
fn of_histogram(view: &View<'_>) -> Option<Nanos> {
    let bucket = |wait: Nanos| wait.max(1).ilog2();
    let median = bucket(view.median()?);
    let count = |holds: &dyn Fn(u32) -> bool| view.completed.iter().filter(|wait| holds(bucket(**wait))).count() as f64;
    let (below, within) = (count(&|of| of < median), count(&|of| of == median));
    let share = (view.completed.len() as f64 / 2.0 - below) / within;
    Some(whole(2f64.powf(f64::from(median)) * (1.0 + share.clamp(0.0, 1.0))))
}
