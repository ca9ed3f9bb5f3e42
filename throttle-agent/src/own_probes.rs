//! How the kernel knows the agent's own probes, so that no breaker refuses them and none is one of its trials: by the priority
//! of their sockets, a number that each process draws for itself.
//!
//! The datapath tells it the programs that see connects, heartbeats give it to their sockets. Nobody else can guess it, and to
//! set it needs CAP_NET_RAW or CAP_NET_ADMIN (`sk_set_prio_allowed` of Linux), as it is above 6.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    os::fd::{AsFd, AsRawFd as _},
    sync::OnceLock,
};

/// The low bits of a priority choose a queue: by none of them packets wait where all others do.
const QUEUES: u32 = 0xf;

/// The priority of this process.
pub(crate) fn priority() -> u32 {
    static DRAWN: OnceLock<u32> = OnceLock::new();
    *DRAWN.get_or_init(|| {
        let drawn = RandomState::new().hash_one("probes") as u32 >> 1;
        (drawn & !QUEUES).max(QUEUES + 1)
    })
}

/// Marks the socket of a probe.
pub(crate) fn mark(socket: impl AsFd) -> io::Result<()> {
    let priority = priority();
    // SAFETY: the kernel reads the four bytes of the number.
    let result = unsafe {
        let from = (&raw const priority).cast();
        let length = size_of_val(&priority) as libc::socklen_t;
        libc::setsockopt(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, libc::SO_PRIORITY, from, length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
