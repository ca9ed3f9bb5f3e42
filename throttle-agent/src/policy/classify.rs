//! Which services a port may mean: for each port the list of its candidates, the most specific destination first.
//!
//! Called by the check, which wants the clashes, and by [`super::compile()`], which wants the lists.

use super::document::{Protocol, Service};
use std::collections::{BTreeMap, HashMap};
use throttle_common::records::{CANDIDATES, NONE, port_slot};

/// Service numbers, the first match first, padded with [`NONE`].
pub(super) type List = [u16; CANDIDATES];

/// The lists of all ports.
pub(super) struct Lists {
    /// The different lists; the number of each is its index + 1.
    pub(super) lists: Vec<List>,
    /// [`port_slot`]s that have a list, with its number.
    pub(super) ports: Vec<(u32, u16)>,
}

/// Services that a packet could not be given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Clash {
    /// Two with the same port and destination, by index, with their first such port.
    Same { earlier: usize, later: usize, port: u16 },
    /// More than [`CANDIDATES`] on one port, with the first that is too many.
    Crowded { later: usize, port: u16 },
}

/// The lists of `services`, and what cannot be told apart.
pub(super) fn lists(services: &[Service]) -> (Lists, Vec<Clash>) {
    let mut slots: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut pairs = BTreeMap::new();
    let mut crowded = BTreeMap::new();
    for (index, service) in services.iter().enumerate() {
        for (slot, port) in slots_of(service) {
            let shared = slots.entry(slot).or_default();
            if shared.last() == Some(&index) {
                continue;
            }
            for &earlier in shared.iter().filter(|&&earlier| services[earlier].destination == service.destination) {
                pairs.entry((earlier, index)).or_insert(port);
            }
            if shared.len() == CANDIDATES {
                // One port says it; a thousand services of all ports would take minutes to count out.
                crowded.insert(index, port);
                break;
            }
            shared.push(index);
        }
    }
    let mut clashes: Vec<_> =
        pairs.into_iter().map(|((earlier, later), port)| Clash::Same { earlier, later, port }).collect();
    clashes.extend(crowded.into_iter().map(|(later, port)| Clash::Crowded { later, port }));
    (number(services, slots), clashes)
}

fn number(services: &[Service], slots: BTreeMap<u32, Vec<usize>>) -> Lists {
    let mut numbers: HashMap<List, u16> = HashMap::new();
    let mut lists = Lists { lists: Vec::new(), ports: Vec::with_capacity(slots.len()) };
    for (slot, mut shared) in slots {
        let specific =
            |&index: &usize| services[index].destination.map_or(-1, |prefix| i16::from(prefix.net().prefix_len()));
        shared.sort_by_key(|index| (-specific(index), *index));
        let mut list = [NONE; CANDIDATES];
        for (place, index) in list.iter_mut().zip(shared) {
            *place = index as u16 + 1;
        }
        let number = *numbers.entry(list).or_insert_with(|| {
            lists.lists.push(list);
            lists.lists.len() as u16
        });
        lists.ports.push((slot, number));
    }
    lists
}

/// The slots of a service's ports; those of ranges that overlap more than once.
fn slots_of(service: &Service) -> impl Iterator<Item = (u32, u16)> {
    let transport = match service.protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
        Protocol::Icmp => 2,
    };
    let icmp = (service.protocol == Protocol::Icmp).then_some(0);
    let ports = service.ports.iter().flat_map(|range| range.ports()).chain(icmp);
    ports.map(move |port| (port_slot(transport, port), port))
}
