//! A change of one service, and of how its limits follow its health.

use super::replace;
use crate::policy::{
    document::{ControlKind, Health, HealthMode, Http, Protocol, Service},
    edit::EditError,
    fault::Fault,
    ports::PortRange,
    prefix::Prefix,
    units::Span,
    word,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use throttle_common::words::Speaks;
use utoipa::ToSchema;

/// What becomes of a service. One that is not there yet needs a `protocol`, and `ports` unless that is ICMP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ServiceChange {
    /// What it speaks. Another one needs its ports, and has nothing of what only the one before has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// All of its ports and ranges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PortRange>>,
    /// Only packets to this prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Prefix>,
    /// Whether it takes packets to any address again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub any_destination: bool,
    /// Whether its open connections are counted by their packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded: Option<bool>,
    /// After how long a forwarded connection that nothing is heard of is forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_after: Option<Span>,
    /// The page by which new connections to it are refused. It has one from then on, if it had not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpChange>,
    /// Whether they are reset again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_http: bool,
    /// How its limits follow its health. They do from then on, if they did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthChange>,
    /// Whether they do not follow any more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_health: bool,
}

/// What becomes of a service's page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HttpChange {
    /// Its body; empty for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// What that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// All of its further headers, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
}

/// What becomes of how a service's limits follow its health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HealthChange {
    /// Whether limits follow, or it is only shown what they would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<HealthMode>,
    /// What follows. One that moves no window forgets its bounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlKind>,
    /// How long clients may wait for the first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objective: Option<Span>,
    /// What its connections carry.
    #[serde(with = "word::optional", skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = word::schema::<Speaks>)]
    pub speaks: Option<Speaks>,
    /// Whether that goes by the service's protocol again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_speaks: bool,
    /// The least that the window shrinks to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least: Option<u32>,
    /// The most that it grows to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
    /// Whether that is what its limit on open connections allows again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_most: bool,
    /// Whether new connections are kept from what fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<bool>,
    /// Whether kept connections are closed above the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_oldest: Option<bool>,
}

impl ServiceChange {
    /// The service of that name, changed, or made where there is none.
    pub fn of(&self, name: &str, held: Option<&Service>) -> Result<Service, EditError> {
        let wrong = |reason: &str, remedy: String| {
            Err(EditError::Wrong(Fault::new(reason, remedy).at(format!("service `{name}`"))))
        };
        let mut service = match (held, self.protocol) {
            (Some(held), _) => held.clone(),
            (None, Some(protocol)) => Service::new(name, protocol, Vec::new()),
            (None, None) => {
                let remedy = format!("e.g. `throttle service set {name} --protocol tcp --port 80`");
                return wrong("there is none of that name yet, and a new one needs a protocol and its ports", remedy);
            }
        };
        if let Some(protocol) = self.protocol.filter(|&protocol| protocol != service.protocol) {
            let ports = if protocol == Protocol::Icmp { Vec::new() } else { service.ports };
            let destination = service.destination;
            service = Service { destination, health: service.health, ..Service::new(name, protocol, ports) };
        }
        replace(&mut service.ports, self.ports.clone());
        service.destination = self.destination.or(service.destination).filter(|_| !self.any_destination);
        replace(&mut service.forwarded, self.forwarded);
        service.idle_after = self.idle_after.or(service.idle_after.filter(|_| service.forwarded));
        if let Some(change) = &self.http {
            service.http = Some(change.of(service.http.unwrap_or_default()));
        }
        service.http = service.http.filter(|_| !self.no_http);
        if let Some(change) = self.health {
            service.health = Some(change.of(service.health.unwrap_or_default()));
        }
        service.health = service.health.filter(|_| !self.no_health);
        Ok(service)
    }
}

impl HttpChange {
    fn of(&self, mut http: Http) -> Http {
        replace(&mut http.body, self.body.clone());
        replace(&mut http.headers, self.headers.clone());
        // Nothing is of no type.
        http.content_type = self.content_type.clone().or(http.content_type).filter(|_| !http.body.is_empty());
        http
    }
}

impl HealthChange {
    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn of(self, mut health: Health) -> Health {
        replace(&mut health.mode, self.mode);
        if let Some(control) = self.control {
            if !control.moves_window() {
                (health.least, health.most) = (Health::default().least, None);
            }
            health.control = control;
        }
        replace(&mut health.objective, self.objective);
        replace(&mut health.least, self.least);
        replace(&mut health.breaker, self.breaker);
        replace(&mut health.close_oldest, self.close_oldest);
        health.speaks = self.speaks.or(health.speaks).filter(|_| !self.no_speaks);
        health.most = self.most.or(health.most).filter(|_| !self.no_most);
        health
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::document::Mode;

    fn ports(text: &str) -> Vec<PortRange> {
        vec![text.parse().unwrap()]
    }

    fn web() -> Service {
        Service {
            destination: Some("10.0.0.1".parse().unwrap()),
            forwarded: true,
            idle_after: Some(Span::of_seconds(60)),
            health: Some(Health { least: 5, most: Some(50), ..Health::default() }),
            ..Service::new("web", Protocol::Tcp, ports("80"))
        }
    }

    #[test]
    fn a_new_service_needs_a_protocol() {
        let error = ServiceChange::default().of("web", None).unwrap_err().to_string();
        assert!(error.starts_with("service `web`: there is none of that name yet"), "{error}");
        let full =
            ServiceChange { protocol: Some(Protocol::Tcp), ports: Some(ports("80")), ..ServiceChange::default() };
        assert_eq!(full.of("web", None).unwrap(), Service::new("web", Protocol::Tcp, ports("80")));
    }

    #[test]
    fn what_is_not_named_stays() {
        assert_eq!(ServiceChange::default().of("web", Some(&web())).unwrap(), web());
        let change = ServiceChange {
            ports: Some(ports("8080")),
            health: Some(HealthChange { mode: Some(Mode::Enforce), ..HealthChange::default() }),
            ..ServiceChange::default()
        };
        let health = web().health.map(|health| Health { mode: Mode::Enforce, ..health });
        assert_eq!(change.of("web", Some(&web())).unwrap(), Service { ports: ports("8080"), health, ..web() });
    }

    #[test]
    fn a_page_comes_changes_and_goes() {
        let changed = |change: ServiceChange, held: &Service| change.of("web", Some(held)).unwrap();
        let http = HttpChange { body: Some("busy".to_owned()), ..HttpChange::default() };
        let told = changed(ServiceChange { http: Some(http), ..ServiceChange::default() }, &web());
        assert_eq!(told.http, Some(Http { body: "busy".to_owned(), ..Http::default() }));
        let headers = BTreeMap::from([("X-Reason".to_owned(), "limit".to_owned())]);
        let http = HttpChange { headers: Some(headers.clone()), ..HttpChange::default() };
        let more = changed(ServiceChange { http: Some(http), ..ServiceChange::default() }, &told);
        assert_eq!(more.http, Some(Http { body: "busy".to_owned(), headers, ..Http::default() }));
        assert_eq!(changed(ServiceChange { no_http: true, ..ServiceChange::default() }, &more), web());
        let udp = ServiceChange { protocol: Some(Protocol::Udp), ..ServiceChange::default() };
        assert_eq!(changed(udp, &more).http, None, "only TCP has pages");
    }

    #[test]
    fn what_would_contradict_what_is_named_goes() {
        let changed = |change: ServiceChange| change.of("web", Some(&web())).unwrap();
        let sockets = changed(ServiceChange { forwarded: Some(false), ..ServiceChange::default() });
        assert_eq!((sockets.forwarded, sockets.idle_after), (false, None));
        let ping = changed(ServiceChange { protocol: Some(Protocol::Icmp), ..ServiceChange::default() });
        assert_eq!((ping.ports.len(), ping.forwarded, ping.destination), (0, false, web().destination));
        let health = HealthChange { control: Some(ControlKind::Rate), ..HealthChange::default() };
        let health = changed(ServiceChange { health: Some(health), ..ServiceChange::default() }).health.unwrap();
        assert_eq!((health.least, health.most), (2, None));
    }

    #[test]
    fn what_is_taken_away_is_gone() {
        let change = ServiceChange { no_health: true, any_destination: true, ..ServiceChange::default() };
        assert_eq!(change.of("web", Some(&web())).unwrap(), Service { health: None, destination: None, ..web() });
    }

    #[test]
    fn what_is_taken_from_its_health_is_the_default_again() {
        let of = |change: HealthChange, held: Health| change.of(held);
        let held = Health { speaks: Some(Speaks::Opaque), ..web().health.unwrap() };
        let no_most = HealthChange { no_most: true, ..HealthChange::default() };
        assert_eq!(of(no_most, held), Health { most: None, ..held });
        let no_speaks = HealthChange { no_speaks: true, ..HealthChange::default() };
        assert_eq!(of(no_speaks, held), Health { speaks: None, ..held });
    }

    #[test]
    fn a_change_is_read_as_it_is_written() {
        let health = HealthChange { objective: Some(Span::of_millis(100)), ..HealthChange::default() };
        let change = ServiceChange { health: Some(health), any_destination: true, ..ServiceChange::default() };
        let json = serde_json::to_string(&change).unwrap();
        assert_eq!(json, r#"{"any-destination":true,"health":{"objective":"100ms"}}"#);
        assert_eq!(serde_json::from_str::<ServiceChange>(&json).unwrap(), change);
    }
}
