//! The TCP ports of the agent, bound before anything is changed: its figures, and heartbeats over TLS.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};

use super::Heartbeats;
use crate::tls::{self, Renewed, ServerConfig};

/// An address at which the figures may be served, or why they may not.
pub fn metrics_address(address: SocketAddr) -> Result<SocketAddr, String> {
    let port = address.port();
    let refusal = || format!("{address}: served without a password, so on loopback only; write 127.0.0.1:{port}");
    address.ip().is_loopback().then_some(address).ok_or_else(refusal)
}

/// Binds where the figures are served.
pub(super) fn bind_metrics(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let address = metrics_address(address).map_err(|refusal| anyhow!("--metrics {refusal}"))?;
    bind(address).with_context(|| format!("serve the figures on {address}"))
}

/// Where heartbeats are taken over TLS.
#[derive(Debug)]
pub(super) struct Beats {
    pub(super) listener: TcpListener,
    pub(super) identity: Arc<Renewed<ServerConfig>>,
}

impl Beats {
    /// Reads the certificates and binds the port.
    pub(super) fn bind(heartbeats: &Heartbeats) -> anyhow::Result<Self> {
        let Heartbeats { address, identity } = heartbeats;
        let identity = Arc::new(tls::server(identity)?);
        let listener = bind(*address).with_context(|| {
            format!("take heartbeats on {address}: choose an address of this host and a free port above 1023")
        })?;
        Ok(Self { listener, identity })
    }
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true).context("make the socket non-blocking")?;
    Ok(listener)
}
