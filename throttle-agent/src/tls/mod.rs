//! TLS: what the agent shows and whom it trusts, from files and from the system.
//!
//! In come the names of PEM files; out go configurations for whoever listens ([`server()`]) or connects ([`client()`]), each
//! [`Renewed`] when its files change. A file that is wrong is a [`FileFault`], which names it.

mod client;
mod file;
mod renewed;
mod server;

use std::sync::Arc;

pub use client::client;
pub use file::FileFault;
pub use renewed::Renewed;
use rustls::crypto::CryptoProvider;
pub use rustls::{ClientConfig, ServerConfig};
pub use server::{Identity, server};

/// What is spoken within: HTTP/1.1 alone.
const PROTOCOL: &[u8] = b"http/1.1";

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
