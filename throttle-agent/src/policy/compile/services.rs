//! Services, and the limits that a packet is asked about.

use crate::policy::document::{Document, Protocol, Service};
use ipnet::IpNet;
use throttle_common::{
    packet::{Family, protocol},
    records::{self, Address, Scope, name_bytes},
};

pub(super) fn services(document: &Document, numbers: &[u16]) -> Vec<records::Service> {
    document.services.iter().map(|service| record(service, scope(document, numbers, Some(&service.name)))).collect()
}

/// The host's limits, then those of the service. `numbers` are those of the document's limits, in its order.
pub(super) fn scope(document: &Document, numbers: &[u16], service: Option<&str>) -> Scope {
    let of = |wanted: Option<&str>| {
        let limits = document.limits.iter().zip(numbers);
        limits.filter(move |(limit, _)| limit.service.as_deref() == wanted).map(|(_, &number)| number).collect()
    };
    let mut applying: Vec<u16> = of(None);
    if service.is_some() {
        applying.append(&mut of(service));
    }
    let mut scope = Scope { count: applying.len() as u16, ..Scope::default() };
    scope.limits[..applying.len()].copy_from_slice(&applying);
    scope
}

fn record(service: &Service, scope: Scope) -> records::Service {
    let (destination, mask, family) = match service.destination.map(IpNet::from) {
        None => (Address::default(), Address::default(), 0),
        Some(IpNet::V4(net)) => {
            (Address::v4(net.network().into()), Address::v4(net.netmask().into()), Family::V4 as u8)
        }
        Some(IpNet::V6(net)) => {
            (Address::v6(net.network().into()), Address::v6(net.netmask().into()), Family::V6 as u8)
        }
    };
    let protocol = match service.protocol {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
        Protocol::Icmp => protocol::ICMP,
    };
    records::Service { scope, destination, mask, family, protocol, padding: [0; 6], name: name_bytes(&service.name) }
}
