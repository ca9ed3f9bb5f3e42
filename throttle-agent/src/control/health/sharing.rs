//! Backends of several services at one address and port. The kernel knows a backend by these alone, so they share what it
//! follows there: what an operator says of one of them, else the strictest of what is decided of each.

use std::{collections::HashMap, sync::Arc};

use throttle_common::breakers::State;

use super::Control;
use crate::health::{circuit::joined, service::Place};

/// The backends that share a breaker, by its number: the services, and where each is.
pub(super) type Shared = HashMap<u16, Vec<(Arc<str>, Place)>>;

impl Control {
    /// Finds out who shares a breaker. Where that has changed all is published anew, because who left may have decided.
    pub(super) fn share_breakers(&mut self) {
        let now = self.datapath.now();
        let mut shared = Shared::new();
        for (name, followed) in &self.health.services {
            let backends = followed.health.backends(now).zip(&followed.breakers);
            for (number, place) in backends.filter_map(|((it, ..), number)| number.zip(Some(it.place()))) {
                shared.entry(number).or_default().push((Arc::clone(name), place.clone()));
            }
        }
        shared.retain(|_, sharers| sharers.len() > 1);
        if shared != self.health.shared {
            self.health.services.values_mut().for_each(|followed| followed.published = None);
        }
        self.health.shared = shared;
    }

    /// What the kernel is to follow of a breaker that is shared; nothing of one that is not.
    pub(super) fn joined(&self, number: u16) -> Option<State> {
        let state = |(service, place): &(Arc<str>, Place)| self.health.services.get(service)?.health.published(place);
        self.health.shared.get(&number).map(|sharers| joined(sharers.iter().filter_map(state)))
    }

    /// With whom a backend shares its breaker, as `service/backend`.
    pub(in crate::control) fn sharers(&self, number: u16, service: &str, backend: &str) -> Vec<String> {
        let all = self.health.shared.get(&number).into_iter().flatten();
        let others = all.filter(|(name, place)| (&**name, &*place.backend) != (service, backend));
        others.map(|(name, place)| format!("{name}/{}", place.backend)).collect()
    }
}
