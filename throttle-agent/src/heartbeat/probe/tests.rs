//! Probes against real listeners.

use std::{
    convert::Infallible,
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{HeaderMap, Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket},
    sync::Notify,
    time::timeout,
};

use super::*;
use crate::{heartbeat::Instance, policy::Protocol};

fn member(address: SocketAddr, probe: Probe) -> Member {
    Member {
        instance: Arc::new(Instance { service: "web".into(), backend: "web-1".into(), address }),
        host: address.to_string().into(),
        protocol: Protocol::Tcp,
        probe,
        interval: Duration::from_millis(200),
        timeout: Duration::from_secs(1),
    }
}

fn http(address: SocketAddr) -> Member {
    member(address, Probe::Http { path: "/healthz?deep=1".to_owned() })
}

fn grpc(address: SocketAddr, service: &str) -> Member {
    member(address, Probe::Grpc { service: service.to_owned() })
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address that nobody listens to for as long as the socket lives.
fn deserted() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// One probe with what it keeps, and how many connections it made.
async fn asked(member: &Member, road: &mut Road) -> (Outcome, usize) {
    let mut made = 0;
    let outcome = ask(member, road, || made += 1).await;
    (outcome, made)
}

/// A server of HTTP/1.1 that answers so, and counts its connections.
async fn serve(status: u16, body: Vec<u8>) -> (SocketAddr, Arc<AtomicUsize>) {
    let ((listener, address), taken) = (listener().await, Arc::new(AtomicUsize::new(0)));
    let (count, body) = (Arc::clone(&taken), Bytes::from(body));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Relaxed);
            let body = body.clone();
            let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                assert_eq!(request.uri(), "/healthz?deep=1");
                assert_eq!(request.headers()["host"].to_str().unwrap(), address.to_string());
                let response = Response::builder().status(status).body(Full::new(body.clone())).unwrap();
                async { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    (address, taken)
}

/// A server that says the same bytes to everybody and closes.
async fn say(bytes: &'static [u8]) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 512];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(bytes).await;
        }
    });
    address
}

#[tokio::test]
async fn a_connection_that_is_only_to_be_taken_never_reaches_the_application() {
    let (listener, address) = listener().await;
    for _ in 0..3 {
        assert!(matches!(knock(address).await, Outcome::Answered { .. }));
    }
    let real = tokio::net::TcpStream::connect(address).await.unwrap();
    let (_, first) = listener.accept().await.unwrap();
    assert_eq!(first, real.local_addr().unwrap(), "the first that the application sees is not a probe");
}

#[tokio::test]
async fn who_refuses_is_told_from_who_cannot_be_reached() {
    let (_socket, address) = deserted();
    for member in [member(address, Probe::Tcp), http(address), grpc(address, "")] {
        let (outcome, made) = asked(&member, &mut Road::default()).await;
        assert_eq!((outcome, made), (Outcome::Refused, 0));
    }
    // The kernel of this host says so, before a packet has left.
    let nowhere = knock("255.255.255.255:9".parse().unwrap()).await;
    assert_eq!(nowhere, Outcome::Unsent(ErrorKind::NetworkUnreachable));
}

#[tokio::test]
async fn an_http_connection_is_kept_from_probe_to_probe() {
    let (address, taken) = serve(204, Vec::new()).await;
    let (member, mut road) = (http(address), Road::default());
    let made: Vec<_> =
        [asked(&member, &mut road).await, asked(&member, &mut road).await, asked(&member, &mut road).await]
            .map(|(outcome, made)| {
                assert!(matches!(outcome, Outcome::Answered { .. }), "{outcome:?}");
                made
            })
            .into();
    assert_eq!((made, taken.load(Relaxed)), (vec![1, 0, 0], 1));
}

#[tokio::test]
async fn an_error_is_no_silence() {
    for status in [301, 404, 503] {
        let (address, _) = serve(status, b"no".to_vec()).await;
        let (outcome, _) = asked(&http(address), &mut Road::default()).await;
        assert!(matches!(outcome, Outcome::Failed { error: Error::Http(told), .. } if told == status), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_body_without_end_is_not_read_and_costs_its_connection() {
    let (address, _) = serve(200, vec![b'x'; 1 << 20]).await;
    let (member, mut road) = (http(address), Road::default());
    for _ in 0..2 {
        let (outcome, made) = asked(&member, &mut road).await;
        assert!(matches!(outcome, Outcome::Answered { .. }));
        assert_eq!(made, 1);
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_no_fault() {
    let (listener, address) = listener().await;
    let (closes, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let when = (Arc::clone(&closes), Arc::clone(&gone));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 512];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            when.0.notified().await;
            drop(stream);
            when.1.notify_one();
        }
    });
    let (member, mut road) = (http(address), Road::default());
    assert!(matches!(asked(&member, &mut road).await, (Outcome::Answered { .. }, 1)));
    assert!(road.0.is_some(), "the server did not say that it would close");
    closes.notify_one();
    timeout(Duration::from_secs(10), road.closed()).await.expect("its closing is heard of");
    assert!(road.0.is_none());
    gone.notified().await;
    assert!(matches!(asked(&member, &mut road).await, (Outcome::Answered { .. }, 1)));
    closes.notify_one();
    gone.notified().await;
    // Where nobody listened for the closing, the next probe finds out and makes another.
    assert!(matches!(asked(&member, &mut road).await, (Outcome::Answered { .. }, 1)));
}

#[tokio::test]
async fn what_is_not_http_is_an_error_and_who_closes_without_a_word_is_silent() {
    let outcome = |address| async move { asked(&http(address), &mut Road::default()).await.0 };
    let garbage = outcome(say(b"SSH-2.0-OpenSSH_9.2\r\n").await).await;
    assert!(matches!(garbage, Outcome::Failed { error: Error::Protocol, .. }), "{garbage:?}");
    assert_eq!(outcome(say(b"").await).await, Outcome::Unanswered(Silence::Closed));
}

#[tokio::test]
async fn a_head_without_end_is_an_error() {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        while stream.write_all(b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n").await.is_ok() {}
    });
    let (outcome, _) = asked(&http(address), &mut Road::default()).await;
    assert!(matches!(outcome, Outcome::Failed { error: Error::Protocol, .. }), "{outcome:?}");
}

/// A server of gRPC's health service: `well` serves, `ill` does not, others are not known.
async fn serve_grpc() -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut reply))) = connection.accept().await {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    assert_eq!(request.headers()["content-type"], "application/grpc");
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        let message = body.data().await.unwrap().unwrap();
                        let (status, grpc) = match &message[5..] {
                            [] | [0x0a, 4, b'w', b'e', b'l', b'l'] => (1, "0"),
                            [0x0a, 3, b'i', b'l', b'l'] => (2, "0"),
                            _ => (0, "5"),
                        };
                        let response = Response::builder().header("content-type", "application/grpc");
                        if grpc != "0" {
                            let response = response.header("grpc-status", grpc).body(()).unwrap();
                            reply.send_response(response, true).unwrap();
                            return;
                        }
                        let mut stream = reply.send_response(response.body(()).unwrap(), false).unwrap();
                        let answer = vec![0, 0, 0, 0, 2, 0x08, status];
                        stream.send_data(answer.into(), false).unwrap();
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", grpc.parse().unwrap());
                        stream.send_trailers(trailers).unwrap();
                    });
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn grpc_says_how_it_is() {
    let address = serve_grpc().await;
    let mut road = Road::default();
    for (service, made) in [("", 1), ("well", 0)] {
        let (outcome, count) = asked(&grpc(address, service), &mut road).await;
        assert!(matches!(outcome, Outcome::Answered { .. }), "{outcome:?}");
        assert_eq!(count, made, "one connection bears all calls");
    }
    let (outcome, _) = asked(&grpc(address, "ill"), &mut road).await;
    assert!(matches!(outcome, Outcome::Failed { error: Error::Health(2), .. }), "{outcome:?}");
    let (outcome, _) = asked(&grpc(address, "unheard-of"), &mut road).await;
    assert!(matches!(outcome, Outcome::Failed { error: Error::Grpc(5), .. }), "{outcome:?}");
}

#[tokio::test]
async fn what_is_not_grpc_is_an_error() {
    let address = say(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    let (outcome, _) = asked(&grpc(address, ""), &mut Road::default()).await;
    assert!(matches!(outcome, Outcome::Failed { error: Error::Protocol, .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_probe_that_is_given_up_leaves_no_connection() {
    let (listener, address) = listener().await;
    let mut road = Road::default();
    let member = http(address);
    let given_up = timeout(Duration::from_millis(50), ask(&member, &mut road, || ())).await;
    assert!(given_up.is_err() && road.0.is_none());
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut rest = Vec::new();
    // By a reset, so that a server that hangs finds nothing to do when it wakes.
    let ended = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.expect("it is closed");
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
}
