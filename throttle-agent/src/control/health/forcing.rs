//! Breakers that an operator holds open or closed, whatever is seen, until they are left to themselves again.

use std::net::SocketAddr;

use throttle_common::breakers::{Forced, State};

use super::Control;
use crate::{
    api::wire::{BreakerRequest, HeldBreakerView, Problem, ProblemKind},
    control::{Author, kernel, stored},
    policy::{Backend, Endpoint, word::one_of},
    store::HeldBreaker,
};

impl Control {
    /// At the start: what was held is held again.
    pub(in crate::control) fn resume_breakers(&mut self) {
        match self.store.breakers() {
            Ok(held) => self.health.held = held,
            Err(error) => {
                self.faults.note("held breakers", Err(format!("breakers that were held are not: {error}")));
            }
        }
        self.hold_breakers();
    }

    /// Holds the breaker of a service or of one of its backends, or leaves it to itself again, which it may be also where policy
    /// has neither any more. Stored first, then in force.
    pub fn hold_breaker(
        &mut self,
        service: &str,
        backend: Option<&str>,
        request: Option<BreakerRequest>,
        author: &Author,
    ) -> Result<HeldBreakerView, Problem> {
        if request.is_some() || self.holder(service, backend).is_none() {
            self.require_breaker(service, backend)?;
        }
        let mut held = self.health.held.clone();
        held.retain(|it| it.service != service || it.backend.as_deref() != backend);
        if let Some(BreakerRequest { open }) = request {
            let (service, backend) = (service.to_owned(), backend.map(str::to_owned));
            held.push(HeldBreaker { service, backend, open, author: author.name.clone() });
        }
        self.store.set_breakers(&held).map_err(|error| stored(&error))?;
        self.health.held = held;
        self.hold_breakers();
        if let Some(BreakerRequest { open }) = request {
            self.publish_held(service, backend, forced(open)).map_err(|error| kernel(&error))?;
        }
        let state = request.map_or("auto", |request| if request.open { "open" } else { "closed" });
        tracing::info!(author = %author.name, service, backend, state, "breaker held");
        Ok(self.held_view(service, backend, state))
    }

    fn held_view(&self, service: &str, backend: Option<&str>, state: &str) -> HeldBreakerView {
        let addresses = backend.map(|backend| self.addresses(service, backend)).unwrap_or_default();
        let met = addresses.iter().map(|&address| (service, backend.unwrap_or_default(), address));
        HeldBreakerView {
            service: service.to_owned(),
            backend: backend.map(str::to_owned),
            state: state.to_owned(),
            dialled: backend.is_some() && self.datapath.guards_connects(),
            warnings: self.unmet(met),
            addresses,
        }
    }

    /// Where a backend is: as policy says it, or as far as it was found.
    fn addresses(&self, service: &str, backend: &str) -> Vec<SocketAddr> {
        let is_it = |it: &&Backend| it.service == service && it.name == backend;
        if let Some(&Backend { address: Endpoint::Static(address), .. }) = self.in_force().backends.iter().find(is_it) {
            return vec![address];
        }
        let Some(followed) = self.health.services.get(service) else { return Vec::new() };
        let found = followed.health.backends(0).map(|(it, ..)| it.place());
        found.filter(|place| *place.backend == *backend).map(|place| place.address).collect()
    }

    /// Who holds a breaker.
    pub(in crate::control) fn holder(&self, service: &str, backend: Option<&str>) -> Option<&str> {
        let mut held = self.health.held.iter();
        held.find(|it| it.service == service && it.backend.as_deref() == backend).map(|it| it.author.as_str())
    }

    /// Has each service know what is held of it.
    pub(super) fn hold_breakers(&mut self) {
        let health = &mut self.health;
        for (name, followed) in &mut health.services {
            followed.health.release();
            for it in health.held.iter().filter(|it| it.service == **name && followed.breaker.is_some()) {
                followed.health.force(it.backend.as_deref(), Some(forced(it.open)));
            }
        }
    }

    /// At once: a step says the same within its period. Of a breaker that is shared it says what all come to.
    fn publish_held(&self, service: &str, backend: Option<&str>, forced: Forced) -> anyhow::Result<()> {
        let Some(followed) = self.health.services.get(service) else { return Ok(()) };
        let own = followed.health.backends(self.datapath.now()).zip(&followed.breakers);
        let backends =
            own.filter(|((it, ..), _)| backend == Some(&*it.place().backend)).filter_map(|(_, number)| *number);
        let service = followed.breaker.filter(|_| backend.is_none());
        let own = backends.chain(service).filter(|number| !self.health.shared.contains_key(number));
        let numbers: Vec<u16> = own.collect();
        numbers.into_iter().try_for_each(|number| self.datapath.publish_breaker(number, State::Forced(forced)))
    }

    fn require_breaker(&self, service: &str, backend: Option<&str>) -> Result<(), Problem> {
        let missing = |what: &str, name: &str, names: &[&str]| {
            let remedy = if names.is_empty() { "there are none".to_owned() } else { one_of(name, names) };
            Problem::new(ProblemKind::NotFound, format!("there is no {what} `{name}`; {remedy}"))
        };
        let Some(followed) = self.health.services.get(service) else {
            let names: Vec<&str> = self.health.services.keys().map(|name| &**name).collect();
            return Err(missing("service that follows its health", service, &names));
        };
        if followed.breaker.is_none() {
            let detail = format!("{service} has no breakers; write `breaker = true` in its health");
            return Err(Problem::new(ProblemKind::Conflict, detail));
        }
        let Some(backend) = backend else { return Ok(()) };
        // Those of policy: of one that is not found yet it holds as soon as it is.
        let own = self.in_force().backends.iter().filter(|it| it.service == service);
        let names: Vec<&str> = own.map(|it| it.name.as_str()).collect();
        if names.contains(&backend) { Ok(()) } else { Err(missing(&format!("backend of {service}"), backend, &names)) }
    }
}

fn forced(open: bool) -> Forced {
    if open { Forced::Open } else { Forced::Closed }
}
