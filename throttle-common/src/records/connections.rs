//! The connections that hold places under limits.

use super::{Address, CONNECTION_LIMITS};

/// The two ends of a connection, as packets to this host name them. The key of [`super::maps::CONNECTIONS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ends {
    /// Who opened it.
    pub source: Address,
    /// This host, or one that it forwards to.
    pub destination: Address,
    /// Of the source.
    pub source_port: u16,
    /// Of the service.
    pub destination_port: u16,
    /// 4 or 6; IPv4 on an IPv6 socket is 4.
    pub family: u8,
    /// Zero.
    pub padding: [u8; 3],
}

/// A connection that holds places.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// When its handshake completed: the kernel's monotonic clock, nanoseconds.
    pub since: u64,
    /// [`Connection::ENTERING`] or one of those behind it.
    pub state: u32,
    /// Of one that is forwarded, when a packet of it was seen last: a [`crate::forwarded::moment`]. Else 0, as the next four.
    pub seen: u32,
    /// The numbers that acknowledge all that the source has said, and all that the service had to say where it has ended.
    pub said: [u32; 2],
    /// What packets of the source, and of the service, have said of the end: see [`crate::forwarded`].
    pub closing: [u8; 2],
    /// Zero.
    pub padding: [u8; 2],
    /// The byte of the source's that the service waits for.
    pub acknowledged: u32,
    /// Its places, one for each limit.
    pub holds: [Hold; CONNECTION_LIMITS],
}

impl Connection {
    /// The packet that completes the handshake was let through; there is no socket yet.
    pub const ENTERING: u32 = 0;
    /// There is a socket.
    pub const OPEN: u32 = 1;
    /// It is counted by its packets, and there may be no socket here.
    pub const FORWARDED: u32 = 2;
    /// It entered and has not opened: for the instant in which a kernel program removes it.
    pub const GONE: u32 = 3;
    /// Its SYN was let through and opens it at once (TCP fast open): there may be a socket, whose handshake is not complete.
    pub const FAST: u32 = 4;
}

/// A place that a connection holds under a limit.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The source, as the limit sees it: the slot's key.
    pub key: u64,
    /// The set, or the aggregate.
    pub place: u32,
    /// The slot in its set; [`Hold::AGGREGATE`] where it has none.
    pub way: u16,
    /// The limit; [`NO_LIMIT`] where this is no place.
    pub limit: u16,
}

/// No limit.
pub const NO_LIMIT: u16 = u16::MAX;
