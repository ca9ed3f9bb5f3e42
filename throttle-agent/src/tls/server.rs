//! Who listens: shows a certificate, and demands one that an authority signed.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    Error, InconsistentKeys, ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};

use super::{PROTOCOL, Renewed, file::File, file::FileFault, provider};

/// The files of one who listens, all PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What it shows: its certificate first, then those that lead to an authority of its clients.
    pub certificate: PathBuf,
    /// The key of that.
    pub key: PathBuf,
    /// Who signs for its clients.
    pub authority: PathBuf,
}

/// How to listen with these files.
pub fn server(identity: &Identity) -> Result<Renewed<ServerConfig>, FileFault> {
    let Identity { certificate, key, authority } = identity.clone();
    Renewed::new(vec![certificate, key, authority], |files| {
        let [certificate, key, authority] = files else { unreachable!("three files are read") };
        configuration(certificate, key, authority)
    })
}

fn configuration(certificate: &File, key: &File, authority: &File) -> Result<ServerConfig, FileFault> {
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(authority.authorities()?), provider()).build();
    let clients = clients.map_err(|error| authority.certificateless(format!("it names no authority: {error}")))?;
    let built = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has the suites of the default versions")
        .with_client_cert_verifier(clients)
        .with_single_cert(certificate.certificates()?, key.key()?);
    let mut config = built.map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let certificate = certificate.path.display();
            key.fault(format!("it is not the key of {certificate}"), "name the two that were made together")
        }
        Error::InvalidCertificate(_) => certificate.fault(
            format!("its first certificate is refused: {error}"),
            "issue one of version 3, as by a subjectAltName",
        ),
        other => key.keyless(format!("its key cannot be used: {other}")),
    })?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // A session that is taken up again would not look at the client's certificate, which may have expired since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
