//! Who is told of what changes with the health of services: a POST of JSON for each change, to each URL.
//!
//! Changes wait in a bounded queue ([`Notices`]). Each URL has a task and a queue of its own, so that one that does not answer
//! holds no other up: a change is tried [`TRIES`] times, then it is lost and counted, and the status says so until the next
//! one gets through.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::mpsc::{self, error::TrySendError},
    task::JoinSet,
    time,
};

use crate::{
    api::wire::Envelope,
    control::{Faults, Notice, Notices},
};

/// Changes that may wait for one URL.
const WAITING: usize = 256;
/// How often a change is tried.
const TRIES: u32 = 3;
/// How long one try may take, from the connection to the status.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits before the second try; twice as long before the third.
const PAUSE: Duration = Duration::from_millis(500);

/// Where changes are told: `http://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The host, and the port if it is not 80.
    authority: String,
    path: String,
}

impl FromStr for Webhook {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("`{text}` {what}; write http://HOST:PORT/PATH");
        if text.starts_with("https://") {
            return Err(format!(
                "`{text}` is encrypted, which this does not speak; write http:// to a forwarder on this host"
            ));
        }
        let rest = text.strip_prefix("http://").ok_or_else(|| wrong("is no URL of plain HTTP"))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let plain = |text: &str| text.chars().all(|c| c.is_ascii_graphic());
        if authority.is_empty() || authority.contains('@') || !plain(rest) || rest.contains('#') {
            return Err(wrong("names no host, or more than that"));
        }
        let port = authority.rsplit_once(':').filter(|(host, _)| !host.starts_with('[') || host.ends_with(']'));
        if port.is_some_and(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
            return Err(wrong("has a port that is none"));
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { authority: authority.to_owned(), path: path.to_owned() })
    }
}

impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl Webhook {
    /// Where to connect: the host and its port.
    fn address(&self) -> String {
        let has_port = self.authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if has_port { self.authority.clone() } else { format!("{}:80", self.authority) }
    }

    /// Tells one change, once.
    async fn post(&self, body: Bytes) -> anyhow::Result<()> {
        let stream = TcpStream::connect(self.address()).await.context("connect")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(HOST, &self.authority)
            .header(USER_AGENT, concat!("throttle/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let mut running = JoinSet::new();
        running.spawn(connection);
        let status = sender.send_request(request).await?.status();
        ensure!(status.is_success(), "it answers {status}");
        Ok(())
    }
}

/// Tells everybody of what changes, for as long as it runs.
pub(super) async fn tell(hooks: Vec<Webhook>, mut waiting: mpsc::Receiver<Notice>, notices: Notices, faults: Faults) {
    let mut tasks = JoinSet::new();
    let mut queues = Vec::new();
    for hook in hooks {
        let (queue, coming) = mpsc::channel(WAITING);
        tasks.spawn(tell_one(hook, coming, notices.clone(), faults.clone()));
        queues.push(queue);
    }
    while let Some(notice) = waiting.recv().await {
        let body = Bytes::from(serde_json::to_vec(&Envelope::new(notice)).expect("a notice is plain data"));
        for queue in &queues {
            if let Err(TrySendError::Full(_)) = queue.try_send(body.clone()) {
                notices.lose();
            }
        }
    }
}

async fn tell_one(hook: Webhook, mut coming: mpsc::Receiver<Bytes>, notices: Notices, faults: Faults) {
    while let Some(body) = coming.recv().await {
        let mut tries = 0;
        let told = loop {
            let answer = time::timeout(PATIENCE, hook.post(body.clone())).await;
            tries += 1;
            match answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {PATIENCE:?}"))) {
                Err(_) if tries < TRIES => time::sleep(PAUSE * 2u32.pow(tries - 1)).await,
                outcome => break outcome,
            }
        };
        if told.is_err() {
            notices.lose();
        }
        let fault = |error| format!("the webhook {hook} was not told of a change: {error:#}; is it there?");
        faults.note("webhook", told.map_err(fault));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_plain_http_is_read_and_any_other_told_why_not() {
        let read = |text: &str| text.parse::<Webhook>().map(|hook| (hook.to_string(), hook.address()));
        let of = |url: &str, address: &str| Ok((url.to_owned(), address.to_owned()));
        assert_eq!(read("http://oncall"), of("http://oncall/", "oncall:80"));
        assert_eq!(read("http://10.0.0.1:8080/a?b=c"), of("http://10.0.0.1:8080/a?b=c", "10.0.0.1:8080"));
        assert_eq!(read("http://[::1]:80/x"), of("http://[::1]:80/x", "[::1]:80"));
        assert_eq!(read("http://[::1]/x"), of("http://[::1]/x", "[::1]:80"));
        for wrong in ["https://a", "ftp://a", "http://", "http:///x", "http://a:b/", "http://u@a/", "http://a/ b", "a"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
