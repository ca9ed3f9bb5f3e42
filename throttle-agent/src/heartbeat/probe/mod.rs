//! One probe of one instance, over a connection that is kept from the one before where there is one.
//!
//! Whoever waits for it says for how long: a probe that is dropped leaves no connection behind.

mod connect;
mod grpc;
mod health;
mod http;

use std::{
    future::{Future, pending, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
};

use tokio::net::TcpStream;

use super::{
    Member, now,
    seen::{Error, Outcome, Silence},
};
use crate::{health::Nanos, policy::Probe};

/// The connection that is kept between two probes, if there is one.
#[derive(Default)]
pub(super) struct Road(Option<Connection>);

/// One that bears one request after the other.
enum Connection {
    Http(http::Connection),
    Grpc(grpc::Connection),
}

impl Road {
    /// Comes when the backend closes it, and not at all where there is none. What the protocol asks for meanwhile is done.
    pub(super) async fn closed(&mut self) {
        match &mut self.0 {
            None => pending().await,
            Some(Connection::Http(connection)) => connection.closed().await,
            Some(Connection::Grpc(connection)) => connection.closed().await,
        }
        self.0 = None;
    }
}

impl Connection {
    async fn open(probe: &Probe, stream: TcpStream) -> Result<Self, Gone> {
        match probe {
            Probe::Grpc { .. } => grpc::Connection::open(stream).await.map(Self::Grpc),
            _ => http::Connection::open(stream).await.map(Self::Http),
        }
    }

    async fn ask(&mut self, member: &Member) -> Result<Answer, Gone> {
        match (self, &member.probe) {
            (Self::Http(connection), Probe::Http { path }) => connection.ask(&member.host, path).await,
            (Self::Grpc(connection), Probe::Grpc { service }) => connection.ask(&member.host, service).await,
            _ => Err(Gone::Closed),
        }
    }
}

/// An answer.
struct Answer {
    latency: Nanos,
    /// What is wrong with it.
    error: Option<Error>,
    /// Whether the connection can be kept.
    keeps: bool,
}

/// Why there is none.
enum Gone {
    /// The connection was closed.
    Closed,
    /// What came is not of the protocol.
    Protocol,
    /// The request cannot be written.
    Unsent,
}

/// Asks for an answer, without end; `connected` is told where a new connection was made.
pub(super) async fn ask(member: &Member, road: &mut Road, mut connected: impl FnMut()) -> Outcome {
    let address = member.instance.address;
    if matches!(member.probe, Probe::Tcp | Probe::Push) {
        return knock(address).await;
    }
    // Taken, so that it is gone where this is dropped while it waits.
    if let Some(mut kept) = road.0.take()
        && let Ok(answer) = kept.ask(member).await
    {
        return settle(answer, kept, road);
    }
    // The backend may close a connection between two probes; whether it serves, a new one tells.
    let stream = match connect::connect(address).await {
        Ok(stream) => stream,
        Err(outcome) => return outcome,
    };
    connected();
    let start = now();
    let answer = async {
        let mut fresh = Connection::open(&member.probe, stream).await?;
        Ok((fresh.ask(member).await?, fresh))
    };
    match answer.await {
        Ok((answer, fresh)) => settle(answer, fresh, road),
        Err(Gone::Closed) => Outcome::Unanswered(Silence::Closed),
        Err(Gone::Protocol) => Outcome::Failed { latency: now().saturating_sub(start), error: Error::Protocol },
        Err(Gone::Unsent) => Outcome::Unsent(std::io::ErrorKind::InvalidInput),
    }
}

fn settle(answer: Answer, used: Connection, road: &mut Road) -> Outcome {
    let Answer { latency, error, keeps } = answer;
    road.0 = keeps.then_some(used);
    error.map_or(Outcome::Answered { latency }, |error| Outcome::Failed { latency, error })
}

/// Whether a connection is taken, which is closed before it is used.
pub(super) async fn knock(address: SocketAddr) -> Outcome {
    let start = now();
    match connect::connect(address).await {
        Ok(_) => Outcome::Answered { latency: now().saturating_sub(start) },
        Err(outcome) => outcome,
    }
}

/// The connection of a protocol, which has to be driven for anything to come in or go out. It is gone once it has ended.
struct Drive<C>(Option<Pin<Box<C>>>);

impl<C: Future> Drive<C> {
    fn new(connection: C) -> Self {
        Self(Some(Box::pin(connection)))
    }

    /// Drives it as long as `work` takes.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Some(connection) = &mut self.0
                && connection.as_mut().poll(context).is_ready()
            {
                self.0 = None;
            }
            work.as_mut().poll(context)
        })
        .await
    }

    /// Drives it until it ends.
    async fn ended(&mut self) {
        if let Some(connection) = &mut self.0 {
            connection.await;
        }
        self.0 = None;
    }

    const fn is_open(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests;
