//! What becomes of a probe, and what that says of a backend's life.

use std::{fmt, io::ErrorKind, sync::Arc, time::Duration};

use super::Instance;
use crate::health::{
    Nanos,
    life::{Incarnation, Said, Sign},
};

/// Something that was seen of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Of which.
    pub instance: Arc<Instance>,
    /// When, on CLOCK_MONOTONIC.
    pub at: Nanos,
    /// What that says.
    pub said: Said,
}

/// What became of a probe, or a beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was answered well.
    Answered { latency: Nanos },
    /// It was answered by an error.
    Failed { latency: Nanos, error: Error },
    /// It was not answered.
    Unanswered(Silence),
    /// The connection was refused: the backend's host says that nothing listens.
    Refused,
    /// This host could not send it, for which the backend is not to blame: nothing is learnt.
    Unsent(ErrorKind),
    /// The kernel of its host answered.
    Packet,
    /// It beat by itself.
    Beat { of: Incarnation, sequence: u64, latency: Option<Nanos>, overloaded: bool },
}

/// An error that a backend answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// HTTP's status.
    Http(u16),
    /// gRPC's status.
    Grpc(u32),
    /// The health that it says it has, which is not `SERVING`.
    Health(u64),
    /// What it says is not of the protocol.
    Protocol,
}

/// How it was silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// No connection came about in time.
    Connecting(Duration),
    /// There is no way to it, by what a router says, or this host, which nobody tells where it is: the two cannot be told
    /// apart, and the latter may be this host's own fault.
    NoWay(ErrorKind),
    /// It took the connection and said nothing in time.
    Answering(Duration),
    /// It closed the connection without an answer.
    Closed,
    /// It sent no heartbeat by itself.
    NoBeat(Duration),
}

impl Outcome {
    /// What it says of the backend's life.
    pub(super) fn sign(&self) -> Sign {
        match self {
            Self::Answered { .. } | Self::Failed { .. } => Sign::Answered,
            Self::Unanswered(Silence::Connecting(_) | Silence::NoWay(_)) => Sign::Unanswered,
            Self::Unanswered(Silence::Answering(_) | Silence::Closed | Silence::NoBeat(_)) => Sign::Mute,
            Self::Refused => Sign::Refused,
            Self::Unsent(_) => Sign::Unsent,
            Self::Packet => Sign::Packet,
            Self::Beat { of, sequence, .. } => Sign::Beat { of: *of, sequence: *sequence },
        }
    }

    /// How long the answer took.
    pub(super) fn latency(&self) -> Option<Nanos> {
        match self {
            Self::Answered { latency } | Self::Failed { latency, .. } => Some(*latency),
            Self::Beat { latency, .. } => *latency,
            _ => None,
        }
    }

    /// All that it says, where a breaker counts this of it.
    pub(super) fn said(&self, good: Option<bool>) -> Said {
        let overloaded = matches!(self, Self::Beat { overloaded: true, .. });
        Said { sign: self.sign(), latency: self.latency(), good, overloaded }
    }

    /// What a breaker counts of it, where it is that of a probe at its pace.
    pub(super) fn counts(&self) -> Option<bool> {
        (!matches!(self, Self::Packet | Self::Unsent(_))).then(|| self.is_good())
    }

    /// The same where it is that of a confirmation.
    pub(super) fn counts_of_confirmation(&self) -> Option<bool> {
        self.counts().filter(|_| !matches!(self, Self::Unanswered(_)))
    }

    /// Whether the backend did as a good one does.
    pub(super) fn is_good(&self) -> bool {
        matches!(self, Self::Answered { .. } | Self::Beat { .. })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { .. } => f.write_str("answered"),
            Self::Failed { error: Error::Http(status), .. } => write!(f, "answered HTTP {status}"),
            Self::Failed { error: Error::Grpc(status), .. } => write!(f, "answered gRPC status {status}"),
            Self::Failed { error: Error::Health(0), .. } => f.write_str("answered UNKNOWN"),
            Self::Failed { error: Error::Health(2), .. } => f.write_str("answered NOT_SERVING"),
            Self::Failed { error: Error::Health(3), .. } => f.write_str("answered SERVICE_UNKNOWN"),
            Self::Failed { error: Error::Health(health), .. } => write!(f, "answered health {health}"),
            Self::Failed { error: Error::Protocol, .. } => f.write_str("answered what is not of the probe's protocol"),
            Self::Unanswered(Silence::Connecting(after)) => write!(f, "took no connection within {after:?}"),
            Self::Unanswered(Silence::NoWay(kind)) => write!(f, "cannot be reached: {kind}"),
            Self::Unanswered(Silence::Answering(after)) => write!(f, "did not answer within {after:?}"),
            Self::Unanswered(Silence::Closed) => f.write_str("closed the connection without an answer"),
            Self::Unanswered(Silence::NoBeat(after)) => write!(f, "sent no heartbeat within {after:?}"),
            Self::Refused => f.write_str("refused: connection refused"),
            Self::Unsent(kind) => write!(f, "could not be asked, for a fault of this host: {kind}"),
            Self::Packet => f.write_str("its kernel answered"),
            Self::Beat { overloaded: false, .. } => f.write_str("beat"),
            Self::Beat { overloaded: true, .. } => f.write_str("beat that it is overloaded"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_sign_of_life_and_not_good() {
        let failed = Outcome::Failed { latency: 7, error: Error::Http(503) };
        assert_eq!((failed.sign(), failed.is_good(), failed.latency()), (Sign::Answered, false, Some(7)));
        let well = Outcome::Answered { latency: 7 };
        assert_eq!((well.sign(), well.is_good(), well.latency()), (Sign::Answered, true, Some(7)));
    }

    #[test]
    fn of_what_this_host_could_not_send_nothing_is_learnt_and_where_there_is_no_way_nobody_has_refused() {
        let unsent = Outcome::Unsent(ErrorKind::NetworkUnreachable);
        assert_eq!((unsent.sign(), unsent.counts(), unsent.is_good()), (Sign::Unsent, None, false));
        let no_way = Outcome::Unanswered(Silence::NoWay(ErrorKind::HostUnreachable));
        assert_eq!((no_way.sign(), no_way.counts()), (Sign::Unanswered, Some(false)));
        let mute = Outcome::Unanswered(Silence::Answering(Duration::from_secs(1)));
        assert_eq!((mute.sign(), mute.counts()), (Sign::Mute, Some(false)));
        assert_eq!((Outcome::Refused.sign(), Outcome::Refused.counts()), (Sign::Refused, Some(false)));
    }
}
