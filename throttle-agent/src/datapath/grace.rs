//! Waiting until no packet can still be under an old policy.
//!
//! A packet reads the generation once and then uses its records until its verdict, all within one RCU read-side
//! section. The kernel promises one thing about such sections to user space: an update of a map of maps by system call
//! returns only after every program that could have seen the old inner map has ended (`maybe_wait_bpf_programs`,
//! kernel/bpf/syscall.c). It is `synchronize_rcu()`, for any update of any such map, so a map of our own that no program
//! uses serves. `membarrier(MEMBARRIER_CMD_GLOBAL)` waits likewise, but only where more than one CPU is online, and not
//! at all on kernels with `nohz_full`.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use super::bpf::{self, MapShape};

/// The means to wait.
pub(super) struct Grace {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl Grace {
    /// Makes the two maps.
    pub(super) fn new() -> io::Result<Self> {
        /// `BPF_MAP_TYPE_ARRAY` and `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
        const ARRAY: u32 = 2;
        const ARRAY_OF_MAPS: u32 = 12;
        let shape = MapShape { kind: ARRAY, key_size: 4, value_size: 4, entries: 1, flags: 0, inner: 0 };
        let inner = bpf::map_create(shape)?;
        let outer = bpf::map_create(MapShape { kind: ARRAY_OF_MAPS, inner: bpf::number(inner.as_fd()), ..shape })?;
        Ok(Self { outer, inner })
    }

    /// Returns when every packet that was being judged at the call has its verdict: within tens of milliseconds.
    pub(super) fn wait(&self) -> io::Result<()> {
        let inner = bpf::number(self.inner.as_fd()).to_ne_bytes();
        bpf::map_update(self.outer.as_fd(), &0u32.to_ne_bytes(), &inner)
    }
}
