//! The clock of a packet: read when first asked, and never twice.

use aya_ebpf::{Global, helpers::bpf_ktime_get_ns};
use throttle_common::{
    gcra::{self, Ticks},
    limits,
};

use crate::tables::TEST_CLOCK;

/// 1 where a test sets the clock through [`TEST_CLOCK`]. The verifier removes the branch elsewhere.
#[unsafe(no_mangle)]
static TEST_CLOCK_ON: Global<u8> = Global::new(0);

/// One packet's view of CLOCK_MONOTONIC.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Clock(u64);

impl Clock {
    /// A clock that nobody has asked yet.
    #[inline(always)]
    pub fn unread() -> Self {
        Self(0)
    }

    /// A clock that is read now.
    #[inline(always)]
    pub fn read() -> Self {
        Self(read())
    }

    /// A clock that was read already.
    #[inline(always)]
    pub fn at(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds.
    #[inline(always)]
    pub fn nanos(&mut self) -> u64 {
        if self.0 == 0 {
            self.0 = read();
        }
        self.0
    }

    /// The same instant as a bucket counts it.
    #[inline(always)]
    pub fn ticks(&mut self) -> Ticks {
        gcra::ticks(self.nanos())
    }
}

impl limits::Clock for Clock {
    #[inline(always)]
    fn nanos(&mut self) -> u64 {
        Self::nanos(self)
    }
}

#[inline(always)]
fn read() -> u64 {
    if TEST_CLOCK_ON.load() == 1 {
        return TEST_CLOCK.get(0).copied().unwrap_or(1);
    }
    // SAFETY: no arguments, available to every program type.
    unsafe { bpf_ktime_get_ns() }
}
