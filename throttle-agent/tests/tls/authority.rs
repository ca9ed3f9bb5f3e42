//! Authorities of certificates, made by the lines that the page on health gives to operators.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tempfile::TempDir;
use throttle_agent::tls::Identity;

use crate::support::skip::skipped;

/// The page, and for whom its lines make certificates.
const PAGE: &str = include_str!("../../../docs/health.md");
const NAMES: &str = "throttle.internal web-1";

/// An authority with certificates of its own, in files that go with it.
pub(crate) struct Authority(TempDir);

impl Authority {
    /// One that has signed for these names; `None` where openssl is missing, which is said.
    pub(crate) fn new(names: &str) -> Option<Self> {
        if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
            skipped("needs openssl");
            return None;
        }
        let mut blocks = PAGE.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        let lines = blocks.find(|lines| lines.contains(NAMES)).expect("the page makes certificates");
        let directory = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.current_dir(&directory).args(["-efuc", &lines.replace(NAMES, names)]);
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(Self(directory))
    }

    /// A file such as `web-1.key`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What an agent is given that shows `throttle.internal` and trusts this authority.
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            certificate: self.file("throttle.internal.crt"),
            key: self.file("throttle.internal.key"),
            authority: self.file("authority.crt"),
        }
    }

    /// The certificate of a name, and its key.
    pub(crate) fn certificate(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_file(self.file(&format!("{name}.crt"))).unwrap();
        (vec![certificate], PrivateKeyDer::from_pem_file(self.file(&format!("{name}.key"))).unwrap())
    }

    /// This authority as the only one that is trusted.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file("authority.crt")).unwrap()).unwrap();
        roots
    }
}

/// Puts the files of one identity in the place of another's.
pub(crate) fn replace(identity: &Identity, by: &Identity) {
    let copy = |from: &Path, to: &Path| std::fs::copy(from, to).unwrap();
    copy(&by.certificate, &identity.certificate);
    copy(&by.key, &identity.key);
    copy(&by.authority, &identity.authority);
}
