//! Takes heartbeats over TLS, of clients with a certificate, whoever else is at the port.
//!
//! A connection is a stranger's until its handshake is done, and then its certificate's. Of both there are so many places
//! and no more (`Places`): neither strangers nor clients keep a client out, however many connections they open and
//! however little they say on them.

use std::{
    future, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::Router;
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    Faults,
    places::Places,
    sender::Certificate,
    serve::{BREATH, converse, part, until},
};
use crate::tls::{Renewed, ServerConfig};

/// Connections at once whose handshake is not done. One takes a round trip or two, and some milliseconds.
const STRANGERS: usize = 128;
/// Connections at once of clients. One that beats every 5 s or more often keeps its connection.
const CLIENTS: usize = 1024;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a connection may last, because its certificate is looked at when it begins.
const LASTS: Duration = Duration::from_hours(1);
/// How often it is told of handshakes that failed, whatever their number.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Serves `router` to clients that an authority vouches for, until `end`; each request carries its `Certificate`.
pub async fn serve(
    listener: TcpListener,
    identity: Arc<Renewed<ServerConfig>>,
    router: Router,
    faults: Arc<Faults>,
    end: CancellationToken,
) {
    let port = Arc::new(Port {
        identity,
        router,
        faults,
        strangers: Places::new(STRANGERS),
        clients: Places::new(CLIENTS),
        told: Mutex::default(),
    });
    let mut connections = JoinSet::new();
    while let Some(accepted) = until(&end, listener.accept()).await {
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, address)) => {
                connections.spawn(Arc::clone(&port).receive(stream, address, end.child_token()));
            }
            Err(error) => {
                tracing::warn!(%error, "no connection of heartbeats can be accepted");
                sleep(BREATH).await;
            }
        }
    }
    part(connections).await;
}

/// What the connections share.
struct Port {
    identity: Arc<Renewed<ServerConfig>>,
    router: Router,
    faults: Arc<Faults>,
    strangers: Arc<Places<IpAddr>>,
    clients: Arc<Places<Certificate>>,
    /// When it was last told of a handshake that failed.
    told: Mutex<Option<Instant>>,
}

impl Port {
    /// Serves a connection from its first byte to its last.
    async fn receive(self: Arc<Self>, stream: TcpStream, address: SocketAddr, end: CancellationToken) {
        let mut identity = self.identity.subscribe();
        let acceptor = TlsAcceptor::from(Arc::clone(&identity.borrow_and_update()));
        let place = self.strangers.take(network(address.ip()));
        let shaken = tokio::select! {
            shaken = timeout(HANDSHAKE, acceptor.accept(stream)) => shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = place.lost() => Err(io::Error::other("others came, and this one had not shown who it is")),
            () = end.cancelled() => return,
        };
        let (stream, certificate) = match shaken.and_then(certified) {
            Ok(client) => client,
            Err(error) => return self.refuse(address, &error),
        };
        let client = self.clients.take(certificate.clone());
        drop(place);
        // What is asked is answered before the connection ends for its age or for new certificates.
        let over = async {
            let _ = timeout(LASTS, identity.changed()).await;
            end.cancel();
            future::pending::<()>().await;
        };
        tokio::select! {
            () = converse(TokioIo::new(stream), self.router.clone(), certificate, end.clone()) => {}
            () = client.lost() => {}
            () = over => {}
        }
    }

    fn refuse(&self, address: SocketAddr, error: &io::Error) {
        self.faults.handshakes.fetch_add(1, Relaxed);
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY) {
            *told = Some(now);
            tracing::warn!(
                %address,
                "refused a client of heartbeats: {error}; throttle_api_refused_handshakes_total counts all, and one in {} s is told",
                TOLD_EVERY.as_secs()
            );
        }
    }
}

/// The certificate that a client has shown.
fn certified(stream: TlsStream<TcpStream>) -> io::Result<(TlsStream<TcpStream>, Certificate)> {
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
    let shown = shown.ok_or_else(|| io::Error::other("it has shown no certificate"))?;
    Ok((stream, Certificate::new(shown)))
}

/// What strangers are counted by: an IPv4 address, or the /64 of IPv6, of which one who has it has every address.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_of_one_network_are_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
