//! Who sends a heartbeat, and for which backends it may.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, DnsName, ServerName},
    server::ParsedCertificate,
};

use super::{
    peer::Peer,
    wire::{Problem, ProblemKind},
};

/// The certificate that a client has proved to be its own, and that an authority signed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Certificate(Arc<CertificateDer<'static>>);

impl Certificate {
    pub(super) fn new(certificate: CertificateDer<'static>) -> Self {
        Self(Arc::new(certificate))
    }

    /// Whether a DNS name in its subjectAltName is this backend's. Its common name counts for nothing.
    fn names(&self, backend: &DnsName<'_>) -> bool {
        let parsed = ParsedCertificate::try_from(&*self.0);
        parsed.is_ok_and(|parsed| verify_server_name(&parsed, &ServerName::DnsName(backend.borrow())).is_ok())
    }
}

/// Who sent a heartbeat.
pub(super) enum Sender {
    /// Somebody at the Unix socket, who may send it for every backend.
    Peer,
    /// A client over TLS.
    Client(Certificate),
}

impl Sender {
    /// Refuses a heartbeat for a backend that is not the sender's.
    pub(super) fn beats_for(&self, backend: &str) -> Result<(), Problem> {
        let Self::Client(certificate) = self else { return Ok(()) };
        let detail = match DnsName::try_from(backend) {
            Ok(name) if certificate.names(&name) => return Ok(()),
            Ok(_) => format!(
                "the certificate does not name the backend `{backend}`; issue it one with the subjectAltName DNS:{backend}"
            ),
            Err(_) => format!(
                "`{}` is no DNS name, and so in no certificate; name the backend as a host is named, as in web-1",
                backend.escape_debug()
            ),
        };
        Err(Problem::new(ProblemKind::Forbidden, detail))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Sender {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if let Some(certificate) = parts.extensions.get::<Certificate>() {
            return Ok(Self::Client(certificate.clone()));
        }
        Peer::from_request_parts(parts, state).await.map(|_| Self::Peer)
    }
}
