//! Services, and the limits that a packet is asked about.

use super::limits::Numbered;
use crate::policy::{
    document::{Document, Protocol, Service},
    layout::Clocks,
};
use ipnet::IpNet;
use std::collections::HashMap;
use throttle_common::{
    packet::{Family, protocol},
    records::{self, Address, NONE, Scope, name_bytes},
    words::Speaks,
};

pub(super) fn services(document: &Document, scopes: &Scopes<'_>, clocks: &Clocks) -> Vec<records::Service> {
    let windows = document.windows();
    let record = |service: &Service| {
        let name = service.name.as_str();
        let connections = windows.get(name).map_or(0, |(_, allows)| *allows);
        let scope = Scope { pages: u8::from(service.http.is_some()), ..scopes.of(Some(name)) };
        record(service, scope, clocks[name], connections)
    };
    document.services.iter().map(record).collect()
}

/// The limits of each service, and those of the host, which are none's.
pub(super) struct Scopes<'d> {
    document: &'d Document,
    /// In the order of the document.
    limits: HashMap<Option<&'d str>, Vec<&'d Numbered>>,
}

impl<'d> Scopes<'d> {
    /// `limits` are the document's, in its order.
    pub(super) fn new(document: &'d Document, limits: &'d [Numbered]) -> Self {
        let mut by_service = HashMap::<_, Vec<_>>::new();
        for limit in limits {
            by_service.entry(document.limits[limit.index].service.as_deref()).or_default().push(limit);
        }
        Self { document, limits: by_service }
    }

    /// The host's limits and those of the service, the narrowest first.
    pub(super) fn of(&self, service: Option<&str>) -> Scope {
        let of = |service| self.limits.get(&service).map_or(&[][..], Vec::as_slice);
        let own = if service.is_some() { of(service) } else { &[] };
        scope(self.document, [of(None), own].concat())
    }
}

fn scope(document: &Document, mut applying: Vec<&Numbered>) -> Scope {
    // A stable sort: from those of single sources to those that all share, so that the narrowest names the verdict; those
    // on open connections stand behind the others. Guarantees stand before all that are as wide.
    let reach = |limit: &Numbered| document.limits[limit.index].reach();
    applying.sort_by_key(|it| (it.record.is_concurrency(), reach(it), !it.record.is_guarantee()));
    let concurrent = applying.iter().filter(|it| it.record.is_concurrency()).count();
    let count = (applying.len() - concurrent) as u16;
    let of_rates = || applying.iter().map(|it| &it.record).filter(|record| !record.is_concurrency());
    let windows = of_rates().any(|it| it.window != 0);
    let plain = !windows && !of_rates().any(|it| it.is_guarantee() || it.overridden != 0);
    let (windows, plain) = (u8::from(windows), u16::from(plain));
    let mut scope = Scope { count, concurrent: concurrent as u16, windows, plain, ..Scope::default() };
    for (place, limit) in scope.limits.iter_mut().zip(applying) {
        *place = limit.record.number;
    }
    scope
}

fn record(service: &Service, scope: Scope, clock: u16, connections: u32) -> records::Service {
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
    let (forwarded, name) = (u8::from(service.forwarded), name_bytes(&service.name));
    // At most a day.
    let idle_after = if service.forwarded { service.idle_seconds() as u32 } else { 0 };
    let measures = if service.is_measured() { service.speaks() } else { Speaks::Opaque };
    // In whatever mode: an operator may open it.
    let breaker = if service.has_breaker() { clock } else { NONE };
    records::Service {
        scope,
        destination,
        mask,
        family,
        protocol,
        forwarded,
        measures: measures as u8,
        idle_after,
        clock,
        breaker,
        connections,
        name,
    }
}
