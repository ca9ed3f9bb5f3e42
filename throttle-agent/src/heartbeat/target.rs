//! The words for whom to watch: backends as policy declares them, and the instances that they come to.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use crate::policy::Protocol;

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

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// At an address.
    Static(SocketAddr),
    /// At all addresses of a name.
    Dns {
        /// The name.
        name: String,
        /// The port at each.
        port: u16,
    },
    /// At the addresses that a file lists.
    File(PathBuf),
}

/// How a backend is asked whether it serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// By a connection, which its kernel answers: no word of the application.
    Tcp,
    /// By `GET` over HTTP/1.1; good is a status of 2xx.
    Http {
        /// The path, with its query.
        path: String,
    },
    /// By `grpc.health.v1.Health/Check`; good is `SERVING`.
    Grpc {
        /// The service to ask for; empty for the server.
        service: String,
    },
    /// Not at all: it beats by itself (`POST /v1/heartbeats`).
    Push,
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
