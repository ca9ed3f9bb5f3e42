//! What the traffic source is told, what it sent and what came through, and what got lost: shared by the kernel programs and
//! the tests.

/// What to send. A source is an IPv4 address, or an IPv6 /64: the first eight bytes of its address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The bits that all sources of the flood share.
    pub flood: u64,
    /// The bits that are drawn for each frame of the flood.
    pub random: u64,
    /// Nanoseconds between frames of the flood: 0 for as fast as possible, [`NEVER`] for none.
    pub flood_interval: u64,
    /// The one source that is woven into the flood; the flood never speaks in its name.
    pub honest: u64,
    /// The adjoining bits by which several honest sources differ, who take turns; 0 for one source. Not the lowest bit.
    pub turns: u64,
    /// Nanoseconds between frames of the honest sources together, or [`NEVER`].
    pub honest_interval: u64,
    /// The ports that frames of the flood and of the honest sources go to, in IPv4 without options; 0 where all go to the
    /// one that the frame names.
    pub flood_port: u32,
    /// See above.
    pub honest_port: u32,
    /// The bits of the source port that are drawn for each frame of the flood, in TCP over IPv4 without options; 0 where all
    /// come from the one that the frame names.
    pub from_ports: u64,
    /// The clock is read once in so many frames: a power of two.
    pub clock_every: u64,
    /// How late a stream may catch up, in nanoseconds: its rate holds over that long a preemption, its spacing does not.
    pub catch_up: u64,
    /// When both streams begin, on the kernel's monotonic clock; 0 for at once.
    pub begin: u64,
    /// When both streams end, or [`NEVER`].
    pub end: u64,
}

impl Order {
    /// Sends nothing.
    #[cfg(not(target_arch = "bpf"))]
    pub const SILENT: Self = Self {
        flood: 0,
        random: 0,
        flood_interval: NEVER,
        honest: 0,
        turns: 0,
        honest_interval: NEVER,
        flood_port: 0,
        honest_port: 0,
        from_ports: 0,
        clock_every: 1,
        catch_up: 1_000_000,
        begin: 0,
        end: NEVER,
    };

    /// Whether this is an honest source.
    #[inline(always)]
    pub const fn is_honest(&self, source: u64) -> bool {
        source & !self.turns == self.honest
    }

    /// Whether this may be a source of the flood.
    #[inline(always)]
    pub const fn is_flood(&self, source: u64) -> bool {
        source & !self.random == self.flood && !self.is_honest(source)
    }

    /// The honest source whose turn it is after so many frames of theirs.
    #[inline(always)]
    pub const fn honest_after(&self, frames: u64) -> u64 {
        let lowest = self.turns & self.turns.wrapping_neg();
        self.honest | (frames.wrapping_mul(lowest) & self.turns)
    }

    /// The source of the flood that is drawn with these bits.
    #[inline(always)]
    pub const fn flood_of(&self, state: u64) -> u64 {
        // The better bits of the generator are the upper ones.
        let source = self.flood | (state.rotate_left(32) & self.random);
        if self.is_honest(source) { source ^ 1 } else { source }
    }
}

/// No such frames.
pub const NEVER: u64 = u64::MAX;

/// Where the traffic source stands. Written by the kernel, except for the seed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// The xorshift state; not 0.
    pub state: u64,
    /// The clock as last read.
    pub now: u64,
    /// When the flood's next frame is due.
    pub next_flood: u64,
    /// When the honest sources' next frame is due.
    pub next_honest: u64,
    /// Frames seen, sent or not.
    pub turns: u64,
    /// Frames sent by the flood.
    pub flood: u64,
    /// Frames sent by the honest sources.
    pub honest: u64,
    /// The clock at the first frame that was sent.
    pub first: u64,
    /// The clock at the last one.
    pub last: u64,
    /// The longest time between two readings of the clock while the streams ran: how long the sender was kept from sending.
    pub pause: u64,
}

/// What came through to the network stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Frames of the honest sources.
    pub honest: u64,
    /// Their bytes.
    pub honest_bytes: u64,
    /// All other frames.
    pub other: u64,
    /// Their bytes.
    pub other_bytes: u64,
}

/// How much gets lost on a cable.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Of 2^32 packets, so many.
    pub odds: u64,
    /// The IPv4 address whose SYNs are counted.
    pub counted: u64,
}

/// What came in by a cable that loses packets. Written by the kernel, except for the seed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// The xorshift state; not 0.
    pub state: u64,
    /// Packets that came, lost or not.
    pub packets: u64,
    /// Those of them that were lost.
    pub lost: u64,
    /// SYNs of the address that is counted, lost or not.
    pub asks: u64,
}

/// The next state of Marsaglia's xorshift64 (2003): every 64-bit number but 0 once.
#[inline(always)]
pub const fn xorshift(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    state
}
