//! How hosts of a stamp know each other over TCP: by key pairs that are derived from the stamp's keys. TLS 1.3 with raw public
//! keys (RFC 7250) on both sides: there are no certificates to issue, to renew or to expire, and no clock is asked.
//!
//! Each end shows the pair of the key that seals, and takes those of all its keys: so keys are replaced as for gossip.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, ring::sign::any_eddsa_type, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};

use super::{Key, Keys};
use crate::tls::provider;

/// What is spoken within.
const PROTOCOL: &[u8] = b"throttle-policy/1";
/// What stands before an Ed25519 key of 32 bytes in PKCS #8 (RFC 8410).
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// How to listen as a host of the stamp that has these keys.
pub(super) fn server(keys: &Keys, stamp: &str) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(Members::of(keys, stamp)?))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(pair(keys.sealing(), stamp)?)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // A session that is taken up again would ask for no key.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// How to connect as one.
pub(super) fn client(keys: &Keys, stamp: &str) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Members::of(keys, stamp)?))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(pair(keys.sealing(), stamp)?)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// The key pair that one who has this key of the stamp shows.
fn pair(key: &Key, stamp: &str) -> Result<Arc<CertifiedKey>, Error> {
    let private = [&PKCS8[..], &key.derived("policy exchange", stamp)].concat();
    let signing = any_eddsa_type(&PrivatePkcs8KeyDer::from(private))?;
    let public = signing.public_key().ok_or_else(|| Error::General("a key pair without a public key".to_owned()))?;
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(public.as_ref().to_vec())], signing)))
}

/// Those who have one of the stamp's keys.
#[derive(Debug)]
struct Members {
    public: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Members {
    fn of(keys: &Keys, stamp: &str) -> Result<Self, Error> {
        let public = keys.all().iter().map(|key| Ok(pair(key, stamp)?.cert[0].clone()));
        let algorithms = provider().signature_verification_algorithms;
        Ok(Self { public: public.collect::<Result<_, Error>>()?, algorithms })
    }

    fn known(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        let known = self.public.iter().any(|public| public == shown);
        known.then_some(()).ok_or_else(|| Error::General("it has none of the stamp's keys".to_owned()))
    }

    fn signed(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let public = SubjectPublicKeyInfoDer::from(shown.as_ref());
        verify_tls13_signature_with_raw_key(message, &public, signed, &self.algorithms)
    }
}

fn not_1_2() -> Error {
    Error::General("hosts of a stamp speak TLS 1.3".to_owned())
}

impl ServerCertVerifier for Members {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.known(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(not_1_2())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Members {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.known(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(not_1_2())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::duplex;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    /// Whether both ends, with these keys, take each other for hosts of a stamp.
    async fn shake(listens: (&Keys, &str), connects: (&Keys, &str)) -> bool {
        let (near, far) = duplex(1 << 16);
        let acceptor = TlsAcceptor::from(Arc::new(server(listens.0, listens.1).unwrap()));
        let connector = TlsConnector::from(Arc::new(client(connects.0, connects.1).unwrap()));
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        let (accepted, connected) = tokio::join!(acceptor.accept(near), connector.connect(name, far));
        accepted.is_ok() && connected.is_ok()
    }

    #[tokio::test]
    async fn hosts_know_each_other_by_any_key_that_both_have_and_nobody_else() {
        let (old, new) = (Keys::one(Key::of(1)), Keys::one(Key::of(2)));
        let added = old.with(Key::of(2)).unwrap();
        let promoted = added.promoted().unwrap();
        for (one, other) in [(&old, &old), (&old, &added), (&added, &promoted), (&promoted, &new)] {
            assert!(shake((one, "blue"), (other, "blue")).await, "{one:?} and {other:?}");
            assert!(shake((other, "blue"), (one, "blue")).await, "{other:?} and {one:?}");
        }
        assert!(!shake((&old, "blue"), (&new, "blue")).await, "another key");
        assert!(!shake((&old, "blue"), (&old, "green")).await, "another stamp");
        assert!(!shake((&old, "blue"), (&promoted, "blue")).await, "one that shows a key which the other has not");
    }
}
