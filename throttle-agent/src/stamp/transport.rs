//! The socket of the gossip: what chitchat says goes out sealed, what comes in is opened before anybody reads it.
//!
//! Nothing that comes by this socket ends the task that reads it; what does not count is counted by its reason.

use std::{
    io,
    net::{SocketAddr, UdpSocket as Bound},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use chitchat::{
    ChitchatMessage, Deserializable as _, Serializable as _,
    transport::{Socket, Transport},
};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::net::UdpSocket;

use super::{
    KeyFile,
    endpoint::{Endpoint, Heard, LONGEST, Unheard},
    seal::Refusal,
};

/// How long a socket rests that cannot be read.
const REST: Duration = Duration::from_millis(100);

/// Datagrams, counted since the agent was started.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    pub(super) sent: AtomicU64,
    /// Those that the system did not take, or that were too long.
    pub(super) unsent: AtomicU64,
    /// Those that came and count.
    pub(super) received: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Datagrams {
    /// Those that came and do not count, by reason.
    pub(super) fn refused(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.into_iter().zip(&self.refused).map(|(why, count)| (why, count.load(Relaxed)))
    }

    fn refuse(&self, why: Refusal) {
        let place = Refusal::ALL.iter().position(|it| *it == why).expect("all are listed");
        self.refused[place].fetch_add(1, Relaxed);
    }
}

/// What each opening of the socket shares.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    socket: Arc<UdpSocket>,
    end: Arc<Mutex<Endpoint>>,
    keys: Arc<KeyFile>,
    datagrams: Arc<Datagrams>,
}

impl Sealed {
    /// Over a socket that is bound.
    pub(super) fn new(socket: Bound, end: Endpoint, keys: Arc<KeyFile>, datagrams: Arc<Datagrams>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        Ok(Self { socket, end: Arc::new(Mutex::new(end)), keys, datagrams })
    }

    fn end(&self) -> MutexGuard<'_, Endpoint> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a datagram; one that is lost here is one of those that networks lose.
    async fn send(&self, to: SocketAddr, datagram: &[u8]) {
        let sent = self.socket.send_to(datagram, to).await.is_ok();
        let count = if sent { &self.datagrams.sent } else { &self.datagrams.unsent };
        count.fetch_add(1, Relaxed);
    }
}

/// Random bytes, each time others.
pub(crate) fn random() -> anyhow::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(bytes)
}

#[async_trait]
impl Transport for Sealed {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(Open { sealed: self.clone(), buffer: vec![0; LONGEST] }))
    }
}

struct Open {
    sealed: Sealed,
    buffer: Vec<u8>,
}

#[async_trait]
impl Socket for Open {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let sealed = &self.sealed;
        let (keys, random) = (sealed.keys.keys(), random()?);
        let datagram = sealed.end().say(&keys, to, random, &message.serialize_to_vec());
        match datagram {
            Some(datagram) => sealed.send(to, &datagram).await,
            None => _ = sealed.datagrams.unsent.fetch_add(1, Relaxed),
        }
        Ok(())
    }

    /// May be dropped at any time: what came is then still in the socket, or lost as datagrams are.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let sealed = &self.sealed;
            let Ok((length, from)) = sealed.socket.recv_from(&mut self.buffer).await else {
                // Where others refused what was sent, that is told here; anything else passes too.
                tokio::time::sleep(REST).await;
                continue;
            };
            let (keys, random) = (sealed.keys.keys(), random()?);
            let heard = sealed.end().hear(&keys, from, random, &mut self.buffer[..length]).map(|heard| match heard {
                Heard::Said(mut said) => {
                    ChitchatMessage::deserialize(&mut said).map_err(|_| Refusal::Malformed).map(Some)
                }
                Heard::Greeted => Ok(None),
            });
            match heard {
                Ok(Ok(said)) => {
                    sealed.datagrams.received.fetch_add(1, Relaxed);
                    if let Some(said) = said {
                        return Ok((from, said));
                    }
                }
                Ok(Err(why)) => sealed.datagrams.refuse(why),
                Err(Unheard { why, greeting }) => {
                    sealed.datagrams.refuse(why);
                    if let Some(greeting) = greeting {
                        sealed.send(from, &greeting).await;
                    }
                }
            }
        }
    }
}
