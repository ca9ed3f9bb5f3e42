//! The road to the agent: HTTP over its Unix socket, one connection for each request, a deadline for each answer.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    header::{ACCEPT, CONTENT_TYPE, HOST, IF_MATCH},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{net::UnixStream, runtime, time};

use super::{
    failure::{Failure, Silence},
    problem,
};

/// How long a look may take.
const READ: Duration = Duration::from_secs(10);
/// How long a change may take: compiling, 100 000 blocks, an fsync on a slow disk.
const WRITE: Duration = Duration::from_mins(1);

/// Speaks with one agent.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    runtime: runtime::Runtime,
    /// How long it waits for what it reads, and for what it writes.
    patience: [Duration; 2],
}

/// An answer that is not a problem.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The body as it came.
    body: Bytes,
}

impl Answer {
    /// The body as the type that the API promises.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body)
            .context("the agent's answer is of another version than this command; upgrade the older of the two")
            .map_err(Failure::Failed)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

impl Client {
    /// A client of the agent at `socket`; nothing is connected yet.
    pub(crate) fn new(socket: &Path) -> Result<Self, Failure> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the event loop of the client")?;
        Ok(Self { socket: socket.to_owned(), runtime, patience: [READ, WRITE] })
    }

    /// Reads.
    pub(crate) fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.request(Method::GET, path, None, None)
    }

    /// Writes under a name.
    pub(crate) fn put(&self, path: &str, body: &impl Serialize) -> Result<Answer, Failure> {
        self.request(Method::PUT, path, Some(json(body)?), None)
    }

    /// Changes what is named.
    pub(crate) fn patch(&self, path: &str, body: &impl Serialize) -> Result<Answer, Failure> {
        self.request(Method::PATCH, path, Some(json(body)?), None)
    }

    /// Adds, or asks for an act.
    pub(crate) fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer, Failure> {
        self.request(Method::POST, path, Some(json(body)?), None)
    }

    /// As [`Client::post`], refused unless this revision is in force.
    pub(crate) fn post_if(&self, path: &str, body: &impl Serialize, revision: Option<u64>) -> Result<Answer, Failure> {
        self.request(Method::POST, path, Some(json(body)?), revision)
    }

    /// Removes.
    pub(crate) fn delete(&self, path: &str) -> Result<Answer, Failure> {
        self.request(Method::DELETE, path, None, None)
    }

    /// Reads lines as they come, until the agent ends them, or `each` fails.
    pub(crate) fn lines(&self, path: &str, mut each: impl FnMut(&str) -> Result<(), Failure>) -> Result<(), Failure> {
        let broken_off = |error: hyper::Error| self.silent(Silence::BrokenOff(error.to_string()), false);
        self.runtime.block_on(async {
            let request = build(Method::GET, path, None, None)?;
            let response = self.in_time(false, self.send(request)).await?;
            let mut body = self.accepted(response, false).await?.into_body();
            let mut rest = Vec::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(broken_off)?.into_data() else { continue };
                rest.extend_from_slice(&data);
                while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    let line = String::from_utf8_lossy(&line);
                    if !line.trim().is_empty() {
                        each(line.trim_end())?;
                    }
                }
            }
            Ok(())
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        revision: Option<u64>,
    ) -> Result<Answer, Failure> {
        let writes = method != Method::GET;
        self.runtime.block_on(async {
            let request = build(method, path, body, revision)?;
            self.in_time(writes, async {
                let response = self.accepted(self.send(request).await?, writes).await?;
                Ok(Answer { body: self.whole(response, writes).await? })
            })
            .await
        })
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let writes = request.method() != Method::GET;
        let broken_off = |error: hyper::Error| self.silent(Silence::BrokenOff(error.to_string()), writes);
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken_off)?;
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(broken_off)
    }

    async fn accepted(&self, response: Response<Incoming>, writes: bool) -> Result<Response<Incoming>, Failure> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        Err(problem::failure(status, &self.whole(response, writes).await?))
    }

    async fn whole(&self, response: Response<Incoming>, writes: bool) -> Result<Bytes, Failure> {
        let body = response.into_body().collect().await;
        Ok(body.map_err(|error| self.silent(Silence::BrokenOff(error.to_string()), writes))?.to_bytes())
    }

    /// The answer, unless it takes longer than this client waits.
    async fn in_time<T>(&self, writes: bool, answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let limit = self.patience[usize::from(writes)];
        time::timeout(limit, answer).await.map_err(|_| self.silent(Silence::TooLong(limit), writes))?
    }

    fn silent(&self, cause: Silence, wrote: bool) -> Failure {
        Failure::Silent { socket: self.socket.clone(), cause, wrote }
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "run this as root, or as a member of the group that `throttle run --socket-group` names"
            }
            _ => "is `throttle run` running? start it, or name its socket with --socket or THROTTLE_SOCKET",
        };
        Failure::Unreachable { socket: self.socket.clone(), cause: error.to_string(), remedy }
    }
}

/// The path of a named thing.
pub(crate) fn under(path: &str, name: &str) -> String {
    format!("{path}/{}", escape(name))
}

/// The path with the fields as its query; those that are absent are left out.
pub(crate) fn query(path: &str, fields: &impl Serialize) -> Result<String, Failure> {
    let fields = serde_json::to_value(fields).context("write the query")?;
    let pair = |(name, value): (&String, &Value)| match value {
        Value::Null => None,
        Value::String(text) => Some(format!("{name}={}", escape(text))),
        other => Some(format!("{name}={}", escape(&other.to_string()))),
    };
    let pairs: Vec<String> = fields.as_object().into_iter().flatten().filter_map(pair).collect();
    Ok(if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) })
}

/// Percent-encodes all but what RFC 3986 calls unreserved.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

fn json(body: &impl Serialize) -> Result<Bytes, Failure> {
    Ok(serde_json::to_vec(body).context("write the request as JSON")?.into())
}

fn build(
    method: Method,
    path: &str,
    body: Option<Bytes>,
    revision: Option<u64>,
) -> Result<Request<Full<Bytes>>, Failure> {
    let mut request = Request::builder().method(method).uri(path).header(HOST, "throttle");
    request = request.header(ACCEPT, "application/json");
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    if let Some(revision) = revision {
        request = request.header(IF_MATCH, format!("\"{revision}\""));
    }
    Ok(request.body(Full::new(body.unwrap_or_default())).context("write the request")?)
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
