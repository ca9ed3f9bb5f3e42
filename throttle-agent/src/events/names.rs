//! From the numbers of the kernel's events to the names that people gave.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use throttle_common::{
    records::{self, Address},
    words::{Outcome, Reason},
};

use crate::{api::wire::Event, control::Clock};

/// What numbers are called.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Limits by number.
    pub limits: HashMap<u16, String>,
    /// Services by number.
    pub services: HashMap<u16, String>,
    /// Interfaces by index.
    pub interfaces: HashMap<u32, String>,
    /// How the kernel's clock stands to the wall.
    pub clock: Clock,
}

/// An event in names. A number that policy does not name any more is shown as the number.
pub(super) fn decode(event: &records::Event, names: &Names) -> Event {
    let name = |number: u8, name: Option<&str>| name.map_or_else(|| number.to_string(), str::to_owned);
    let limit = (event.limit != records::Event::NO_LIMIT)
        .then(|| names.limits.get(&event.limit).cloned().unwrap_or_else(|| event.limit.to_string()));
    let service = (event.service != records::NONE)
        .then(|| names.services.get(&event.service).cloned().unwrap_or_else(|| event.service.to_string()));
    let port = |port: u16| (port != 0).then_some(port);
    let address = |it: Address| address(event.family, it);
    Event {
        time: names.clock.wall(event.time),
        reason: name(event.reason, Reason::from_number(event.reason).map(Reason::name)),
        outcome: name(event.outcome, Outcome::from_number(event.outcome).map(Outcome::name)),
        source: address(event.source),
        destination: address(event.destination),
        source_port: port(event.source_port),
        destination_port: port(event.destination_port),
        protocol: (event.family != 0).then(|| protocol(event.protocol)),
        limit,
        service,
        interface: names.interfaces.get(&event.interface).cloned().unwrap_or_else(|| event.interface.to_string()),
        length: event.length,
    }
}

fn protocol(number: u8) -> String {
    match number {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        1 => "icmp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => other.to_string(),
    }
}

fn address(family: u8, address: Address) -> Option<IpAddr> {
    match family {
        4 => Some(Ipv4Addr::from_bits(address.low as u32).into()),
        6 => Some(Ipv6Addr::from_bits(u128::from(address.high) << 64 | u128::from(address.low)).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_names() {
        let names = Names {
            limits: [(3, "syn".to_owned())].into(),
            services: [(1, "web".to_owned())].into(),
            interfaces: [(7, "eth0".to_owned())].into(),
            clock: Clock::new(),
        };
        let event = records::Event {
            source: Address::v4(0xc000_0207),
            destination: Address::v4(0x0a00_0001),
            interface: 7,
            length: 60,
            source_port: 4711,
            destination_port: 80,
            limit: 3,
            service: 1,
            family: 4,
            protocol: 6,
            reason: Reason::SourceLimit as u8,
            outcome: Outcome::Drop as u8,
            ..records::Event::default()
        };
        let shown = decode(&event, &names);
        assert_eq!(shown.source, Some("192.0.2.7".parse().unwrap()));
        assert_eq!((shown.limit.as_deref(), shown.service.as_deref()), (Some("syn"), Some("web")));
        assert_eq!((shown.reason.as_str(), shown.outcome.as_str()), ("source-limit", "drop"));
        assert_eq!((shown.interface.as_str(), shown.protocol.as_deref()), ("eth0", Some("tcp")));
        let unnamed = decode(&records::Event { limit: 9, ..event }, &Names::default());
        assert_eq!((unnamed.limit.as_deref(), unnamed.interface.as_str()), (Some("9"), "7"));
    }

    #[test]
    fn a_frame_without_addresses_shows_none() {
        let limit = records::Event::NO_LIMIT;
        let named = decode(&records::Event { limit, ..records::Event::default() }, &Names::default());
        assert_eq!((named.source, named.limit, named.service, named.protocol), (None, None, None, None));
    }
}
