//! Which service a packet is for.
//!
//! A port has a list of candidates, the most specific first; the first that the packet's destination reaches is its
//! service. The kernel program asks this of its maps for every packet, the agent's `explain` of the same maps.

use core::borrow::Borrow;

use crate::{
    packet::{Family, Packet, protocol},
    records::{CANDIDATES, NONE, Service, port_place, port_slot},
};

/// Where the services of one generation of policy stand.
pub trait Directory {
    /// A list of candidates, or a reference to one.
    type List: Borrow<[u16; CANDIDATES]>;
    /// A service, or a reference to one.
    type Entry: Borrow<Service>;

    /// An element of [`crate::records::maps::PORTS`], counted within the generation.
    fn ports(&self, word: u32) -> Option<u64>;
    /// An element of [`crate::records::maps::CANDIDATE_LISTS`], likewise.
    fn list(&self, number: u16) -> Option<Self::List>;
    /// An element of [`crate::records::maps::SERVICES`], likewise.
    fn service(&self, number: u16) -> Option<Self::Entry>;
}

/// The number of the packet's service and its record; `None` where it is for none.
#[inline(always)]
pub fn find<D: Directory>(directory: &D, packet: &Packet) -> Option<(u16, D::Entry)> {
    let transport = packet.transport_number()?;
    let icmp = matches!(packet.protocol, protocol::ICMP | protocol::ICMPV6);
    let port = if icmp { 0 } else { packet.destination_port };
    let list = candidates(directory, transport, port)?;
    let mut index = 0;
    while index < CANDIDATES {
        let number = list.borrow()[index];
        if number == NONE {
            return None;
        }
        let service = directory.service(number)?;
        if reaches(service.borrow(), packet) {
            return Some((number, service));
        }
        index += 1;
    }
    None
}

/// The candidates of a port; `None` where it has none.
#[inline(always)]
pub fn candidates<D: Directory>(directory: &D, transport: u32, port: u16) -> Option<D::List> {
    let (word, bit) = port_place(port_slot(transport, port));
    let list = (directory.ports(word)? >> bit) as u16;
    if list == NONE { None } else { directory.list(list) }
}

/// Whether the packet's destination is the service's.
#[inline(always)]
pub fn reaches(service: &Service, packet: &Packet) -> bool {
    let family = match packet.family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    service.family == 0
        || (service.family == family
            && packet.destination.high & service.mask.high == service.destination.high
            && packet.destination.low & service.mask.low == service.destination.low)
}
