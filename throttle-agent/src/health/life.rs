//! The words for whether a backend lives: what is seen of it, what is held of it, and why that changes.

use super::Nanos;

/// A start of a backend: another boot of its host, or another generation within it; see [`super::succession`] for the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// The host's boot id.
    pub boot: u128,
    /// Of two starts within a boot the later has the higher.
    pub generation: u64,
}

/// What a probe or a heartbeat says of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Of its life.
    pub sign: Sign,
    /// How long its answer took: of HTTP and gRPC from the request to the head of its answer, of TCP from SYN to SYN-ACK; what
    /// a beat says of itself.
    pub latency: Option<Nanos>,
    /// Whether it did as a good one does: what a breaker counts. An error that it answers is a sign of life, and not good. A
    /// [`Sign::Packet`] is neither good nor bad, nor is what this host could not send; nor is silence to a confirmation, which
    /// waits for less than the backend may take.
    pub good: Option<bool>,
    /// Whether it beats that it has more to do than it can. It is to be asked for less; kept away it would do nothing.
    pub overloaded: bool,
}

/// What was seen of a backend's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// A heartbeat, pushed or fetched.
    Beat {
        /// Whose.
        of: Incarnation,
        /// Grows with each beat of an incarnation.
        sequence: u64,
    },
    /// The application answered a probe.
    Answered,
    /// A probe got no answer in time, and may not have reached it.
    Unanswered,
    /// It took the connection of a probe and gave no answer in time; or a beat stayed away that it was to send by itself.
    Mute,
    /// The backend refused a connection. That there is no way to it says nothing of it, whoever tells: that is
    /// [`Sign::Unanswered`].
    Refused,
    /// A probe could not be sent, for a fault of the observer's: nothing was asked, and nothing is learnt. Of an interval in
    /// which it was so the silence is not the backend's.
    Unsent,
    /// The kernel saw a packet of the backend's host, which says nothing of the application.
    Packet,
}

/// What is held of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// It is well.
    Healthy,
    /// It is silent, and being probed.
    Suspect,
    /// It does not serve.
    Dead,
    /// It was dead or is new, and has not been well for long enough.
    Recovering,
    /// It is back, but has come and gone too often.
    Held,
}

/// Why that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its beats stay away.
    Silence,
    /// Probes fail.
    ProbesFailed,
    /// It is heard of again.
    Heard,
    /// Neither its application nor its host gave a sign of life while it was probed.
    Unconfirmed,
    /// Its host lives, but its application says nothing.
    Hangs,
    /// It refused a connection.
    Refused,
    /// It is another incarnation.
    Restarted,
    /// It came and went too often.
    Flaps,
    /// It was held for long enough.
    HeldEnough,
    /// It was good several times in a row.
    GoodInARow,
}

/// A change of what is held of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What was held.
    pub from: Level,
    /// What is held now.
    pub to: Level,
    /// Why.
    pub reason: Reason,
}
