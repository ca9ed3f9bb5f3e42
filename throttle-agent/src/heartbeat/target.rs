//! The words for whom to watch: backends as policy declares them, and the instances that they come to.

use std::{collections::HashMap, fmt, net::SocketAddr, sync::Arc, time::Duration};

use crate::policy::{Backend, Document, Endpoint, Probe, Protocol};

/// A backend to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The service that it stands behind.
    pub service: Arc<str>,
    /// Its name.
    pub backend: Arc<str>,
    /// What the service speaks. Nobody but TCP refuses a connection.
    pub protocol: Protocol,
    /// Where it is.
    pub endpoint: Endpoint,
    /// How it is asked.
    pub probe: Probe,
    /// How often: 50 ms to 60 s.
    pub interval: Duration,
    /// How long a probe waits for its answer.
    pub timeout: Duration,
}

impl Target {
    /// The backends of a policy. One whose service is not there has none to answer for.
    pub fn all(document: &Document) -> Vec<Self> {
        let services: HashMap<_, _> = document.services.iter().map(|service| (&service.name, service)).collect();
        let of = |backend: &Backend| {
            let service = services.get(&backend.service)?;
            Some(Self {
                service: service.name.as_str().into(),
                backend: backend.name.as_str().into(),
                protocol: service.protocol,
                endpoint: backend.address.clone(),
                probe: backend.probe.clone(),
                interval: backend.interval.into(),
                timeout: backend.timeout_at(service).into(),
            })
        };
        document.backends.iter().filter_map(of).collect()
    }
}

/// One place where a backend is; a backend of a name or a file may have several.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instance {
    /// The service that it stands behind.
    pub service: Arc<str>,
    /// The backend's name.
    pub backend: Arc<str>,
    /// Where.
    pub address: SocketAddr,
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} at {}", self.service, self.backend, self.address)
    }
}

/// An instance that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub instance: Arc<Instance>,
    /// What HTTP and gRPC call it: the name that it was found by, or its address, with the port.
    pub host: Arc<str>,
    /// What the service speaks.
    pub protocol: Protocol,
    /// How it is asked.
    pub probe: Probe,
    /// How often.
    pub interval: Duration,
    /// How long a probe waits for its answer.
    pub timeout: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_says_whom_to_watch_and_how() {
        let text = r#"
            [[service]]
            name = "web"
            protocol = "tcp"
            ports = [80]
            health = { control = "fixed", objective = "100ms" }

            [[backend]]
            name = "web-1"
            service = "web"
            address = "10.0.0.5:80"
            probe = "http:/healthz"
            interval = "1s"

            [[backend]]
            name = "web-2"
            service = "web"
            address = "dns:web.internal:80"
            timeout = "50ms"
        "#;
        let targets = Target::all(&crate::policy::parse(text).unwrap());
        let [first, second] = &*targets else { panic!("{targets:?}") };
        assert_eq!((&*first.service, &*first.backend), ("web", "web-1"));
        assert_eq!(first.probe, Probe::Http { path: "/healthz".to_owned() });
        assert_eq!((first.interval, first.timeout), (Duration::from_secs(1), Duration::from_millis(400)));
        assert_eq!(second.probe, Probe::Tcp);
        assert_eq!(second.endpoint, Endpoint::Dns { name: "web.internal".to_owned(), port: 80 });
        assert_eq!((second.interval, second.timeout), (Duration::from_millis(200), Duration::from_millis(50)));
    }
}
