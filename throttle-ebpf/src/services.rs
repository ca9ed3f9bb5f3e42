//! Which service a packet is for, and which limits follow from that.

use throttle_common::{
    packet::Packet,
    records::{CANDIDATES, GENERATIONS, MAX_CANDIDATES, MAX_SERVICES, NONE, PORT_WORDS, Scope, Service},
    services::{Directory, find},
    words::Speaks,
};

use crate::tables::{CANDIDATE_LISTS, InForce, PORTS, SERVICES};

const _: () = assert!(GENERATIONS == 2);

/// The number of the packet's service and its limits; the host's limits where it is for none.
#[inline(always)]
pub fn classify(in_force: &InForce, packet: &Packet) -> (u16, &'static Scope) {
    if in_force.policy.has_services != 0
        && let Some((number, service)) = find(&Generation(in_force.generation), packet)
    {
        return (number, &service.scope);
    }
    (NONE, &in_force.policy.scope)
}

/// Whether the connections of a service are counted by their packets.
#[inline(always)]
pub fn is_forwarded(generation: u32, number: u32) -> bool {
    get(generation, number).is_some_and(|service| service.forwarded != 0)
}

/// The number of a service's breaker, or [`NONE`].
#[inline(always)]
pub fn breaker(generation: u32, number: u32) -> u16 {
    get(generation, number).map_or(NONE, |service| service.breaker)
}

/// A service where its time to first byte is measured.
#[inline(always)]
pub fn measured(generation: u32, number: u32) -> Option<&'static Service> {
    let service = get(generation, number)?;
    if service.measures == Speaks::Opaque as u8 { None } else { Some(service) }
}

/// A service by its number; `None` for [`NONE`].
#[inline(always)]
pub fn get(generation: u32, number: u32) -> Option<&'static Service> {
    if number == u32::from(NONE) { None } else { SERVICES.get(generation * MAX_SERVICES + number) }
}

/// The services of one generation, in the maps.
struct Generation(u32);

impl Directory for Generation {
    type List = &'static [u16; CANDIDATES];
    type Entry = &'static Service;

    #[inline(always)]
    fn ports(&self, word: u32) -> Option<u64> {
        PORTS.get(self.0 * PORT_WORDS + word).copied()
    }

    #[inline(always)]
    fn list(&self, number: u16) -> Option<Self::List> {
        CANDIDATE_LISTS.get(self.0 * MAX_CANDIDATES + u32::from(number))
    }

    #[inline(always)]
    fn service(&self, number: u16) -> Option<Self::Entry> {
        SERVICES.get(self.0 * MAX_SERVICES + u32::from(number))
    }
}
