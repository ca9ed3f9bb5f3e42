//! Backends whose breakers no connection meets: the kernel looks them up by where a packet goes, and nothing that comes in
//! over an interface goes to a loopback address.

use std::net::SocketAddr;

use super::Control;
use crate::policy::{Document, Endpoint, Service};

/// The interface over which a host talks to itself.
const LOOPBACK: &str = "lo";

impl Control {
    /// The warnings about a policy's backends, as the agent runs.
    pub(super) fn unmet_breakers(&self, document: &Document) -> Vec<String> {
        let breaks = |service: &Service| service.health.as_ref().is_some_and(|health| health.breaker);
        let breaking = |name: &str| document.services.iter().any(|service| service.name == name && breaks(service));
        let fixed = document.backends.iter().filter_map(|backend| match backend.address {
            Endpoint::Static(address) => Some((backend.service.as_str(), backend.name.as_str(), address)),
            Endpoint::Dns { .. } | Endpoint::File(_) => None,
        });
        self.unmet(fixed.filter(|(service, ..)| breaking(service)))
    }

    /// The same about some, each by its service and its name.
    pub(super) fn unmet<'a>(&self, backends: impl Iterator<Item = (&'a str, &'a str, SocketAddr)>) -> Vec<String> {
        let is_met = self.datapath.guards_connects() || self.attachments.iter().any(|it| it.interface == LOOPBACK);
        backends.filter(|(.., address)| !is_met && address.ip().is_loopback()).map(warning).collect()
    }
}

fn warning((service, backend, address): (&str, &str, SocketAddr)) -> String {
    format!(
        "the breaker of {service}/{backend} keeps nothing away: nothing comes in for {address}, a loopback address; write the \
         address that clients come to, or, where a proxy of this host dials it, run the agent with --cgroup"
    )
}
