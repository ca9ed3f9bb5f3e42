//! Which service a packet is for, and which limits follow from that.

use throttle_common::{
    packet::{Family, Packet, protocol},
    records::{
        CANDIDATES, GENERATIONS, MAX_CANDIDATES, MAX_SERVICES, NONE, PORT_WORDS, Scope, Service, port_place, port_slot,
    },
};

use crate::tables::{CANDIDATE_LISTS, InForce, PORTS, SERVICES};

const _: () = assert!(GENERATIONS == 2);

/// The number of the packet's service and its limits; the host's limits where it is for none.
#[inline(always)]
pub fn classify(in_force: &InForce, packet: &Packet) -> (u16, &'static Scope) {
    if in_force.policy.has_services != 0
        && let Some((number, service)) = find(in_force, packet)
    {
        return (number, &service.scope);
    }
    (NONE, &in_force.policy.scope)
}

#[inline(always)]
fn find(in_force: &InForce, packet: &Packet) -> Option<(u16, &'static Service)> {
    let transport = packet.transport_number()?;
    let icmp = matches!(packet.protocol, protocol::ICMP | protocol::ICMPV6);
    let port = if icmp { 0 } else { packet.destination_port };
    let (word, bit) = port_place(port_slot(transport, port));
    let list = (PORTS.get(in_force.generation * PORT_WORDS + word)? >> bit) as u16;
    if list == NONE {
        return None;
    }
    let list = CANDIDATE_LISTS.get(in_force.generation * MAX_CANDIDATES + u32::from(list))?;
    let mut index = 0;
    while index < CANDIDATES {
        let number = list[index];
        if number == NONE {
            return None;
        }
        let service = SERVICES.get(in_force.generation * MAX_SERVICES + u32::from(number))?;
        if reaches(service, packet) {
            return Some((number, service));
        }
        index += 1;
    }
    None
}

/// Whether the packet's destination is the service's.
#[inline(always)]
fn reaches(service: &Service, packet: &Packet) -> bool {
    let family = match packet.family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    service.family == 0
        || (service.family == family
            && packet.destination.high & service.mask.high == service.destination.high
            && packet.destination.low & service.mask.low == service.destination.low)
}
