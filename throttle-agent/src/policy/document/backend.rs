//! Backends: who answers for a service, where, and how it is asked whether it is well.

use super::{Service, default};
use crate::policy::{fault::Fault, text::written_as_text, units::Span};
use serde::Serialize;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};
use utoipa::ToSchema;

/// An instance behind a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Backend {
    /// Unique among backends, as for services.
    pub name: String,
    /// The service that it answers for.
    pub service: String,
    /// Where: `10.0.0.5:80`; all addresses of a name, `dns:web.internal:80`; or those in a file that is watched, one a line,
    /// `file:/etc/throttle/web.backends`.
    pub address: Endpoint,
    /// How it is asked whether it is well: `tcp` connects, `http:/healthz` expects a status of 2xx, `grpc:SERVICE` asks
    /// gRPC's health service. With `push` it is not asked: it beats by itself. Default `tcp`.
    #[serde(default = "default::probe")]
    pub probe: Probe,
    /// How often it is asked, or beats: 50 ms to 60 s. Default 200 ms.
    #[serde(default = "default::interval")]
    pub interval: Span,
    /// How long it has for an answer: 10 ms to 60 s. Default: four times its service's objective, 100 ms to 5 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

impl Backend {
    /// One that says only what it must.
    pub fn new(name: impl Into<String>, service: impl Into<String>, address: Endpoint) -> Self {
        let (name, service) = (name.into(), service.into());
        Self { name, service, address, probe: default::probe(), interval: default::interval(), timeout: None }
    }

    /// How long it has for an answer, as a backend of this service.
    pub fn timeout_at(&self, service: &Service) -> Span {
        let of_objective = Span::of_millis((4 * service.objective().millis()).clamp(100, 5_000));
        self.timeout.unwrap_or(of_objective)
    }
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// At an address and port.
    Static(SocketAddr),
    /// At all addresses that a name has, each a backend of its own.
    Dns {
        /// The name, without a search list.
        name: String,
        /// The port at each of them.
        port: u16,
    },
    /// At the addresses and ports that a file has, each a backend of its own.
    File(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(address) => address.fmt(f),
            Self::Dns { name, port } => write!(f, "dns:{name}:{port}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        if let Some(name) = text.strip_prefix("dns:") {
            return named(name);
        }
        if let Some(path) = text.strip_prefix("file:") {
            let told = path.starts_with('/') && !path.ends_with('/') && !path.contains(char::is_control);
            let wrong = || {
                let reason = format!("`{path}` is no whole path of a file");
                Fault::new(reason, "write it from the root on, as in file:/etc/throttle/web.backends")
            };
            return told.then(|| Self::File(path.into())).ok_or_else(wrong);
        }
        match (text.parse::<SocketAddr>(), text.parse::<IpAddr>()) {
            (Ok(address), _) => at(address).map(Self::Static),
            (_, Ok(address)) => {
                let whole = SocketAddr::new(address, 80);
                Err(Fault::new(format!("`{text}` names no port"), format!("write it with one, such as {whole}")))
            }
            _ if named(text).is_ok() => {
                Err(Fault::new(format!("`{text}` is a name, not an address"), format!("write dns:{text}")))
            }
            _ => {
                let remedy =
                    "write an address and a port such as 10.0.0.5:80 or [2001:db8::5]:80, dns:NAME:PORT or file:PATH";
                Err(Fault::new(format!("`{text}` is no place of a backend"), remedy))
            }
        }
    }
}

/// `web.internal:80`
fn named(text: &str) -> Result<Endpoint, Fault> {
    let Some((name, port)) = text.rsplit_once(':') else {
        return Err(Fault::new(format!("`dns:{text}` names no port"), format!("write dns:{text}:80")));
    };
    let whole = name.strip_suffix('.').unwrap_or(name);
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(letter);
    if whole.len() > 253 || !whole.split('.').all(label) {
        return Err(Fault::new(format!("`{name}` is no name of a host"), "write one such as dns:web.internal:80"));
    }
    if whole.parse::<IpAddr>().is_ok() {
        return Err(Fault::new(format!("`{name}` is an address, not a name"), format!("write {text}")));
    }
    match port.parse() {
        Ok(port @ 1..) => Ok(Endpoint::Dns { name: name.to_owned(), port }),
        _ => Err(Fault::new(format!("`{port}` is no port of a host"), "write a number from 1 to 65535")),
    }
}

/// An address to which a connection can go.
fn at(address: SocketAddr) -> Result<SocketAddr, Fault> {
    let wrong = |what: &str, remedy: String| Err(Fault::new(format!("`{address}` {what}"), remedy));
    let ip = address.ip();
    if address.port() == 0 {
        return wrong("has no port", format!("write {}", SocketAddr::new(ip, 80)));
    }
    if ip.is_unspecified() || ip.is_multicast() {
        return wrong("is nobody's address", "write the address of one host, that which clients come to".to_owned());
    }
    if let SocketAddr::V6(v6) = address {
        if let Some(mapped) = v6.ip().to_ipv4_mapped() {
            return wrong("is IPv4 within IPv6", format!("write {}", SocketAddr::new(mapped.into(), v6.port())));
        }
        if v6.scope_id() != 0 {
            return wrong("names an interface", "write an address that needs none".to_owned());
        }
    }
    Ok(address)
}

/// How a backend is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// A TCP connection.
    Tcp,
    /// A GET of HTTP/1.1 over it.
    Http {
        /// The path with its query, from `/` on.
        path: String,
    },
    /// A call of `grpc.health.v1.Health/Check`.
    Grpc {
        /// The service that is asked for; empty for the server as a whole.
        service: String,
    },
    /// It is not asked: it sends heartbeats by itself.
    Push,
}

impl Probe {
    /// Whether the agent opens a connection for it.
    pub const fn connects(&self) -> bool {
        !matches!(self, Self::Push)
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Http { path } => write!(f, "http:{path}"),
            Self::Grpc { service } if service.is_empty() => f.write_str("grpc"),
            Self::Grpc { service } => write!(f, "grpc:{service}"),
            Self::Push => f.write_str("push"),
        }
    }
}

impl FromStr for Probe {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        /// Longer than any path of a probe, and short enough for a log.
        const LONGEST: usize = 500;
        let plain = |text: &str| text.len() <= LONGEST && text.chars().all(|c| c.is_ascii_graphic());
        match text.split_once(':').unwrap_or((text, "")) {
            ("tcp", "") => Ok(Self::Tcp),
            ("push", "") => Ok(Self::Push),
            ("grpc", service) if plain(service) => Ok(Self::Grpc { service: service.to_owned() }),
            ("http", path) if path.starts_with('/') && !path.starts_with("//") && plain(path) => {
                Ok(Self::Http { path: path.to_owned() })
            }
            ("http", _) => {
                let reason = format!("`{text}` names no path");
                Err(Fault::new(
                    reason,
                    "write it from the root on, as in http:/healthz; host and port are the backend's",
                ))
            }
            _ => {
                let remedy = "write tcp, http:/healthz, grpc:SERVICE or push";
                Err(Fault::new(format!("`{text}` is no probe"), remedy))
            }
        }
    }
}

written_as_text!(Endpoint, "10.0.0.5:80");
written_as_text!(Probe, "http:/healthz");

#[cfg(test)]
#[path = "backend_tests.rs"]
mod tests;
