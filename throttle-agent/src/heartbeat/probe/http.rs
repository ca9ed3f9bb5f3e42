//! A probe by HTTP/1.1.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request,
    body::Incoming,
    client::conn::http1,
    header::{HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Answer, Drive, Error, Gone, now};

/// Bytes of a body that are read to keep its connection; a longer one costs it.
const BODY: usize = 64 << 10;
/// Bytes that are read at once, and the longest head.
const HEAD: usize = 8 << 10;
/// The statuses that are no error: a redirection shows that something answers, and not that it is well.
const WELL: std::ops::Range<u16> = 200..300;
/// How the agent calls itself.
const AGENT: &str = concat!("throttle/", env!("CARGO_PKG_VERSION"));

/// A connection for one request after the other.
pub(super) struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    drive: Drive<http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>>,
}

impl Connection {
    pub(super) async fn open(stream: TcpStream) -> Result<Self, Gone> {
        let opened = http1::Builder::new().read_buf_exact_size(Some(HEAD)).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = opened.map_err(|error| gone(&error))?;
        Ok(Self { sender, drive: Drive::new(connection) })
    }

    pub(super) async fn closed(&mut self) {
        self.drive.ended().await;
    }

    pub(super) async fn ask(&mut self, host: &str, path: &str) -> Result<Answer, Gone> {
        let request = Request::get(path).header(HOST, host).header(USER_AGENT, AGENT).body(Empty::new());
        let start = now();
        let response = self.sender.send_request(request.map_err(|_| Gone::Unsent)?);
        let response = self.drive.during(response).await.map_err(|error| gone(&error))?;
        let (latency, status) = (now().saturating_sub(start), response.status().as_u16());
        let is_read = self.drive.during(read(response.into_body())).await;
        let error = (!WELL.contains(&status)).then_some(Error::Http(status));
        Ok(Answer { latency, error, keeps: is_read && self.drive.is_open() })
    }
}

/// Reads a body and says whether its end has come.
async fn read(mut body: Incoming) -> bool {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > BODY {
            return false;
        }
    }
    true
}

fn gone(error: &hyper::Error) -> Gone {
    if error.is_parse() { Gone::Protocol } else { Gone::Closed }
}
