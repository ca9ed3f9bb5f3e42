//! One try to tell one change to one URL.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

use super::Webhook;
use crate::tls::{ClientConfig, Renewed};

/// Tells it; over TLS only to whom `trust` vouches for.
pub(super) async fn post(hook: &Webhook, trust: Option<&Renewed<ClientConfig>>, body: Bytes) -> anyhow::Result<()> {
    let stream = TcpStream::connect(hook.address()).await.context("it takes no connection; is it there?")?;
    let Some(name) = hook.name() else { return say(stream, hook, body).await };
    let trust = trust.context("it is encrypted, and nobody is trusted")?;
    let shaken = TlsConnector::from(trust.latest()).connect(name, stream).await;
    let stream =
        shaken.context("it is not trusted; --webhook-authority names who signed for it, where the system does not")?;
    say(stream, hook, body).await
}

async fn say<S>(stream: S, hook: &Webhook, body: Bytes) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(hook.path())
        .header(HOST, hook.authority())
        .header(USER_AGENT, concat!("throttle/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let mut running = JoinSet::new();
    running.spawn(connection);
    let status = sender.send_request(request).await?.status();
    ensure!(status.is_success(), "it answers {status}");
    Ok(())
}
