//! One service: its controller, its watch and its breakers, tied together.
//!
//! What was seen of backends comes in through [`ServiceHealth::see`], every [`LOOKS`] it looks at all of
//! them ([`ServiceHealth::look`]), and every [`PERIOD`](super::controller::PERIOD) it takes what the kernel measured and says
//! what holds from now on ([`ServiceHealth::step`]). Backends are known by their [`Place`]: what is held of one stays when
//! others come and go.
//!
//! The speed of the limits' clock is the least of what the control says and of the share that its backends may have, all
//! together, and so is the window, of what policy allows. A service that only observes decides all the same, and publishes
//! nothing but what an operator forces.

use std::collections::HashMap;

use throttle_common::speed::Speed;

pub use self::backends::{Backend, Wanted};
pub use super::transition::{Chronicle, Kept, Place, Transition, What};
use super::{
    Nanos,
    breaker::{Breaker, State},
    circuit::Outcomes,
    controller::{self, Adjustment, Cause, Controller},
    followed::Followed,
    pacer::Pacer,
    scale_out::ScaleOut,
    signals::{Aged, Signals},
    trials::Circuit,
    watch::{LOOKS, Watch},
    whole,
};

mod absent;
mod backends;
mod breaking;
mod closing;

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;

/// What moves with the health of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The window of open connections, by latency or what stands in for it, and the speed as its guard.
    Latency,
    /// The speed alone, by the same signals.
    Rate,
    /// The window, by heartbeats alone.
    Aimd,
    /// Nothing: only breakers act.
    Fixed,
}

/// What policy says of a service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// What moves.
    pub control: Control,
    /// Whether what is decided is put in force, or only shown.
    pub enforces: bool,
    /// Whether breakers keep new connections from what fails.
    pub breaks: bool,
    /// Whether connections that are kept are closed while more are open than the window admits.
    pub closes: bool,
    /// Its bounds.
    pub bounds: controller::Terms,
}

/// What was seen of the service within a period, beside its backends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// What the kernel measured; `bad_beat` is not asked for, [`ServiceHealth::see`] says it.
    pub signals: Signals,
    /// What became of its own connections.
    pub outcomes: Outcomes,
    /// Trials that the kernel has admitted to it in the round that runs, those that were published as spent among them.
    pub taken: u32,
    /// The same of each backend, in the order of [`ServiceHealth::backends`].
    pub backends_taken: Vec<u32>,
    /// Connections that are open, where they are counted.
    pub open: Option<u32>,
    /// What was refused for want of a place or of rate.
    pub refused: u64,
    /// What its rates admitted, as a share of what they allow.
    pub admitted: Option<f64>,
}

/// What holds from now on.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The window to publish; none where policy's holds.
    pub window: Option<u32>,
    /// How many of the connections that are open longest are to be closed now.
    pub closes: u32,
    /// The speed to publish: that of real time where none is needed.
    pub speed: Speed,
    /// The service's breaker as it is to be published.
    pub breaker: State,
    /// The backends' breakers, in their order.
    pub backends: Vec<State>,
    /// What has changed.
    pub transitions: Vec<Transition>,
}

/// The health of one service.
#[derive(Clone, Debug)]
pub struct ServiceHealth {
    terms: Terms,
    controller: Controller,
    pacer: Pacer,
    watch: Watch,
    backends: Vec<Backend>,
    numbers: HashMap<Place, usize>,
    absent: absent::Absent,
    /// How many backends policy declares; not all may have been found.
    declared: usize,
    circuit: Circuit,
    scale_out: ScaleOut,
    followed: Followed,
    /// When the last beat came.
    last_beat: Nanos,
    bad_beat: Option<Aged<bool>>,
    last: Option<Adjustment>,
    doubts: bool,
}

impl ServiceHealth {
    /// One of which nothing is known yet: all as policy says.
    pub fn new(now: Nanos, terms: Terms) -> Self {
        Self {
            terms,
            controller: Controller::new(terms.bounds),
            pacer: Pacer::default(),
            watch: Watch::new(now, 0, super::detector::INTERVAL, LOOKS),
            backends: Vec::new(),
            numbers: HashMap::new(),
            absent: absent::Absent::default(),
            declared: 0,
            circuit: Circuit::of(Breaker::of_service(now)),
            scale_out: ScaleOut::default(),
            followed: Followed::default(),
            last_beat: 0,
            bad_beat: None,
            last: None,
            doubts: false,
        }
    }

    /// Goes on from what an agent before this one left in force, so that nothing jumps: a window where there is one, a speed,
    /// and the time to first byte that was usual.
    pub fn resume(&mut self, now: Nanos, window: Option<u32>, speed: Speed, usual: Option<Nanos>) {
        let window = window.unwrap_or(self.terms.bounds.fixed);
        self.controller.resume(now, window, speed, usual);
        self.pacer.resume(speed);
    }

    /// Goes on from what an agent before this one told of the service itself: whether it needs more workers, and whether
    /// verdicts wait.
    pub const fn resume_said(&mut self, wants_more: bool, doubts: bool) {
        if wants_more {
            self.scale_out = ScaleOut::wanting();
        }
        self.doubts = doubts;
    }

    /// Begins again with what policy says, because what was in force has lapsed: after more than a lease nobody is to jump back
    /// to what held before. What is usual stays known, and so does all that is held of backends.
    pub fn lapse(&mut self) {
        self.controller.lapse();
        self.pacer = Pacer::default();
    }

    /// Goes by other terms from now on; what is known stays.
    pub fn follow(&mut self, terms: Terms) {
        self.terms = terms;
        self.controller.follow(terms.bounds);
    }

    /// By which terms it goes.
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The share of its load that the service may have: that of its backends, all together.
    pub fn share(&self, now: Nanos) -> f64 {
        let shares = (0..self.backends.len()).map(|backend| self.watch.share(backend, now));
        if self.backends.is_empty() { 1.0 } else { shares.sum::<f64>() / self.backends.len() as f64 }
    }

    /// What was last decided, whether it is in force or not.
    pub const fn adjustment(&self) -> Option<&Adjustment> {
        self.last.as_ref()
    }

    /// The time to first byte that is usual, where it is known.
    pub fn usual(&self) -> Option<Nanos> {
        self.controller.usual()
    }

    /// Its own breaker.
    pub const fn breaker(&self) -> &Breaker {
        &self.circuit.breaker
    }

    /// What the last heartbeats were, of each backend one: bad, where most were.
    pub const fn bad_beat(&self) -> Option<Aged<bool>> {
        self.bad_beat
    }

    /// Whether it needs more workers than it has.
    pub const fn wants_more(&self) -> bool {
        self.scale_out.wants()
    }

    /// Whether verdicts wait because the fault may be the observer's.
    pub const fn doubts(&self) -> bool {
        self.doubts
    }

    /// Takes what was seen within the last period, and says what holds for the next. `dice` is drawn evenly from 0 (included)
    /// to 1 (excluded), anew for each breaker.
    pub fn step(&mut self, now: Nanos, observed: &Observed, mut dice: impl FnMut() -> f64) -> Decision {
        let Terms { control, enforces, breaks, .. } = self.terms;
        let mut transitions = Vec::new();
        let (signals, share) = (self.visible(now, observed), self.share(now));
        let adjustment = self.controller.step(now, &signals, share);
        let adjustment = if enforces { adjustment } else { self.controller.imagine(adjustment) };
        let (adjustment, closes) = self.close(adjustment, observed.open);
        // Nothing is closed for a suspicion, which may be wrong.
        let adjustment = self.back_off(adjustment, share);
        let paced = self.pacer.step(&adjustment, observed.admitted).min(share);
        let speed = match control {
            Control::Rate => Speed::of_parts(whole(paced * Speed::ONE.parts() as f64)).unwrap_or(Speed::LEAST),
            Control::Latency | Control::Aimd => adjustment.speed,
            Control::Fixed => Speed::ONE,
        };
        let adjustment = Adjustment { speed, ..adjustment };
        self.last = Some(adjustment);
        if let Some((from, to)) = self.followed.step(now, adjustment.rung) {
            transitions.push(Transition { at: now, place: None, what: What::Signal { from, to } });
        }
        if let Some(wants) = self.scale_out.step(now, self.is_short(&adjustment, observed)) {
            transitions.push(Transition { at: now, place: None, what: What::ScaleOut(wants) });
        }
        transitions.extend(self.step_breakers(now, observed, &mut dice));
        let acts = enforces && breaks;
        Decision {
            window: (enforces && moves_window(control) && (adjustment.cause != Cause::NoSignal || share < 1.0))
                .then_some(adjustment.window),
            closes,
            speed: if enforces { speed } else { Speed::ONE },
            breaker: self.circuit.published(acts),
            backends: self.backends.iter().map(|it| it.circuit.published(acts)).collect(),
            transitions,
        }
    }

    /// What the share of its backends leaves of the window, by what policy allows at most.
    fn back_off(&self, adjustment: Adjustment, share: f64) -> Adjustment {
        let controller::Terms { least, most, .. } = self.terms.bounds;
        let left = (whole(share * f64::from(most)) as u32).max(least);
        Adjustment { window: adjustment.window.min(left), ..adjustment }
    }

    /// The signals that the control goes by.
    fn visible(&mut self, now: Nanos, observed: &Observed) -> Signals {
        self.hear_beats(now);
        let (bad_beat, silent) = (self.bad_beat, self.are_most_silent(now));
        let mut signals = Signals { bad_beat, silent, ..observed.signals };
        if let Some((latency, beside)) = signals.latency.as_mut().zip(self.beside_errors()) {
            latency.value.median = latency.value.median.max(beside);
        }
        match self.terms.control {
            Control::Latency | Control::Rate => signals,
            Control::Aimd => Signals { latency: None, flow: None, backlog: None, ..signals },
            Control::Fixed => Signals { most_in_flight: signals.most_in_flight, ..Signals::default() },
        }
    }

    /// Whether it was asked for more than it may bear.
    fn is_short(&self, adjustment: &Adjustment, observed: &Observed) -> bool {
        let late = adjustment.delay.is_some_and(|delay| delay > adjustment.target);
        observed.refused > 0
            || late && adjustment.cause != Cause::NoSignal && adjustment.window >= self.terms.bounds.most
    }
}

const fn moves_window(control: Control) -> bool {
    matches!(control, Control::Latency | Control::Aimd)
}
