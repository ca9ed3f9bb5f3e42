//! Who beats over TLS, as any client would.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, crypto::ring};
use serde_json::{Value, json};

use crate::{
    authority::Authority,
    support::{Answer, Host},
};

/// Where the agent takes heartbeats, on a host of its own.
pub(crate) const PORT: &str = "127.0.0.1:9852";

/// A connection over TLS.
pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A beat of a backend.
pub(crate) fn beat(backend: &str, sequence: u64) -> Value {
    json!({
        "backend": backend, "node": "node-1", "boot_id": "01234567-89ab-cdef-0123-456789abcdef",
        "generation": 1, "sequence": sequence, "time": "2026-01-01T00:00:00Z",
    })
}

/// A connection from a host to its own agent.
pub(crate) fn connect(host: &Host) -> io::Result<TcpStream> {
    let stream = host.within(|| TcpStream::connect(PORT.parse::<SocketAddr>().unwrap()))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

/// Who trusts one authority, and shows a certificate or none.
#[derive(Clone)]
pub(crate) struct Client(Arc<ClientConfig>);

impl Client {
    pub(crate) fn new(trusted: &Authority, shown: Option<(&Authority, &str)>) -> Self {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(trusted.roots());
        let config = match shown {
            Some((authority, name)) => {
                let (chain, key) = authority.certificate(name);
                config.with_client_auth_cert(chain, key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        Self(Arc::new(config))
    }

    /// A connection on which one request after the other may be sent.
    pub(crate) fn connect(&self, host: &Host) -> io::Result<Stream> {
        let name = "throttle.internal".try_into().unwrap();
        let client = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        Ok(StreamOwned::new(client, connect(host)?))
    }

    /// Asks once, on a connection of its own.
    pub(crate) fn ask(&self, host: &Host, method: &str, path: &str, body: &str) -> io::Result<Answer> {
        let mut stream = self.connect(host)?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: throttle.internal\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = Vec::new();
        // The agent may answer and close before it has read everything.
        let outcome = stream.read_to_end(&mut answer);
        let none = || outcome.err().unwrap_or_else(|| io::Error::other("no answer"));
        Answer::read(&String::from_utf8_lossy(&answer)).ok_or_else(none)
    }

    /// Beats once, on a connection of its own.
    pub(crate) fn beat(&self, host: &Host, backend: &str, sequence: u64) -> io::Result<Answer> {
        self.ask(host, "POST", "/v1/heartbeats", &beat(backend, sequence).to_string())
    }
}
