//! Serves the API on its socket: the peer is checked before parsing, and connections, headers and time are bounded.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1, service::Service as _, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Faults,
    peer::Admission,
    wire::{Problem, ProblemKind},
};

/// Connections at once. One administrator needs one, a dashboard a few; event streams keep theirs.
const CONNECTIONS: usize = 64;
/// Connections at once that are told that there is no place for them; beyond these they are closed without a word.
const TURNED_AWAY: usize = 64;
/// How long a peer may take for the head of a request, and may sit idle between two.
const HEAD: Duration = Duration::from_secs(5);
/// Header lines of a request.
const HEADERS: usize = 64;
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// How long requests in flight may take once the agent ends.
const FAREWELL: Duration = Duration::from_secs(3);
/// The pause after `accept` failed, e.g. for want of file descriptors.
pub(super) const BREATH: Duration = Duration::from_millis(100);

/// Serves `router` to those whom `admission` admits until `end`; each request carries its [`super::peer::Peer`].
pub async fn serve_unix(
    listener: UnixListener,
    router: Router,
    admission: Admission,
    faults: Arc<Faults>,
    end: CancellationToken,
) {
    let [places, doorsteps] = [CONNECTIONS, TURNED_AWAY].map(|count| Arc::new(Semaphore::new(count)));
    let mut connections = JoinSet::new();
    while let Some(accepted) = until(&end, listener.accept()).await {
        while connections.try_join_next().is_some() {}
        let (stream, _) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the API cannot accept a connection");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            if let Ok(doorstep) = Arc::clone(&doorsteps).try_acquire_owned() {
                let detail = format!("{CONNECTIONS} connections are open already; close some and try again");
                connections.spawn(async move {
                    turn_away(stream, Problem::new(ProblemKind::Busy, detail)).await;
                    drop(doorstep);
                });
            }
            continue;
        };
        let (router, faults, end) = (router.clone(), Arc::clone(&faults), end.clone());
        connections.spawn(async move {
            match admission.admit(&stream) {
                Ok(Ok(peer)) => converse(TokioIo::new(stream), router, peer, end).await,
                Ok(Err(uid)) => {
                    faults.peers.fetch_add(1, Relaxed);
                    tracing::warn!(uid, "refused a peer on the API's socket");
                    let detail = format!("user {uid} is neither root nor in the group of --socket-group");
                    turn_away(stream, Problem::new(ProblemKind::Forbidden, detail)).await;
                }
                Err(error) => tracing::warn!(%error, "cannot tell who is at the API's socket"),
            }
            drop(place);
        });
    }
    part(connections).await;
}

/// Serves `router`, which must do without peers, on TCP until `end`.
pub async fn serve_tcp(listener: TcpListener, router: Router, end: CancellationToken) {
    let mut connections = JoinSet::new();
    while let Some(accepted) = until(&end, listener.accept()).await {
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) if connections.len() < CONNECTIONS => {
                connections.spawn(converse(TokioIo::new(stream), router.clone(), (), end.clone()));
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(BREATH).await,
        }
    }
    part(connections).await;
}

/// What `work` comes to, unless `end` comes first.
pub(super) async fn until<T>(end: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    end.run_until_cancelled(work).await
}

/// Serves one connection until its peer or `end` ends it; each request carries `peer`.
pub(super) async fn converse<S, P>(io: TokioIo<S>, router: Router, peer: P, end: CancellationToken)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    P: Clone + Send + Sync + 'static,
{
    let router = TowerToHyperService::new(router.into_service::<Body>());
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(HEADERS)
        .max_header_size(HEAD_BYTES)
        .serve_connection(io, service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection to the API broke off");
    }
}

/// Answers with a problem whatever the peer asks, and closes.
async fn turn_away(mut stream: UnixStream, problem: Problem) {
    let body = serde_json::to_string(&problem).expect("a problem is plain data");
    let answer = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        problem.status,
        problem.title,
        body.len(),
    );
    let farewell = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would reset the connection before the peer has read the answer.
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = timeout(Duration::from_secs(1), farewell).await;
}

/// Waits for the connections to end, but not for long.
pub(super) async fn part(mut connections: JoinSet<()>) {
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(FAREWELL, all).await.is_err() {
        connections.shutdown().await;
    }
}
