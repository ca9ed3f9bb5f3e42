//! The figures of the health of services. A backend of several places is counted under its name: no label holds an address.

use std::fmt;

use super::{Labels, Writer, gauge};
use crate::api::wire::{BackendHealthView, BreakerView, PressureView, ServiceHealthView, Status, WaitingView};

/// What limits may follow, each with its own sample.
const SIGNALS: [&str; 5] = ["latency", "little", "backlog", "heartbeats", "static"];
/// What may be held of a backend.
const LEVELS: [&str; 5] = ["healthy", "suspect", "dead", "recovering", "held"];
/// The states of a breaker.
const STATES: [&str; 5] = ["closed", "open", "half-open", "held-open", "held-closed"];

pub(super) fn write(to: &mut Writer, status: &Status) -> Result<(), fmt::Error> {
    let all = &status.health;
    let windows = |pick: fn(&ServiceHealthView) -> Option<u32>| {
        all.iter().filter_map(move |view| Some((of(view), gauge(pick(view)?.into()))))
    };
    let decided = windows(|view| view.window.map(|window| window.decided));
    to.gauges("health_window_connections", "Connections that health would have open at once", decided)?;
    let in_force = windows(|view| view.window.and_then(|window| window.in_force));
    to.gauges("health_window_in_force", "Connections that may be open at once by health", in_force)?;
    let speeds = all.iter().map(|view| (of(view), view.speed));
    to.ratios("health_speed_ratio", "How fast health would have a service's clock run", speeds)?;
    let shares = all.iter().map(|view| (of(view), view.share));
    to.ratios("health_share_ratio", "The share of its load that backends leave to a service", shares)?;
    let delays = all.iter().filter_map(|view| Some((of(view), view.delay_seconds?)));
    to.ratios("health_delay_seconds", "How long requests wait beyond what is usual", delays)?;
    let signals = all
        .iter()
        .flat_map(|view| SIGNALS.map(|signal| (with(of(view), "signal", signal), i64::from(view.signal == signal))));
    to.gauges("health_signal", "1 for what the limits of a service follow", signals)?;
    let closed = all.iter().map(|view| (of(view), view.closed));
    to.counters("health_closed", "Kept connections that were closed above the window, the oldest first", closed)?;
    let queues = |pick: fn(&WaitingView) -> u32| {
        all.iter().filter_map(move |view| Some((of(view), gauge(pick(view.waiting.as_ref()?).into()))))
    };
    to.gauges("health_backlog", "Connections that wait to be accepted", queues(|it| it.connections))?;
    let again = queues(|it| it.sent_again);
    to.gauges("health_handshakes_sent_again", "Handshakes not complete whose SYN-ACK was sent again", again)?;
    let pressures = all.iter().flat_map(|view| {
        let by_resource = |it: &PressureView| [("cpu", it.cpu), ("memory", it.memory), ("io", it.io)];
        let each = view.pressure.as_ref().map(by_resource).into_iter().flatten();
        each.map(|(resource, share)| (with(of(view), "resource", resource), share))
    });
    to.ratios("health_pressure_ratio", "The share of time in which processes of a service waited", pressures)?;
    let wanting = all.iter().map(|view| (of(view), i64::from(view.needs_workers)));
    to.gauges("health_needs_workers", "1 where a service is asked for more than it may bear: add workers", wanting)?;
    backends(to, all)?;
    to.counter("health_transitions", "Changes of backends, breakers and signals", status.health_transitions)?;
    to.counter("health_notices_lost", "Changes that a webhook was not told. Reads 0", status.health_notices_lost)
}

fn backends(to: &mut Writer, all: &[ServiceHealthView]) -> Result<(), fmt::Error> {
    let levels = all.iter().flat_map(|view| {
        by_name(view).into_iter().flat_map(move |(name, places)| {
            let count = move |level| places.iter().filter(|it| it.level == level).count() as u64;
            LEVELS.map(|level| (with(backend(view, name), "level", level), gauge(count(level))))
        })
    });
    to.gauges("backends", "Places of a backend, by what is held of them", levels)?;
    let suspicions = all.iter().flat_map(|view| {
        by_name(view)
            .into_iter()
            .map(move |(name, places)| (backend(view, name), places.iter().map(|it| it.suspicion).fold(0.0, f64::max)))
    });
    to.ratios("backend_suspicion", "How suspicious the silence of a backend is (phi), at its worst place", suspicions)?;
    let own = all.iter().filter_map(|view| Some((of(view), vec![view.breaker.as_ref()?])));
    let theirs = all.iter().flat_map(|view| {
        by_name(view).into_iter().map(move |(name, places)| {
            (backend(view, name), places.iter().filter_map(|it| it.breaker.as_ref()).collect())
        })
    });
    let breakers = own.chain(theirs).flat_map(|(labels, breakers): (Labels, Vec<&BreakerView>)| {
        STATES.map(|state| {
            let count = breakers.iter().filter(|it| it.state == state).count() as u64;
            (with(labels.clone(), "state", state), gauge(count))
        })
    });
    to.gauges("breakers", "Breakers of a service, or with a backend of its places, by their states", breakers)
}

/// The places of each backend, by its name.
fn by_name(view: &ServiceHealthView) -> Vec<(&str, Vec<&BackendHealthView>)> {
    let mut named: Vec<(&str, Vec<&BackendHealthView>)> = Vec::new();
    for it in &view.backends {
        match named.iter_mut().find(|(name, _)| *name == it.backend) {
            Some((_, places)) => places.push(it),
            None => named.push((&it.backend, vec![it])),
        }
    }
    named
}

fn of(view: &ServiceHealthView) -> Labels {
    vec![("service", view.service.clone())]
}

fn backend(view: &ServiceHealthView, name: &str) -> Labels {
    with(of(view), "backend", name)
}

fn with(mut labels: Labels, name: &'static str, value: &str) -> Labels {
    labels.push((name, value.to_owned()));
    labels
}
