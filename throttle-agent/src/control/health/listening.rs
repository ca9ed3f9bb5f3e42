//! The sockets at which services wait for connections: how many wait to be accepted, how many handshakes are not complete, and
//! in which control groups those live who listen.

use std::{collections::BTreeSet, net::IpAddr, ops::RangeInclusive, time::Instant};

use ipnet::IpNet;

use super::Nanos;
use crate::{
    datapath::{Handshake, Listener, handshakes, listeners},
    policy::{Prefix, Protocol, Service},
};

/// The part of a CPU that listing sockets may take: a fiftieth.
const PARTS: u32 = 50;

/// Where a service listens.
#[derive(Clone, Debug, Default)]
pub(super) struct Listens {
    /// Whether connections come to sockets of this host.
    pub(super) tcp: bool,
    ports: Vec<RangeInclusive<u16>>,
    destination: Option<IpNet>,
}

impl Listens {
    pub(super) fn of(service: &Service) -> Self {
        let ports = service.ports.iter().map(|range| range.ports()).collect();
        let tcp = service.protocol == Protocol::Tcp && !service.forwarded;
        Self { tcp, ports, destination: service.destination.map(Prefix::net) }
    }

    /// Whether a socket at an address takes its connections: one that listens at any address takes those of all.
    fn at(&self, address: IpAddr, port: u16) -> bool {
        let within = |net: IpNet| address.is_unspecified() || net.contains(&address);
        self.tcp && self.ports.iter().any(|ports| ports.contains(&port)) && self.destination.is_none_or(within)
    }
}

/// What waits at the sockets of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Connections that wait to be accepted, and how many may.
    pub(super) connections: u32,
    pub(super) room: u32,
    /// Handshakes that are not complete, and those of them whose SYN-ACK was sent again.
    pub(super) handshakes: u32,
    pub(super) sent_again: u32,
    /// The control groups of those who listen, by their numbers.
    pub(super) groups: BTreeSet<u64>,
}

/// The listening sockets, listed as often as that costs little.
#[derive(Debug, Default)]
pub(super) struct Listening {
    sockets: Vec<Listener>,
    handshakes: Vec<Handshake>,
    /// When that was.
    pub(super) at: Nanos,
    next: Option<Instant>,
}

impl Listening {
    /// What waits at the sockets of a service; nothing where none listens.
    pub(super) fn at(&self, listens: &Listens) -> Option<Waiting> {
        let mut waiting = None::<Waiting>;
        for own in self.sockets.iter().filter(|it| listens.at(it.address, it.port)) {
            let waiting = waiting.get_or_insert_default();
            waiting.connections += own.waiting;
            waiting.room += own.room;
            waiting.groups.extend(own.group);
        }
        let mut waiting = waiting?;
        for own in self.handshakes.iter().filter(|it| listens.at(it.address, it.port)) {
            waiting.handshakes += 1;
            waiting.sent_again += u32::from(own.sent_again);
        }
        Some(waiting)
    }

    pub(super) fn look(&mut self, now: Nanos) -> Result<(), String> {
        let begin = Instant::now();
        if self.next.is_some_and(|next| begin < next) {
            return Ok(());
        }
        let listed = listeners().and_then(|sockets| Ok((sockets, handshakes()?)));
        self.next = Some(begin + begin.elapsed() * PARTS);
        (self.sockets, self.handshakes) =
            listed.map_err(|error| format!("the listen backlog is not known: {error}"))?;
        self.at = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_at_a_service_is_what_waits_at_all_its_sockets_and_at_no_other() {
        let any = IpAddr::from([0, 0, 0, 0]);
        let [here, there] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let listener = |address, port, group| Listener { address, port, waiting: 3, room: 10, group: Some(group) };
        let handshake = |address, port, sent_again| Handshake { address, port, sent_again };
        let listening = Listening {
            sockets: vec![listener(any, 80, 7), listener(here, 80, 8), listener(there, 80, 9), listener(here, 22, 10)],
            handshakes: vec![handshake(here, 80, true), handshake(here, 80, false), handshake(there, 80, true)],
            ..Listening::default()
        };
        let mut listens =
            Listens { tcp: true, ports: vec![80..=81], destination: Some("192.0.2.1/32".parse().unwrap()) };
        let waiting = Waiting { connections: 6, room: 20, handshakes: 2, sent_again: 1, groups: [7, 8].into() };
        assert_eq!(listening.at(&listens), Some(waiting));
        listens.ports = vec![443..=443];
        assert_eq!(listening.at(&listens), None);
        listens = Listens { tcp: false, ports: vec![80..=80], destination: None };
        assert_eq!(listening.at(&listens), None, "it is only forwarded");
    }
}
