//! Which packets a question about a source may mean: one for each service that they may go to, one for each backend
//! whose breaker is not closed, and one for what no service is for. The choice of an address is pure.

use std::net::{IpAddr, SocketAddr};

use throttle_common::{
    breakers::State,
    packet::{Family, Packet, protocol},
    records::{Address, Service},
    services::reaches,
};

use super::{Control, kernel};
use crate::{
    api::wire::{ExplainQuery, Problem},
    datapath::explain::packet,
    policy::Protocol,
};

impl Control {
    /// The packets that the question may mean; its addresses are canonical. Two may turn out to be for one service.
    pub(super) fn packets(&self, query: &ExplainQuery) -> Result<Vec<(Protocol, Packet)>, Problem> {
        let mut packets = self.to_services(query);
        packets.extend(self.to_backends(query)?);
        packets.push(make(query, query.protocol.unwrap_or(Protocol::Tcp), query.to, query.port.unwrap_or(0)));
        Ok(packets)
    }

    /// One for each service that has an address for it on one of its ports.
    fn to_services(&self, query: &ExplainQuery) -> Vec<(Protocol, Packet)> {
        let ports = self.datapath.ports_of_services();
        let one = |(number, service): (u16, Service)| {
            let (protocol, transport) = match service.protocol {
                protocol::TCP => (Protocol::Tcp, 0),
                protocol::UDP => (Protocol::Udp, 1),
                _ => (Protocol::Icmp, 2),
            };
            let is_icmp = protocol == Protocol::Icmp;
            let wanted = query.protocol.map_or(query.port.is_none() || !is_icmp, |it| it == protocol);
            let ports = match query.port {
                _ if !wanted => Vec::new(),
                Some(port) if !is_icmp => vec![port],
                _ => ports.get(&number).cloned().unwrap_or_default(),
            };
            let mut places = ports.into_iter().filter_map(|port| {
                let sharing = self.datapath.services_at(transport, port);
                let place = sharing.iter().position(|&it| it == number)?;
                let before: Vec<_> = sharing[..place].iter().filter_map(|&it| self.datapath.service(it)).collect();
                Some((address_of(&service, &before, query)?, port))
            });
            places.next().map(|(to, port)| make(query, protocol, Some(to), port))
        };
        self.datapath.services().into_iter().filter_map(one).collect()
    }

    /// One for each backend that may be kept from the connection: the kernel looks its breaker up by where a packet goes.
    fn to_backends(&self, query: &ExplainQuery) -> Result<Vec<(Protocol, Packet)>, Problem> {
        let opens = !query.established && query.protocol.is_none_or(|protocol| protocol == Protocol::Tcp);
        if !opens || self.datapath.policy().has_breakers == 0 {
            return Ok(Vec::new());
        }
        let backends = self.datapath.backends().map_err(|error| kernel(&error))?;
        let is_meant = |at: &SocketAddr| {
            at.is_ipv4() == query.address.is_ipv4()
                && query.to.is_none_or(|to| to == at.ip())
                && query.port.is_none_or(|port| port == at.port())
        };
        let meant = backends.into_iter().filter(|(at, protocol, number)| {
            *protocol == protocol::TCP && is_meant(at) && self.datapath.breaker_state(*number) != State::Closed
        });
        Ok(meant.map(|(at, ..)| make(query, Protocol::Tcp, Some(at.ip()), at.port())).collect())
    }
}

fn make(query: &ExplainQuery, protocol: Protocol, to: Option<IpAddr>, port: u16) -> (Protocol, Packet) {
    let number = match protocol {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
        Protocol::Icmp if query.address.is_ipv4() => protocol::ICMP,
        Protocol::Icmp => protocol::ICMPV6,
    };
    (protocol, packet(query.address, to, number, port, !query.established))
}

/// Where a packet to the service goes that shares a port with others, of which these come before it: as asked, or to the
/// first address of its destination that none of them claims. `None` where no packet of the source's family reaches it.
fn address_of(service: &Service, before: &[Service], query: &ExplainQuery) -> Option<IpAddr> {
    let family = if query.address.is_ipv4() { Family::V4 } else { Family::V6 };
    let mut to = query.to.unwrap_or_else(|| wire_address(service.destination, family));
    loop {
        let probe = packet(query.address, Some(to), 0, 0, false);
        if !reaches(service, &probe) {
            return None;
        }
        let Some(claims) = before.iter().find(|it| reaches(it, &probe)) else { return Some(to) };
        to = address_after(&probe, claims).filter(|_| query.to.is_none())?;
    }
}

/// The first address behind the destination of the service that the packet goes to.
fn address_after(packet: &Packet, service: &Service) -> Option<IpAddr> {
    let wide = |Address { high, low }| u128::from(high) << 64 | u128::from(low);
    let last = match packet.family {
        Family::V4 => u32::MAX.into(),
        Family::V6 => u128::MAX,
    };
    let end = wide(packet.destination) | !wide(service.mask) & last;
    let next = end.checked_add(1).filter(|&next| next <= last)?;
    Some(wire_address(Address { high: (next >> 64) as u64, low: next as u64 }, packet.family))
}

/// Where a packet goes.
pub(super) fn address(packet: &Packet) -> IpAddr {
    wire_address(packet.destination, packet.family)
}

fn wire_address(Address { high, low }: Address, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from((low as u32).to_be_bytes()),
        Family::V6 => IpAddr::from((u128::from(high) << 64 | u128::from(low)).to_be_bytes()),
    }
}

#[cfg(test)]
#[path = "packets_tests.rs"]
mod tests;
