//! Backends: each of a service, at a place of its own, asked in a way that it can answer.

use crate::policy::{
    document::{Backend, Document, Endpoint, Probe, Protocol, Service},
    fault::{Diagnostic, Fault},
    read::Unread,
    word::{Word, one_of},
};
use std::{collections::HashMap, ops::RangeInclusive};

/// As many as an agent can ask several times a second, with room for what names and files come to.
const MOST: usize = 4_096;
/// How often one may be asked, in milliseconds.
const INTERVAL: RangeInclusive<u64> = 50..=60_000;
/// How long one may take, in milliseconds.
const TIMEOUT: RangeInclusive<u64> = 10..=60_000;

pub(super) fn check(document: &Document, unread: &Unread, found: &mut Vec<Diagnostic>) {
    if document.backends.len() > MOST {
        let reason = format!("there are {} backends", document.backends.len());
        found.push(Fault::new(reason, format!("keep at most {MOST}")).at(format!("backend[{MOST}]")));
    }
    // Of two of the same name, which are refused elsewhere, the first.
    let services = document.services.iter().enumerate().rev();
    let services: HashMap<&str, (usize, &Service)> =
        services.map(|(index, service)| (service.name.as_str(), (index, service))).collect();
    let mut places: HashMap<(Protocol, &Endpoint), &str> = HashMap::new();
    for (index, backend) in document.backends.iter().enumerate() {
        let path = |field: &str| format!("backend[{index}].{field}");
        let read = |field: &str| unread.spares(&path(field));
        let mut wrong = |field: &str, fault: Fault| found.push(fault.at(path(field)));
        if read("interval") && !INTERVAL.contains(&backend.interval.millis()) {
            let reason = format!("{} is not between 50ms and 60s", backend.interval);
            let remedy = "write \"200ms\", or more where asking is dear";
            wrong("interval", Fault::new(reason, remedy));
        }
        if read("timeout") && read("probe") {
            timeout(backend, &mut wrong);
        }
        if !read("service") {
            continue;
        }
        let Some(&(place, service)) = services.get(backend.service.as_str()) else {
            // One whose name cannot be read may be the one.
            let all_read = (0..document.services.len()).all(|index| unread.spares(&format!("service[{index}].name")));
            if all_read && !unread.holds("service") {
                wrong("service", unknown(document, &backend.service));
            }
            continue;
        };
        if !unread.spares(&format!("service[{place}].protocol")) {
            continue;
        }
        if read("probe") {
            fits(backend, service, &mut wrong);
        }
        if read("address")
            && let Some(other) = places.insert((service.protocol, &backend.address), &backend.name)
        {
            let reason = format!("`{other}` is at {} already", backend.address);
            wrong("address", Fault::new(reason, "give each backend a place of its own, or leave one out"));
        }
    }
}

fn unknown(document: &Document, name: &str) -> Fault {
    let names: Vec<_> = document.services.iter().map(|service| service.name.as_str()).collect();
    let remedy =
        if names.is_empty() { format!("add a [[service]] with name = \"{name}\"") } else { one_of(name, &names) };
    Fault::new(format!("there is no service `{name}` to answer for"), remedy)
}

/// How long an answer may take, where there is one.
fn timeout(backend: &Backend, wrong: &mut impl FnMut(&str, Fault)) {
    let Some(timeout) = backend.timeout else { return };
    if backend.probe == Probe::Push {
        let reason = "who beats by itself is not asked, and has no time to answer in";
        wrong("timeout", Fault::new(reason, "leave it out"));
    } else if !TIMEOUT.contains(&timeout.millis()) {
        let reason = format!("{timeout} is not between 10ms and 60s");
        wrong("timeout", Fault::new(reason, "write longer than a good answer ever takes, such as \"1s\""));
    }
}

/// Whether what the service speaks can be asked so.
fn fits(backend: &Backend, service: &Service, wrong: &mut impl FnMut(&str, Fault)) {
    let (name, protocol) = (&service.name, service.protocol.name());
    match service.protocol {
        Protocol::Icmp => {
            let reason = format!("`{name}` speaks {protocol}, for which hosts answer, not backends");
            wrong("service", Fault::new(reason, "name a service of TCP or UDP, or leave the backend out"));
        }
        Protocol::Udp if backend.probe.connects() => {
            let reason = format!("a `{}` probe connects by TCP, and `{name}` speaks {protocol}", backend.probe);
            wrong("probe", Fault::new(reason, "write probe = \"push\", and have it send heartbeats by itself"));
        }
        Protocol::Tcp | Protocol::Udp => {}
    }
}
