//! A probe by gRPC's health check (grpc.health.v1) over HTTP/2.

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, client};
use hyper::{
    HeaderMap, Method, Request, Uri, Version,
    header::{CONTENT_TYPE, TE},
};
use tokio::net::TcpStream;

use super::{Answer, Drive, Error, Gone, health, now};

/// Bytes of an answer, which needs seven.
const ANSWER: usize = 1 << 10;
/// Bytes of headers and trailers.
const HEADERS: u32 = 16 << 10;
/// What HTTP says of a call that gRPC answers.
const OK: u16 = 200;

/// A connection for one call after the other.
pub(super) struct Connection {
    sender: client::SendRequest<Bytes>,
    drive: Drive<client::Connection<TcpStream>>,
}

impl Connection {
    pub(super) async fn open(stream: TcpStream) -> Result<Self, Gone> {
        let mut builder = client::Builder::new();
        builder.enable_push(false).max_header_list_size(HEADERS);
        let (sender, connection) = builder.handshake(stream).await.map_err(|error| gone(&error))?;
        Ok(Self { sender, drive: Drive::new(connection) })
    }

    pub(super) async fn closed(&mut self) {
        self.drive.ended().await;
    }

    pub(super) async fn ask(&mut self, host: &str, service: &str) -> Result<Answer, Gone> {
        let request = request(host).ok_or(Gone::Unsent)?;
        let sender = self.sender.clone();
        let mut sender = self.drive.during(sender.ready()).await.map_err(|error| gone(&error))?;
        let start = now();
        let (response, mut call) = sender.send_request(request, false).map_err(|error| gone(&error))?;
        call.send_data(health::request(service), true).map_err(|error| gone(&error))?;
        let response = self.drive.during(response).await.map_err(|error| gone(&error))?;
        let latency = now().saturating_sub(start);
        let (head, body) = response.into_parts();
        let error = if head.status.as_u16() != OK {
            Some(Error::Http(head.status.as_u16()))
        } else if let Some(status) = status(&head.headers) {
            Some(status).filter(|status| *status != 0).map_or(Some(Error::Protocol), |status| Some(Error::Grpc(status)))
        } else {
            self.drive.during(read(body)).await.map_err(|error| gone(&error))?
        };
        Ok(Answer { latency, error, keeps: self.drive.is_open() })
    }
}

fn request(host: &str) -> Option<Request<()>> {
    let uri = Uri::builder().scheme("http").authority(host).path_and_query(health::METHOD).build().ok()?;
    let request = Request::builder().method(Method::POST).version(Version::HTTP_2).uri(uri);
    request.header(CONTENT_TYPE, "application/grpc").header(TE, "trailers").body(()).ok()
}

/// Reads an answer and its trailers: what is wrong with it.
async fn read(mut body: RecvStream) -> Result<Option<Error>, h2::Error> {
    let mut answer = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        if answer.len() + data.len() > ANSWER {
            return Ok(Some(Error::Protocol));
        }
        answer.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?;
    Ok(match (trailers.as_ref().and_then(status), health::read(&answer)) {
        (Some(0), Some(health::SERVING)) => None,
        (Some(0), Some(health)) => Some(Error::Health(health)),
        (Some(0) | None, _) => Some(Error::Protocol),
        (Some(status), _) => Some(Error::Grpc(status)),
    })
}

/// The status of a call.
fn status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn gone(error: &h2::Error) -> Gone {
    // What is not HTTP/2 breaks its rules at the first frame, which the library itself finds.
    if error.is_library() && !error.is_io() { Gone::Protocol } else { Gone::Closed }
}
