//! Single entries of the policy in force, with what they leave to defaults and to each other.

use super::Control;
use crate::{
    api::wire::{BackendView, Problem, ProblemKind, ServiceView},
    policy::{units::Span, word::one_of},
};

impl Control {
    /// A service with what is its.
    pub fn service(&self, name: &str) -> Result<ServiceView, Problem> {
        let document = self.in_force();
        let service = named("service", name, &document.services, |service| &service.name)?;
        let limits = document.limits_of(name).map(|limit| limit.name.clone()).collect();
        let backends = document.backends.iter().filter(|backend| backend.service == name);
        Ok(ServiceView {
            speaks: service.speaks(),
            connections: document.window_of(name).map(|(_, connections)| connections),
            limits,
            backends: backends.map(|backend| backend.name.clone()).collect(),
            service: service.clone(),
        })
    }

    /// A backend with what is left to defaults.
    pub fn backend(&self, name: &str) -> Result<BackendView, Problem> {
        let document = self.in_force();
        let backend = named("backend", name, &document.backends, |backend| &backend.name)?;
        let service = document.services.iter().find(|service| service.name == backend.service);
        let timeout = service.filter(|_| backend.probe.connects()).map(|service| backend.timeout_at(service));
        Ok(BackendView { backend: backend.clone(), timeout_milliseconds: timeout.map(Span::millis) })
    }
}

/// The entry of a name.
fn named<'e, T>(what: &str, wanted: &str, entries: &'e [T], name: impl Fn(&T) -> &String) -> Result<&'e T, Problem> {
    entries.iter().find(|entry| name(entry) == wanted).ok_or_else(|| {
        let names: Vec<_> = entries.iter().map(|entry| name(entry).as_str()).collect();
        let remedy = if names.is_empty() { "there are none".to_owned() } else { one_of(wanted, &names) };
        Problem::new(ProblemKind::NotFound, format!("there is no {what} `{wanted}`; {remedy}"))
    })
}
