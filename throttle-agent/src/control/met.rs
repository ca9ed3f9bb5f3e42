//! A breaker that a packet meets, in names, as an explanation tells it.

use std::net::SocketAddr;

use throttle_common::{
    breakers::State,
    packet::Packet,
    records::{FIRST_BACKEND, name_str},
};

use super::{Control, packets::address};
use crate::{
    api::wire::BreakerWalk,
    datapath::explain::{Explained, Met},
    health::names::state,
};

impl Control {
    /// What a breaker says at `now` of the connection that a packet opens.
    pub(super) fn breaker_walk(&self, met: &Met, packet: &Packet, explained: &Explained, now: u64) -> BreakerWalk {
        let own = explained.service.as_ref().map(|(_, service)| name_str(&service.name));
        let of_backend = met.number >= FIRST_BACKEND;
        let (service, backend) = match own {
            Some(own) if !of_backend => (Some(own.to_owned()), None),
            _ => self.backend_of_breaker(met.number, own).unzip(),
        };
        let held_by = service.as_deref().and_then(|service| self.holder(service, backend.as_deref()));
        let named = service.as_deref().zip(backend.as_deref());
        let shared_with = named.map(|(service, backend)| self.sharers(met.number, service, backend));
        let tries_at = met.passes_at.filter(|_| met.refuses);
        BreakerWalk {
            held_by: held_by.map(str::to_owned),
            shared_with: shared_with.unwrap_or_default(),
            service,
            backend,
            address: of_backend.then(|| SocketAddr::new(address(packet), packet.destination_port)),
            state: state(met.state).to_owned(),
            trials_left: match met.state {
                State::HalfOpen { left } => Some(left),
                _ => None,
            },
            refuses: met.refuses,
            tries_at: tries_at.map(|at| self.clock.wall(at)),
            tries_in_seconds: tries_at.map(|at| (at - now) as f64 / 1e9),
        }
    }
}
