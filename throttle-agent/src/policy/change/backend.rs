//! A change of one backend.

use super::replace;
use crate::policy::{
    document::{Backend, Endpoint, Probe},
    edit::EditError,
    fault::Fault,
    units::Span,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What becomes of a backend. One that is not there yet needs a `service` and an `address`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct BackendChange {
    /// The service that it answers for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Endpoint>,
    /// How it is asked. One that beats by itself forgets its timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// How often it is asked, or beats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// How long it has for an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Whether that goes by its service's objective again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_timeout: bool,
}

impl BackendChange {
    /// The backend of that name, changed, or made where there is none.
    pub fn of(&self, name: &str, held: Option<&Backend>) -> Result<Backend, EditError> {
        let mut backend = match (held, &self.service, &self.address) {
            (Some(held), ..) => held.clone(),
            (None, Some(service), Some(address)) => Backend::new(name, service, address.clone()),
            (None, ..) => {
                let reason = "there is none of that name yet, and a new one needs a service and an address";
                let remedy = format!("e.g. `throttle backend set {name} --service web --address 10.0.0.5:80`");
                return Err(EditError::Wrong(Fault::new(reason, remedy).at(format!("backend `{name}`"))));
            }
        };
        replace(&mut backend.service, self.service.clone());
        replace(&mut backend.address, self.address.clone());
        if let Some(probe) = &self.probe {
            backend.timeout = backend.timeout.filter(|_| probe.connects());
            backend.probe.clone_from(probe);
        }
        replace(&mut backend.interval, self.interval);
        backend.timeout = self.timeout.or(backend.timeout).filter(|_| !self.no_timeout);
        Ok(backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Backend {
        let timeout = Some(Span::of_millis(500));
        Backend { timeout, ..Backend::new("one", "web", "10.0.0.5:80".parse().unwrap()) }
    }

    #[test]
    fn a_new_backend_needs_a_service_and_an_address() {
        let change = BackendChange { service: Some("web".to_owned()), ..BackendChange::default() };
        let error = change.of("one", None).unwrap_err().to_string();
        assert!(error.starts_with("backend `one`: there is none of that name yet"), "{error}");
        let change = BackendChange { address: Some(one().address), timeout: one().timeout, ..change };
        assert_eq!(change.of("one", None).unwrap(), one());
    }

    #[test]
    fn what_is_not_named_stays_and_what_contradicts_goes() {
        let change = BackendChange { interval: Some(Span::of_seconds(1)), ..BackendChange::default() };
        assert_eq!(change.of("one", Some(&one())).unwrap(), Backend { interval: Span::of_seconds(1), ..one() });
        let change = BackendChange { probe: Some(Probe::Push), ..BackendChange::default() };
        assert_eq!(change.of("one", Some(&one())).unwrap(), Backend { probe: Probe::Push, timeout: None, ..one() });
        let change = BackendChange { no_timeout: true, ..BackendChange::default() };
        assert_eq!(change.of("one", Some(&one())).unwrap(), Backend { timeout: None, ..one() });
    }

    #[test]
    fn a_change_is_read_as_it_is_written() {
        let change = BackendChange { probe: Some("grpc:web".parse().unwrap()), ..BackendChange::default() };
        let json = serde_json::to_string(&change).unwrap();
        assert_eq!(json, r#"{"probe":"grpc:web"}"#);
        assert_eq!(serde_json::from_str::<BackendChange>(&json).unwrap(), change);
    }
}
