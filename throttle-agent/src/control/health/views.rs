//! How the health of services stands, in the words of the API.

use std::fmt::Write as _;

use throttle_common::{
    breakers::{Forced, State},
    speed::Speed,
};

use super::{Control, Followed, Nanos, groups::Stalled, listening::Waiting, notices, standings::Shown};
use crate::{
    api::wire::{
        BackendHealthView, BreakerView, HealthLine, HealthReport, PressureView, Problem, ProblemKind,
        ServiceHealthView, SignalView, TransitionView, WaitingView, WindowView,
    },
    control::speeds::ratio,
    health::{
        SECOND,
        breaker::Breaker,
        controller::{Adjustment, Cause, Rung},
        detector::Detector,
        names::{actuator, control, level, rung, state},
        service::{Backend, Control as Moves, Kept, Place},
        signals::Flow,
        words::{self as said, span},
    },
    policy::{Mode, word::one_of},
};

/// Changes that one answer shows.
const SHOWN: usize = 100;

impl Control {
    /// How the health of services stands, or that of one.
    pub fn health(&self, service: Option<&str>) -> Result<HealthReport, Problem> {
        let now = self.datapath.now();
        let wanted = |name: &str| service.is_none_or(|service| service == name);
        let services: Vec<_> = self.health.services.iter().filter(|(name, _)| wanted(name)).collect();
        if let (Some(service), true) = (service, services.is_empty()) {
            let names: Vec<&str> = self.health.services.keys().map(|name| &**name).collect();
            let remedy = if names.is_empty() { "none does".to_owned() } else { one_of(service, &names) };
            let detail = format!("there is no service `{service}` that follows its health; {remedy}");
            return Err(Problem::new(ProblemKind::NotFound, detail));
        }
        let kept = self.health.chronicle.iter().filter(|it| wanted(&it.service)).take(SHOWN);
        Ok(HealthReport {
            services: services.into_iter().map(|(name, followed)| self.health_view(name, followed, now)).collect(),
            transitions: kept.map(|it| self.transition_view(it)).collect(),
            transitions_in_all: self.health.chronicle.count(),
            notices_lost: self.health.notices.lost(),
            cpu_pressure: self.health.pressure.share,
        })
    }

    /// The health of all services that follow theirs, a line each.
    pub(in crate::control) fn health_lines(&self) -> Vec<HealthLine> {
        self.health.services.keys().filter_map(|name| self.health_line(name)).collect()
    }

    /// The health of a service in a line, where it follows its own.
    pub(in crate::control) fn health_line(&self, service: &str) -> Option<HealthLine> {
        let (name, followed) = self.health.services.get_key_value(service)?;
        Some(HealthLine::from(&self.health_view(name, followed, self.datapath.now())))
    }

    fn transition_view(&self, Kept { number, service, transition, said }: &Kept) -> TransitionView {
        notices::view(*number, service, transition, self.clock.wall(transition.at), said.clone())
    }

    fn health_view(&self, name: &str, followed: &Followed, now: Nanos) -> ServiceHealthView {
        let (health, shown) = (&followed.health, &followed.earlier.shown);
        let (terms, adjustment) = (health.terms(), health.adjustment());
        let moves_window = matches!(terms.control, Moves::Latency | Moves::Aimd);
        let window = moves_window.then(|| WindowView {
            decided: adjustment.map_or(terms.bounds.fixed, |it| it.window),
            in_force: self.datapath.window_state(followed.clock).map(|window| window.connections),
            policy: terms.bounds.fixed,
            least: terms.bounds.least,
            most: terms.bounds.most,
            open: followed.earlier.open,
        });
        let target = adjustment.map_or(0, |it| it.target);
        let view = ServiceHealthView {
            service: name.to_owned(),
            mode: if terms.enforces { Mode::Enforce } else { Mode::Observe },
            control: control(terms.control).to_owned(),
            actuator: actuator(terms.control, terms.closes).to_owned(),
            signal: rung(adjustment.map_or(Rung::Static, |it| it.rung)).to_owned(),
            summary: String::new(),
            cause: cause(adjustment, terms.enforces && refuses(health.breaker().state()), health.share(now)),
            signals: signals(followed, now),
            delay_seconds: adjustment.and_then(|it| it.delay).map(seconds),
            target_seconds: seconds(target),
            usual_seconds: health.usual().map(seconds),
            window,
            speed: ratio(adjustment.map_or(Speed::ONE, |it| it.speed)),
            speed_in_force: ratio(self.datapath.clock_state(followed.clock).speed),
            share: health.share(now),
            refused_per_second: shown.refused_per_second,
            answered_per_second: shown.answered_per_second,
            closed: followed.closed.count,
            waiting: shown.waiting.as_ref().map(|(waiting, _)| WaitingView {
                connections: waiting.connections,
                room: waiting.room,
                handshakes: waiting.handshakes,
                sent_again: waiting.sent_again,
            }),
            pressure: shown.stalled.map(|(Stalled { cpu, memory, io }, _)| PressureView { cpu, memory, io }),
            breaker: followed.breaker.map(|_| {
                let breaker = health.breaker();
                let tries_at = if let State::Open { until } = breaker.state() { Some(until) } else { None };
                self.breaker_view(name, None, breaker, tries_at)
            }),
            needs_workers: health.wants_more(),
            doubts: health.doubts(),
            backends: health
                .backends(now)
                .zip(&followed.breakers)
                .map(|((it, detector, share), number)| self.backend_view(name, it, detector, share, *number))
                .collect(),
        };
        ServiceHealthView { summary: summary(&view, adjustment, followed.is_blind()), ..view }
    }

    fn backend_view(
        &self,
        service: &str,
        it: &Backend,
        detector: &Detector,
        share: f64,
        breaker: Option<u16>,
    ) -> BackendHealthView {
        let (now, place) = (self.datapath.now(), it.place());
        let Shown { since, why } = self.standing_of(service, place, detector.level());
        BackendHealthView {
            backend: place.backend.to_string(),
            address: place.address,
            level: level(detector.level()).to_owned(),
            since_seconds: self.passed_since(since, detector.since(), now),
            why,
            suspicion: detector.phi(now),
            share,
            latency_seconds: it.latency().map(seconds),
            breaker: breaker.map(|number| {
                let tries_at = self.health.services.get(service).and_then(|it| it.health.tries_at(place));
                let own = self.breaker_view(service, Some(place), it.breaker(), tries_at);
                let in_force = self.joined(number).map(|holds| state(holds).to_owned());
                BreakerView {
                    shared_with: self.sharers(number, service, &place.backend),
                    in_force: in_force.filter(|holds| *holds != own.state),
                    ..own
                }
            }),
        }
    }

    fn breaker_view(&self, service: &str, place: Option<&Place>, it: &Breaker, tries_at: Option<Nanos>) -> BreakerView {
        let (now, name) = (self.datapath.now(), state(it.state()));
        let Shown { since, why } = self.standing_of_breaker(service, place, name);
        BreakerView {
            state: name.to_owned(),
            since_seconds: self.passed_since(since, it.since(), now),
            why,
            tries_in_seconds: tries_at.map(|at| seconds(at.saturating_sub(now))),
            trials_left: if let State::HalfOpen { left } = it.state() { Some(left) } else { None },
            held_by: self.holder(service, place.map(|it| &*it.backend)).map(str::to_owned),
            shared_with: Vec::new(),
            in_force: None,
        }
    }

    /// Seconds since something is so: since a moment before this agent, where it did not see it begin.
    fn passed_since(&self, before: Option<jiff::Timestamp>, own: Nanos, now: Nanos) -> f64 {
        before.map_or_else(
            || seconds(now.saturating_sub(own)),
            |before| self.clock.wall(now).duration_since(before).as_secs_f64().max(0.0),
        )
    }
}

/// All of it in a sentence.
fn summary(view: &ServiceHealthView, adjustment: Option<&Adjustment>, blind: bool) -> String {
    let follows = said::signal(adjustment.map_or(Rung::Static, |it| it.rung));
    let mut text = match &view.window {
        Some(window) => format!("{}; it follows {follows}: {}", places(window, view.mode), view.cause),
        None if view.control == "rate" => {
            let are = if view.mode == Mode::Observe { "would be" } else { "are" };
            let admitted = view.speed * 100.0;
            format!("its rates {are} admitted at {admitted:.0} %; it follows {follows}: {}", view.cause)
        }
        None => "its limits do not move; only breakers act".to_owned(),
    };
    if view.window.is_some() && view.speed < 1.0 {
        _ = write!(text, "; its clock is to run at {:.2}", view.speed);
    }
    if blind {
        text += "; no latency is measured of what it speaks";
    }
    if view.mode == Mode::Observe {
        text += " (only shown: `mode = \"enforce\"` in its health puts it in force)";
    }
    text
}

const fn refuses(state: State) -> bool {
    matches!(state, State::Open { .. } | State::Forced(Forced::Open))
}

/// Why the window is what it is, in words: where nobody asks, also what keeps them from it.
fn cause(adjustment: Option<&Adjustment>, refuses: bool, share: f64) -> String {
    let Some(adjustment) = adjustment else { return "it has not been looked at yet".to_owned() };
    match adjustment.cause {
        Cause::Idle if refuses => "its breaker lets nobody in".to_owned(),
        Cause::Idle if share < 1.0 => format!("nobody asks for anything; its backends leave {:.0} %", share * 100.0),
        _ => said::cause(adjustment),
    }
}

/// How many connections may be open, and are; where that is only shown, also how many might be by health.
fn places(window: &WindowView, mode: Mode) -> String {
    let WindowView { in_force, policy, decided, open, .. } = *window;
    let most = in_force.map_or_else(
        || format!("policy's {policy} connections may be open"),
        |in_force| format!("{in_force} of {policy} connections may be open"),
    );
    let open = open.map_or_else(String::new, |open| format!(", {open} are"));
    let shown = if mode == Mode::Observe { format!(", by health {decided} might be") } else { String::new() };
    format!("{most}{open}{shown}")
}

/// What was seen of a service, each with its age.
fn signals(followed: &Followed, now: Nanos) -> Vec<SignalView> {
    let shown = &followed.earlier.shown;
    let mut all = Vec::new();
    let mut add = |name: &str, at: Nanos, value: String| {
        all.push(SignalView {
            name: name.to_owned(),
            value,
            age_seconds: now.saturating_sub(at) as f64 / SECOND as f64,
        });
    };
    if let Some(latency) = shown.signals.latency {
        let p99 = shown.p99.map_or_else(String::new, |p99| format!(", 99 % within {}", span(p99.as_nanos() as Nanos)));
        let value = match latency.value.samples {
            0 => "no answer in the last period".to_owned(),
            samples => {
                let beside = followed.health.beside_errors().map_or_else(String::new, |took| {
                    format!("; most backends answer with errors, and probes of the others take {}", span(took))
                });
                format!("{} in the middle of {samples} answers{p99}{beside}", span(latency.value.median))
            }
        };
        add("latency", latency.at, value);
    }
    if let Some(flow) = shown.signals.flow {
        add("flow", flow.at, under_way(flow.value, shown.resets));
    }
    if let Some((Waiting { connections, room, handshakes, sent_again, .. }, at)) = &shown.waiting {
        add("backlog", *at, backlog(*connections, *room, shown.full));
        let again = if *sent_again > 0 { format!(", {sent_again} of them again") } else { String::new() };
        add("handshakes", *at, format!("{handshakes} SYN-ACKs wait to be acknowledged{again}"));
    }
    if let Some((Stalled { cpu, memory, io }, at)) = shown.stalled {
        let [cpu, memory, io] = [cpu, memory, io].map(|share| share * 100.0);
        let value = format!(
            "its processes waited {cpu:.0} % of the time for a CPU, {memory:.0} % for memory, {io:.0} % for disks"
        );
        add("pressure", at, value);
    }
    if let Some(beat) = followed.health.bad_beat() {
        let value = if beat.value { "most are bad, late or overloaded" } else { "they are good" };
        add("heartbeats", beat.at, value.to_owned());
    }
    all
}

fn under_way(Flow { completed, in_flight }: Flow, resets: bool) -> String {
    let resets = if resets { "; more requests were reset than answered" } else { "" };
    format!("{in_flight} under way, {completed} ended in the last period{resets}")
}

fn backlog(connections: u32, room: u32, full: bool) -> String {
    let full = if full { ", it overflows" } else { "" };
    format!("{connections} of {room} wait to be accepted{full}")
}

fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / SECOND as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_health_only_observes_it_says_which_window_it_would_set() {
        let window = WindowView { decided: 38, policy: 200, open: Some(90), ..WindowView::default() };
        assert_eq!(places(&window, Mode::Enforce), "policy's 200 connections may be open, 90 are");
        let shown = "policy's 200 connections may be open, 90 are, by health 38 might be";
        assert_eq!(places(&window, Mode::Observe), shown);
        let held = WindowView { in_force: Some(38), open: None, ..window };
        assert_eq!(places(&held, Mode::Enforce), "38 of 200 connections may be open");
    }

    #[test]
    fn where_nobody_asks_it_says_what_keeps_them_from_it() {
        let speed = Speed::ONE;
        let idle = Adjustment {
            window: 9,
            speed,
            rung: Rung::Latency,
            cause: Cause::Idle,
            delay: None,
            target: 0,
            loaded: false,
        };
        let said = |refuses, share| cause(Some(&idle), refuses, share);
        assert_eq!(said(false, 1.0), "nobody asks for anything: it goes back to what policy says");
        assert_eq!(said(false, 0.7), "nobody asks for anything; its backends leave 70 %");
        assert_eq!(said(true, 0.7), "its breaker lets nobody in");
    }

    #[test]
    fn an_overflow_is_said_of_the_signal_that_showed_it() {
        let flow = Flow { completed: 3, in_flight: 40 };
        assert_eq!(under_way(flow, false), "40 under way, 3 ended in the last period");
        let reset = "40 under way, 3 ended in the last period; more requests were reset than answered";
        assert_eq!(under_way(flow, true), reset);
        assert_eq!(backlog(0, 128, false), "0 of 128 wait to be accepted");
        assert_eq!(backlog(128, 128, true), "128 of 128 wait to be accepted, it overflows");
    }
}
