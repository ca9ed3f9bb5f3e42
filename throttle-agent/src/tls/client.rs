//! Who connects: trusts the authorities of the system, or those of a file instead.

use std::path::Path;

use anyhow::bail;
use rustls::{ClientConfig, RootCertStore};

use super::{PROTOCOL, Renewed, provider};

/// How to connect to whom `authority` signs for, or else those whom this host trusts.
pub fn client(authority: Option<&Path>) -> anyhow::Result<Renewed<ClientConfig>> {
    let Some(authority) = authority else { return Ok(Renewed::fixed(trusting(of_the_system()?))) };
    Ok(Renewed::new(vec![authority.to_owned()], |files| {
        let [authority] = files else { unreachable!("one file is read") };
        Ok(trusting(authority.authorities()?))
    })?)
}

fn of_the_system() -> anyhow::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let cause = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        bail!(
            "this host names no authority of certificates{cause}; `apt install ca-certificates` brings the public ones, and \
             --webhook-authority FILE names another"
        );
    }
    Ok(roots)
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has the suites of the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config
}
