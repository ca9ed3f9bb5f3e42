//! A file of certificates or of a key, and what is wrong with it.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};

use crate::policy::Fault;

/// Bytes of a file, at most: the authorities of a whole system take some 200 KiB.
const LONGEST: u64 = 4 << 20;

/// A file that TLS cannot use.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", file.display())]
pub struct FileFault {
    /// Which.
    pub file: PathBuf,
    /// What is wrong with it, and the remedy.
    pub fault: Fault,
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, FileFault> {
        let mut bytes = Vec::new();
        let outcome = fs::File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
        let file = Self { path: path.to_owned(), bytes };
        match outcome {
            Ok(_) if file.bytes.len() as u64 > LONGEST => Err(file.certificateless("it is longer than 4 MiB")),
            Ok(_) => Ok(file),
            Err(error) => Err(file.fault(
                format!("it cannot be read: {error}"),
                "name a file that is there, and that the agent's user may read without privileges",
            )),
        }
    }

    /// The certificates in it, at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, FileFault> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        match found {
            Ok(found) if found.is_empty() => Err(self.certificateless("it holds no certificate")),
            Ok(found) => Ok(found),
            Err(error) => Err(self.certificateless(damage(&error))),
        }
    }

    /// The key in it.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, FileFault> {
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| match error {
            pem::Error::NoItemsFound => self.keyless("it holds no private key that is open"),
            damaged => self.keyless(damage(&damaged)),
        })
    }

    /// The authorities in it, at least one.
    pub(super) fn authorities(&self) -> Result<RootCertStore, FileFault> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|error| self.certificateless(format!("it names no authority: {error}")))?;
        }
        Ok(roots)
    }

    pub(super) fn certificateless(&self, reason: impl Into<String>) -> FileFault {
        self.fault(reason, "write certificates as PEM: -----BEGIN CERTIFICATE-----")
    }

    pub(super) fn keyless(&self, reason: impl Into<String>) -> FileFault {
        self.fault(reason, "write a private key as PEM without a password: `openssl pkey -in FILE`")
    }

    pub(super) fn fault(&self, reason: impl Into<String>, remedy: impl Into<String>) -> FileFault {
        FileFault { file: self.path.clone(), fault: Fault::new(reason, remedy) }
    }
}

fn damage(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "it is damaged: a BEGIN line has no END line".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "it is damaged: a BEGIN line breaks off".to_owned(),
        other => format!("it is damaged: {other}"),
    }
}
