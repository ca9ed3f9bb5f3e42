//! What a limit is to be charged for a packet.

use crate::{gcra::Ticks, table::Request, windows::Sliding};

/// What a limit is to be charged for a packet. Plain words, because it may wait in a map.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Charge {
    /// The source's key, where the charge is to a slot.
    pub key: u64,
    /// The bucket as it was read.
    pub seen: u64,
    /// What the limit's clock reads: once for all that is asked and charged.
    pub now: Ticks,
    /// The price of the packet.
    pub cost: Ticks,
    /// How deep the bucket is; where it is an aggregate's whose windows slide, how deep it is now.
    pub depth: Ticks,
    /// The set of the source's key, or the aggregate.
    pub place: u32,
    /// The set of the bucket: the same, but where buckets have two words.
    pub words: u32,
    /// The slot in the set.
    pub way: u32,
    /// The ways that the source may take.
    pub ways: u32,
    /// One of the kinds below.
    pub kind: u32,
    pub(super) overflowed: u32,
    /// The windows at the instant of the packet, where they slide.
    pub window: Sliding,
}

/// The limit is not asked.
const UNASKED: u32 = 0;

impl Charge {
    /// The limit lets the packet pass and remembers nothing.
    pub const UNCHARGED: u32 = 1;
    /// The source's slot, which had room when it was read.
    pub const HELD: u32 = 2;
    /// A free slot for the source to take over.
    pub const FREE: u32 = 3;
    /// The aggregate's bucket, which had room when it was read.
    pub const AGGREGATE: u32 = 4;
    /// This CPU's lease of the bucket, which is at that place ([`crate::lease`]). What was seen is where the piece after this
    /// packet's begins.
    pub const LEASED: u32 = 5;
    /// As [`Charge::HELD`], where a lease is to be tried before.
    pub const LEASING: u32 = 6;

    /// No charge.
    pub const NOTHING: Self = Self {
        key: 0,
        seen: 0,
        now: 0,
        cost: 0,
        depth: 0,
        place: 0,
        words: 0,
        way: 0,
        ways: 0,
        kind: UNASKED,
        overflowed: 0,
        window: Sliding::NONE,
    };

    /// Forgets the charge.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.kind = UNASKED;
        self.overflowed = 0;
    }

    /// Whether the limit has a say in this packet.
    #[inline(always)]
    pub fn asked(&self) -> bool {
        self.kind != UNASKED
    }

    /// Whether the region had no room for the source.
    #[inline(always)]
    pub fn overflowed(&self) -> bool {
        self.overflowed != 0
    }

    /// What it means to a set.
    #[inline(always)]
    pub const fn request(&self) -> Request {
        let Self { key, now, cost, depth, ways, .. } = *self;
        Request { key, now, cost, depth, ways: ways as usize }
    }

    /// Says where the charge goes.
    #[inline(always)]
    pub fn aim(&mut self, kind: u32, way: usize, seen: u64) {
        self.kind = kind;
        self.way = way as u32;
        self.seen = seen;
    }
}
