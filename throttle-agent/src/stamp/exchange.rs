//! Has the hosts of a stamp have the same changes to its policy: asks those who, as the gossip has it, know others, and answers
//! those who ask. Whatever a peer does ends nothing here.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    Gossip, Keys, LOOK,
    board::Peer,
    gossip::Shared,
    identity,
    speech::{self, BATCH, Heard, Hello},
    transport::random,
};
use crate::{
    api::{places::Places, tls::network, wire::Problem},
    control::Control,
    replica::{Pulls, Standing, Unfit, envelope::Refusal},
};

/// How long a connection and its handshake may take, and all that is said.
const CONNECT: Duration = Duration::from_secs(3);
const EXCHANGE: Duration = Duration::from_mins(1);
/// Connections at once whose handshake is not done, and those of hosts of the stamp.
const STRANGERS: usize = 64;
const MEMBERS: usize = 16;
/// How long a host looks for one that has the stamp's policy before it takes its own for the first.
const FOUNDING: Duration = Duration::from_secs(2);
/// How often what could not be in force is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the port rests when no connection can be accepted.
const BREATH: Duration = Duration::from_millis(100);

impl Gossip {
    /// Asks others for changes, whenever they know some that this host does not.
    pub async fn fetch_changes(self) -> anyhow::Result<Infallible> {
        let shared = self.shared();
        let (start, mut pulls, mut asking) = (Instant::now(), Pulls::default(), JoinSet::new());
        let (mut ticks, mut again) = (interval(LOOK), Instant::now());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Some(done) = asking.join_next() => {
                    let (peer, went_well): (Peer, bool) = done.context("ask another host for changes")?;
                    pulls.done(start.elapsed(), &peer.address, went_well, chance()?);
                }
            }
            let own = shared.shares().borrow().clone();
            let peers = shared.board().sharing();
            let standings = peers.iter().filter_map(|peer| Some((peer.address, peer.standing.clone()?))).collect();
            for address in pulls.next(start.elapsed(), &own.knows, &standings, chance()?) {
                let Some(peer) = peers.iter().find(|peer| peer.address == address).cloned() else { continue };
                asking.spawn(ask(Arc::clone(&shared), peer));
            }
            if again.elapsed() >= AGAIN {
                again = Instant::now();
                if own.standing.is_none() && start.elapsed() >= FOUNDING && first(&shared, &peers, &own.knows) {
                    // While the control thread is busy, there is another turn.
                    _ = shared.control().ask(Control::found).await;
                }
                let caught_up = shared.control().ask(|control| {
                    control.catch_up();
                    Ok(())
                });
                _ = caught_up.await;
            }
        }
    }

    /// Answers others who ask.
    pub async fn serve_changes(self) -> anyhow::Result<Infallible> {
        let shared = self.shared();
        let (strangers, members) = (Places::new(STRANGERS), Arc::new(Semaphore::new(MEMBERS)));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok((stream, address)) = shared.listener().accept().await else {
                sleep(BREATH).await;
                continue;
            };
            let (shared, strangers, members) = (Arc::clone(&shared), Arc::clone(&strangers), Arc::clone(&members));
            connections.spawn(async move {
                let place = strangers.take(network(address.ip()));
                let config = identity::server(&shared.keys(), shared.stamp());
                let Ok(acceptor) = config.map(|config| TlsAcceptor::from(Arc::new(config))) else { return };
                let shaken = tokio::select! {
                    shaken = timeout(CONNECT, acceptor.accept(stream)) => shaken,
                    () = place.lost() => return,
                };
                drop(place);
                let Ok(Ok(stream)) = shaken else {
                    shared.board().exchanges().strangers.fetch_add(1, Relaxed);
                    return;
                };
                let Ok(_member) = members.acquire().await else { return };
                let answered = timeout(EXCHANGE, answer(&shared, stream, address)).await;
                if let Ok(Err(error)) = answered {
                    tracing::debug!(%address, "a host that asked for changes: {error:#}");
                }
            });
        }
    }
}

/// Whether this host is the one whose policy becomes the stamp's: nobody has one, and of those who have one of their own it
/// has the first name. Where it has seeds it must hear somebody, because they may have one.
fn first(shared: &Shared, peers: &[Peer], own: &Standing) -> bool {
    let somebody_has = peers.iter().any(|peer| peer.standing.as_ref().is_some_and(|it| it.changes > 0));
    let candidate = |peer: &&Peer| peer.standing.is_none() && peer.revision > 0;
    own.changes == 0
        && !somebody_has
        && !(peers.is_empty() && shared.has_seeds())
        && peers.iter().filter(candidate).all(|peer| *peer.name > *shared.host())
}

fn chance() -> anyhow::Result<u64> {
    let bytes = random()?;
    Ok(u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes are eight")))
}

/// Asks one host, and notes what came of it: whether anything was learned on either side.
async fn ask(shared: Arc<Shared>, peer: Peer) -> (Peer, bool) {
    let outcome = timeout(EXCHANGE, exchange(&shared, &peer)).await;
    let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("it took too long")));
    let went_well = *outcome.as_ref().unwrap_or(&false);
    shared.board().exchanged(&peer, outcome.map_err(|error| format!("{error:#}")));
    (peer, went_well)
}

async fn exchange(shared: &Shared, peer: &Peer) -> anyhow::Result<bool> {
    let (keys, stamp) = (shared.keys(), shared.stamp());
    let connector = TlsConnector::from(Arc::new(identity::client(&keys, stamp)?));
    let connecting = async {
        let stream = TcpStream::connect(peer.address).await?;
        stream.set_nodelay(true)?;
        connector.connect(ServerName::IpAddress(peer.address.ip().into()), stream).await
    };
    let connected = timeout(CONNECT, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let mut stream = connected.with_context(|| format!("connect to its TCP port at {}", peer.address))?;
    let versions = shared.control().ask(|control| control.versions()).await?;
    speech::greet(&mut stream, &hello(shared, versions)).await?;
    let theirs = speech::greeted(&mut stream, stamp).await?;
    let envelopes = speech::told(&mut stream).await?;
    let learned = take(shared, &theirs.host, peer.address, envelopes).await?;
    let (_, lacking) = shared.control().ask(move |control| control.lacking(&theirs.versions, BATCH)).await?;
    speech::tell(&mut stream, &keys, stamp, &lacking).await?;
    // Once the other says so it has taken them in.
    speech::told(&mut stream).await?;
    Ok(learned + lacking.len() > 0)
}

async fn answer(
    shared: &Shared,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
) -> anyhow::Result<()> {
    let (keys, stamp) = (shared.keys(), shared.stamp());
    let theirs = speech::greeted(&mut stream, stamp).await?;
    let (versions, lacking) = shared.control().ask(move |control| control.lacking(&theirs.versions, BATCH)).await?;
    speech::greet(&mut stream, &hello(shared, versions)).await?;
    speech::tell(&mut stream, &keys, stamp, &lacking).await?;
    let envelopes = speech::told(&mut stream).await?;
    take(shared, &theirs.host, address, envelopes).await?;
    Ok(speech::end(&mut stream).await?)
}

fn hello(shared: &Shared, versions: crate::replica::Versions) -> Hello {
    Hello { stamp: shared.stamp().to_owned(), host: shared.host().to_owned(), versions }
}

/// Takes in what came, and gives how many changes are new.
async fn take(shared: &Shared, host: &str, address: SocketAddr, envelopes: Vec<Vec<u8>>) -> Result<usize, Problem> {
    if envelopes.is_empty() {
        return Ok(0);
    }
    let heard = Heard::open(&shared.keys(), shared.stamp(), envelopes);
    let from = format!("{host} ({})", address.ip());
    shared.control().ask(move |control| take_in(control, &from, heard)).await
}

/// The same on the control thread.
pub(super) fn take_in(control: &mut Control, from: &str, heard: Heard) -> Result<usize, Problem> {
    let Heard { changes, mut refused } = heard;
    let taken = control.take_in(changes)?;
    refused.extend(taken.unfit.into_iter().map(|(change, why)| match why {
        Unfit::Malformed => (Refusal::Malformed, change),
        Unfit::Forked => (Refusal::Forked, change),
    }));
    control.bury(from, refused)?;
    Ok(taken.changes.len())
}

/// Hands envelopes to a host as another one of its stamp does that knows nothing else: to try what it makes of them.
pub async fn deliver(keys: &Keys, stamp: &str, to: SocketAddr, envelopes: &[Vec<u8>]) -> anyhow::Result<()> {
    let connector = TlsConnector::from(Arc::new(identity::client(keys, stamp)?));
    let stream = TcpStream::connect(to).await?;
    let mut stream = connector.connect(ServerName::IpAddress(to.ip().into()), stream).await?;
    let hello = Hello { stamp: stamp.to_owned(), host: "trial".to_owned(), versions: BTreeMap::new() };
    speech::greet(&mut stream, &hello).await?;
    speech::greeted(&mut stream, stamp).await?;
    speech::told(&mut stream).await?;
    speech::hand(&mut stream, envelopes).await?;
    speech::told(&mut stream).await?;
    Ok(())
}
