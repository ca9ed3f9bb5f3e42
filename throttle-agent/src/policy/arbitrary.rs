//! Documents of a few entries, so that two of them have much in common and some contradict themselves.

use super::{
    Backend, ControlKind, Document, Endpoint, Health, Limit, Mode, Override, Penalty, PortRange, Prefix, Protocol,
    Service, Sources, Tenant,
    units::{Period, Quantity, Rate, Scale, Span},
};
use ipnet::IpNet;
use proptest::{prelude::*, sample::subsequence};
use std::net::{IpAddr, Ipv4Addr};
use throttle_common::words::{Per, Unit};

/// A network around sixteen addresses, or the first of these.
pub(crate) fn prefix(number: u8) -> Prefix {
    let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, number / 2 * 16));
    Prefix::from(IpNet::new(address, if number.is_multiple_of(2) { 28 } else { 32 }).expect("a length of a prefix"))
}

/// The limit of a name: of kind 2 with overrides, of kind 3 of a service, with a penalty.
pub(crate) fn limit(name: u8, kind: u8) -> Limit {
    let rate = |amount| Rate { quantity: Quantity::new(amount, Scale::One), per: Period::Second };
    let of_tenant = Override { tenant: Some("tenant-1".to_owned()), rate: Some(rate(70)), ..Override::default() };
    let of_source = Override { sources: vec![prefix(name)], rate: Some(rate(80)), ..Override::default() };
    let plain = Limit::new(format!("limit-{name}"), Unit::Packets, rate(u64::from(kind)));
    Limit {
        per: if name == 0 { Per::Tenant } else { Per::Source },
        overrides: match (kind, name) {
            (2, 0) => vec![of_tenant],
            (2, _) => vec![of_tenant, of_source],
            _ => Vec::new(),
        },
        penalty: (kind == 3 && name > 0).then(|| Penalty::new(u32::from(name), Span::of_seconds(7))),
        service: (kind == 3).then(|| format!("service-{name}")),
        // Only where each source has its own bucket is there room for some.
        sources: if name == 0 { plain.sources } else { 30 },
        ..plain
    }
}

/// The service of a name, at a port by its kind; of kinds 2 and 3 with some health.
pub(crate) fn service(name: u8, kind: u8) -> Service {
    let port = u64::from(name) * 3 + u64::from(kind);
    let ports = vec![PortRange::new(port, port).expect("a port")];
    let health = Health { control: ControlKind::Fixed, breaker: kind == 3, ..Health::default() };
    Service { health: (kind > 1).then_some(health), ..Service::new(format!("service-{name}"), Protocol::Tcp, ports) }
}

/// The backend of a name, of the service of that name, at a port by its kind.
pub(crate) fn backend(name: u8, kind: u8) -> Backend {
    let address = (Ipv4Addr::LOCALHOST, u16::from(name / 2 * 3 + kind)).into();
    Backend::new(format!("backend-{name}"), format!("service-{name}"), Endpoint::Static(address))
}

/// The tenant of a name, with sources by its kind.
pub(crate) fn tenant(name: u8, kind: u8) -> Tenant {
    Tenant { name: format!("tenant-{name}"), sources: vec![prefix(name + kind / 2)] }
}

/// Some of a few entries, seldom in another order, each of them one of several kinds.
fn lists<T: Clone + std::fmt::Debug + 'static>(of: fn(u8, u8) -> T) -> impl Strategy<Value = Vec<T>> {
    let some = subsequence((0..6u8).collect::<Vec<_>>(), 0..=6);
    let some = prop_oneof![4 => some.clone().boxed(), 1 => some.prop_shuffle().boxed()];
    (some, prop::collection::vec(1..4u8, 6))
        .prop_map(move |(names, kinds)| names.into_iter().map(|name| of(name, kinds[usize::from(name)])).collect())
}

pub(crate) fn documents() -> impl Strategy<Value = Document> {
    let known = [(); 2].map(|()| lists(|number, _| prefix(number)));
    let blocked = lists(|number, _| prefix(number + 6));
    let services =
        (lists(service), lists(backend), prop::bool::weighted(0.1)).prop_map(|(services, backends, stray)| {
            let known = |backend: &Backend| stray || services.iter().any(|service| service.name == backend.service);
            let backends: Vec<_> = backends.into_iter().filter(known).collect();
            (services, backends)
        });
    (services, lists(tenant), lists(limit), known, blocked, any::<bool>()).prop_map(
        |((services, backends), tenants, limits, [allow, known], block, enforce)| Document {
            mode: if enforce { Mode::Enforce } else { Mode::Observe },
            services: services.into(),
            backends: backends.into(),
            tenants: tenants.into(),
            limits,
            sources: Sources { allow, known, block }.into(),
            ..Document::default()
        },
    )
}
