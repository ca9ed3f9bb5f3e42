//! What follows the health of services: what it needs to, and what it should have.

use crate::policy::{
    document::{ControlKind, Document, Health, Limit, Protocol, Service, default},
    fault::{Diagnostic, Fault},
    read::Unread,
    word::Word,
};
use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
};
use throttle_common::{
    connections,
    words::{Per, Speaks},
};

/// The latencies that may be promised, in milliseconds.
const OBJECTIVE: RangeInclusive<u64> = 1..=60_000;

pub(super) fn check(document: &Document, unread: &Unread, found: &mut Vec<Diagnostic>) {
    for (index, service, health) in followed(document) {
        let path = |field: &str| format!("service[{index}].{field}");
        let read = |fields: &[&str]| fields.iter().all(|field| unread.spares(&path(field)));
        let mut wrong = |field: &str, fault: Fault| found.push(fault.at(path(field)));
        if read(&["health.objective"]) && !OBJECTIVE.contains(&health.objective.millis()) {
            let reason = format!("{} is not between 1ms and 60s", health.objective);
            let remedy = "write how long your clients may wait for the first byte, such as \"250ms\"";
            wrong("health.objective", Fault::new(reason, remedy));
        }
        if read(&["health.control", "health.least", "health.most"]) {
            bounds(health, &mut wrong);
        }
        if read(&["name", "protocol", "health.control", "health.speaks"]) {
            let fits = protocol(service, health, &mut wrong);
            if fits && unread.spares("limit") && read(&["health.least"]) {
                limits(document, service, health, &mut wrong);
            }
            if fits && health.close_oldest && read(&["forwarded", "health.close-oldest"]) {
                closing(document, service, health, &mut wrong);
            }
        }
    }
}

/// The services that follow their health, with their places.
fn followed(document: &Document) -> impl Iterator<Item = (usize, &Service, Health)> {
    let all = document.services.iter().enumerate();
    all.filter_map(|(index, service)| service.health.map(|health| (index, service, health)))
}

/// The services whose limits allow less where they are unwell.
pub(super) fn slowed(document: &Document) -> HashSet<&str> {
    let all = followed(document).filter(|(.., health)| health.control != ControlKind::Fixed);
    all.map(|(_, service, _)| service.name.as_str()).collect()
}

/// How far the window moves.
fn bounds(health: Health, wrong: &mut impl FnMut(&str, Fault)) {
    let Health { control, least, most, .. } = health;
    if !control.moves_window() {
        let written = [("health.least", least != default::least()), ("health.most", most.is_some())];
        for (field, _) in written.into_iter().filter(|(_, written)| *written) {
            let reason = format!("control = \"{}\" moves no window that could have bounds", control.name());
            wrong(field, Fault::new(reason, "leave it out, or write control = \"latency\""));
        }
        return;
    }
    if least < default::least() {
        let reason = format!("with {least} at once a single stuck request would stop the service");
        wrong("health.least", Fault::new(reason, "write 2 or more"));
    }
    let Some(most) = most else { return };
    if most < least {
        let reason = format!("the window cannot be {most} at most and {least} at least");
        wrong("health.most", Fault::new(reason, format!("write {least} or more, or leave it out")));
    } else if most > connections::MOST {
        let reason = format!("{most} connections at once");
        wrong("health.most", Fault::new(reason, format!("write at most {}, or leave it out", connections::MOST)));
    }
}

/// Whether what is asked can be had of what the service speaks.
fn protocol(service: &Service, health: Health, wrong: &mut impl FnMut(&str, Fault)) -> bool {
    let name = service.protocol.name();
    match service.protocol {
        Protocol::Tcp => return true,
        Protocol::Icmp => {
            wrong("health", Fault::new("nothing tells how ICMP is", "leave [service.health] out"));
            return false;
        }
        Protocol::Udp => {}
    }
    if health.speaks.is_some_and(|speaks| speaks != Speaks::Opaque) {
        let reason = format!("of a {name} service no time to the first byte is measured");
        wrong("health.speaks", Fault::new(reason, "leave it out"));
    }
    if health.control.moves_window() {
        let reason = format!("a {name} service has no connections whose number could follow");
        wrong("health.control", Fault::new(reason, "write control = \"rate\""));
    }
    !health.control.moves_window()
}

/// What follows has to be there.
fn limits(document: &Document, service: &Service, health: Health, wrong: &mut impl FnMut(&str, Fault)) {
    let name = &service.name;
    match (health.control, document.window_of(name)) {
        (ControlKind::Latency | ControlKind::Aimd, None) => wrong("health.control", unlimited(name)),
        (ControlKind::Latency | ControlKind::Aimd, Some((limit, allows))) if allows < health.least => {
            let reason = format!("`{}` never allows {} connections, only {allows}", limit.name, health.least);
            wrong("health.least", Fault::new(reason, format!("write at most {allows}, or raise `concurrent`")));
        }
        (ControlKind::Rate, _) if !document.limits_of(name).any(|limit| limit.rate.is_some()) => {
            let reason = format!("`{name}` has no limit on a rate, whose clock could run slower");
            let remedy = format!(
                "add [[limit]] with name = \"{name}-rate\", service = \"{name}\", unit = \"packets\", rate = \"10000/s\""
            );
            wrong("health.control", Fault::new(reason, remedy));
        }
        _ => {}
    }
}

/// What is closed has to have a socket here, and a window to be closed by.
fn closing(document: &Document, service: &Service, health: Health, wrong: &mut impl FnMut(&str, Fault)) {
    let (name, field) = (&service.name, "health.close-oldest");
    if service.protocol != Protocol::Tcp {
        let reason = format!("a {} service has no connections that could be closed", service.protocol.name());
        wrong(field, Fault::new(reason, "leave it out"));
    } else if service.forwarded {
        let reason = "what is only forwarded has no socket here that could be closed";
        wrong(field, Fault::new(reason, "leave it out"));
    } else if health.control == ControlKind::Fixed {
        let reason = "control = \"fixed\" moves no window above which something could be closed";
        wrong(field, Fault::new(reason, "leave it out, or write control = \"latency\""));
    } else if health.control == ControlKind::Rate && document.window_of(name).is_none() {
        wrong(field, unlimited(name));
    }
}

/// No limit says how many connections may be open.
fn unlimited(name: &str) -> Fault {
    let reason = format!("no limit says how many connections all together may have open at `{name}`");
    let remedy = format!(
        "add [[limit]] with name = \"{name}-open\", service = \"{name}\", unit = \"connections\", \
         concurrent = 1000, per = \"service\""
    );
    Fault::new(reason, remedy)
}

/// What is allowed, and probably not meant.
pub(super) fn warn(document: &Document, warn: &mut impl FnMut(String, String, &str)) {
    let asked: HashSet<&str> = document.backends.iter().map(|backend| backend.service.as_str()).collect();
    for (index, service, health) in followed(document) {
        let path = |field: &str| format!("service[{index}].health.{field}");
        let name = &service.name;
        let beats = asked.contains(name.as_str());
        match health.control {
            ControlKind::Aimd if !beats => {
                let reason = format!("it goes by heartbeats, and no backend of `{name}` beats");
                warn(path("control"), reason, "add a [[backend]], or write control = \"latency\"");
            }
            ControlKind::Latency if !service.is_measured() => {
                let beats = if beats { " and how its backends beat" } else { "" };
                let reason = format!(
                    "no latency is measured of what `{name}` speaks: its window follows only what waits to be accepted{beats}, \
                     and is else what policy says"
                );
                let remedy = "write speaks = \"http\" where clients ask first and wait for an answer, or control = \"aimd\" \
                              or \"fixed\" with a [[backend]]";
                warn(path("control"), reason, remedy);
            }
            ControlKind::Rate | ControlKind::Fixed if !beats && !service.is_measured() => {
                let reason = format!("nothing tells how `{name}` is: no latency is measured, and no backend beats");
                warn(path("control"), reason, "add a [[backend]]");
            }
            _ => {}
        }
        if !health.control.moves_window() {
            continue;
        }
        let fair = |limit: &Limit| limit.concurrent.is_some() && matches!(limit.per, Per::Source | Per::Tenant);
        if !document.limits_of(name).any(fair) {
            let reason = format!("one source alone may take the whole window of `{name}`");
            warn(path("control"), reason, "add a limit on its open connections per source, which shrinks with it");
        }
        if let Some((limit, allows)) = document.window_of(name)
            && let Some(most) = health.most.filter(|&most| most > allows)
        {
            let reason = format!("the window never grows to {most}: `{}` allows {allows}", limit.name);
            warn(path("most"), reason, "leave it out, or raise `concurrent`");
        }
    }
    unheeded(document, warn);
}

/// Backends whose health nothing follows, once for each service.
fn unheeded(document: &Document, warn: &mut impl FnMut(String, String, &str)) {
    let services: HashMap<&str, &Service> =
        document.services.iter().map(|service| (service.name.as_str(), service)).collect();
    let mut told = HashSet::new();
    for (index, backend) in document.backends.iter().enumerate() {
        let heeded = services.get(backend.service.as_str()).is_none_or(|service| service.health.is_some());
        if !heeded && told.insert(&backend.service) {
            let reason = format!("`{}` follows the health of none of its backends", backend.service);
            warn(format!("backend[{index}].service"), reason, "give it a [service.health]");
        }
    }
}
