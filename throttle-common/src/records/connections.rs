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
    /// When its handshake completed: the kernel's monotonic clock, nanoseconds, and one more for each time that it was found
    /// to be open; and above that, as long as a kernel program changes it or gives its places back, [`Connection::MARKS`].
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
    /// Its SYN was let through and opens it at once (TCP fast open): there may be a socket, whose handshake is not complete.
    pub const FAST: u32 = 4;

    /// A mark in [`Connection::since`]: its places are being changed. Whoever does that has it to himself, and removes it
    /// where its end was seen meanwhile.
    pub const CHANGES: u64 = 1 << 63;
    /// Another one: somebody has seen its end.
    pub const ENDS: u64 = 1 << 62;
    /// One more, beside the first: an end was seen from before it opens. It counts unless whoever changes it finds it open.
    pub const FORSAKEN: u64 = 1 << 61;
    /// All of them.
    pub const MARKS: u64 = Self::CHANGES | Self::ENDS | Self::FORSAKEN;

    /// When its handshake completed: the kernel's monotonic clock, nanoseconds.
    pub const fn began(&self) -> u64 {
        self.since & !Self::MARKS
    }
}

/// What is to be mended of a connection: the frame that the program `mend` is run on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mending {
    /// Its ends.
    pub ends: Ends,
    /// One of the constants below.
    pub act: u32,
    /// The state that it is in from now on, or [`Mending::SAME`].
    pub state: u32,
    /// As it was found written down; of its places those that it keeps.
    pub found: Connection,
    /// 1 where it asks for no place of a guarantee that it does not have.
    pub settled: u64,
}

impl Mending {
    /// It stays in the state that it is in.
    pub const SAME: u32 = u32::MAX;

    /// It has ended: it is removed and its places are given back, if it still is as it was found.
    pub const END: u32 = 0;
    /// It lets go of all places but those that it keeps, and takes those that it lacks.
    pub const HOLD: u32 = 1;
    /// It is open and not written down: it takes its places and is written down, unless it is by now.
    pub const ADOPT: u32 = 2;
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
