//! The clock of a packet: read when first asked, and never twice. What limits go by is a health clock, which follows it.

use aya_ebpf::{
    Global,
    helpers::{bpf_jiffies64, bpf_ktime_get_ns},
};
use throttle_common::{
    gcra::{self, Ticks},
    health_clock::{self, Words},
    limits,
    records::HealthClock,
};

use crate::{
    atomic,
    tables::{CLOCKS, TEST_CLOCK},
};

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

    /// Nanoseconds where they are known already, else 0.
    #[inline(always)]
    pub fn known(self) -> u64 {
        self.0
    }

    /// The same instant in ticks of real time.
    #[inline(always)]
    pub fn ticks(&mut self) -> Ticks {
        gcra::ticks(self.nanos())
    }
}

/// An instant of this CPU's that lies within the tick that runs, so that no clock has to be read to know it roughly.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Rough {
    jiffies: u64,
    nanos: u64,
}

impl Rough {
    /// How far the present is beyond the instant at most: two ticks of the slowest kernels, because one may be late.
    const BEYOND: Ticks = gcra::ticks(20_000_000);

    /// The clock as it stood then, if the same tick runs still, and how far it may have got meanwhile.
    #[inline(always)]
    pub fn read(&self) -> Option<(Clock, Ticks)> {
        // SAFETY: no arguments, available to every program type.
        let same = TEST_CLOCK_ON.load() == 0 && unsafe { bpf_jiffies64() } == self.jiffies;
        if same { Some((Clock(self.nanos), gcra::ticks(self.nanos).wrapping_add(Self::BEYOND))) } else { None }
    }

    /// Notes the clock.
    #[inline(always)]
    pub fn note(&mut self, clock: &mut Clock) {
        // SAFETY: as above.
        *self = Self { jiffies: unsafe { bpf_jiffies64() }, nanos: clock.nanos() };
    }
}

impl limits::Clock for Clock {
    #[inline(always)]
    fn nanos(&mut self) -> u64 {
        Self::nanos(self)
    }

    #[inline(always)]
    fn reads(&mut self, clock: u16) -> Ticks {
        let nanos = Self::nanos(self);
        // That is so of most: they are read here, the others elsewhere.
        if is_untouched(clock) { gcra::ticks(nanos) } else { read_health_clock(clock.into(), nanos) }
    }
}

/// Whether nobody ever set the speed of a health clock: then it reads what the real one does.
#[inline(always)]
pub fn is_untouched(clock: u16) -> bool {
    CLOCKS.get(clock.into()).is_none_or(|clock| Lying(clock).is_untouched())
}

/// What a health clock reads. A global function, which the verifier checks once and by itself.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn read_health_clock(number: u32, nanos: u64) -> u64 {
    CLOCKS.get(number).map_or_else(|| gcra::ticks(nanos), |clock| health_clock::read(&Lying(clock), nanos))
}

/// A health clock in map memory.
struct Lying(&'static HealthClock);

impl Lying {
    #[inline(always)]
    fn is_untouched(&self) -> bool {
        // SAFETY: a word of the map's, aligned to 8; the agent may store to it at any time.
        unsafe { (&raw const self.0.sequence).read_volatile() == 0 }
    }
}

impl Words for Lying {
    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        let first: *const HealthClock = self.0;
        // SAFETY: within the record whatever the index, because its words are a power of two; aligned to 8.
        unsafe { atomic::load(first.cast::<u64>().add(index & (size_of::<HealthClock>() / size_of::<u64>() - 1))) }
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
