//! Services: what a packet can be told by, and told apart.

use crate::policy::{
    classify::{self, Clash},
    document::{Document, Protocol, Service},
    fault::{Diagnostic, Fault},
    read::Unread,
    word::Word,
};
use throttle_common::records::{CANDIDATES, MAX_CANDIDATES, MAX_SERVICES};

/// Number 0 stands for no service.
const MOST: usize = MAX_SERVICES as usize - 1;

/// Seconds of silence after which a forwarded connection may be forgotten.
const IDLE_AFTER: std::ops::RangeInclusive<u64> = 10..=86_400;

pub(super) fn check(document: &Document, unread: &Unread, found: &mut Vec<Diagnostic>) {
    if document.services.len() > MOST {
        let reason = format!("there are {} services", document.services.len());
        let remedy = format!("keep at most {MOST}; merge those that have the same limits");
        found.push(Fault::new(reason, remedy).at(format!("service[{MOST}]")));
        return;
    }
    for (index, service) in document.services.iter().enumerate() {
        let read = |field: &str| unread.spares(&format!("service[{index}].{field}"));
        if read("protocol") && read("forwarded") && read("idle-after") {
            let mut wrong = |field: &str, fault: Fault| found.push(fault.at(format!("service[{index}].{field}")));
            forwarded(service, &mut wrong);
        }
    }
    let mut readable = document.services.clone();
    for (index, service) in document.services.iter().enumerate() {
        let path = format!("service[{index}].ports");
        if !["protocol", "ports", "destination"].iter().all(|field| unread.spares(&format!("service[{index}].{field}")))
        {
            // Without ports it claims nothing that another could claim too.
            readable[index] = Service { protocol: Protocol::Tcp, ports: Vec::new(), ..service.clone() };
            continue;
        }
        match (service.protocol, service.ports.is_empty()) {
            (Protocol::Icmp, false) => {
                found.push(Fault::new("ICMP has no ports", "leave out `ports`").at(path));
            }
            (Protocol::Tcp | Protocol::Udp, true) => {
                let reason = format!("a {} service needs ports", service.protocol.name());
                found.push(Fault::new(reason, "add ports = [80], or [\"1-65535\"] for all").at(path));
            }
            _ => twice(service, &path, found),
        }
    }
    let (lists, clashes) = classify::lists(&readable);
    found.extend(clashes.into_iter().map(|clash| describe(&readable, clash)));
    if lists.lists.len() >= MAX_CANDIDATES as usize {
        let reason = format!("the services share their ports in {} different ways", lists.lists.len());
        let remedy =
            format!("keep below {MAX_CANDIDATES}: let services that differ by destination have the same ports");
        found.push(Fault::new(reason, remedy).at("service"));
    }
}

/// A port that a service names twice is one that was not meant, or another that was.
fn twice(service: &Service, path: &str, found: &mut Vec<Diagnostic>) {
    for (later, range) in service.ports.iter().enumerate() {
        if let Some(earlier) = service.ports[..later].iter().find(|earlier| earlier.overlaps(*range)) {
            let reason = if earlier == range {
                format!("{range} is there twice")
            } else {
                format!("{range} and {earlier} overlap")
            };
            found.push(Fault::new(reason, "name each port once").at(format!("{path}[{later}]")));
        }
    }
}

/// What is counted by its packets, and for how long without any.
fn forwarded(service: &Service, wrong: &mut impl FnMut(&str, Fault)) {
    if service.forwarded && service.protocol != Protocol::Tcp {
        let reason = format!("a {} service has no connections to count", service.protocol.name());
        wrong("forwarded", Fault::new(reason, "leave it out, or write protocol = \"tcp\""));
    }
    let Some(idle_after) = service.idle_after else { return };
    if !service.forwarded {
        let reason = "only forwarded connections are forgotten when nothing is heard of them";
        wrong("idle-after", Fault::new(reason, "add forwarded = true, or leave this out"));
    } else if !IDLE_AFTER.contains(&idle_after.seconds()) {
        let reason = format!("{idle_after} is not between 10s and 24h");
        wrong("idle-after", Fault::new(reason, "write longer than your clients are ever silent, such as \"15m\""));
    }
}

fn describe(services: &[Service], clash: Clash) -> Diagnostic {
    let place = |service: &Service, port: u16| match service.protocol {
        Protocol::Icmp => "icmp".to_owned(),
        protocol => format!("{} port {port}", protocol.name()),
    };
    match clash {
        Clash::Same { earlier, later, port } => {
            let (earlier, service) = (&services[earlier], &services[later]);
            let reason = format!(
                "`{}` and `{}` both claim {} of the same destinations",
                earlier.name,
                service.name,
                place(service, port)
            );
            let remedy = "give one of them other ports or a `destination` of its own";
            Fault::new(reason, remedy).at(format!("service[{later}]"))
        }
        Clash::Crowded { later, port } => {
            let reason = format!("more than {CANDIDATES} services share {}", place(&services[later], port));
            Fault::new(reason, "merge some of them").at(format!("service[{later}]"))
        }
    }
}
