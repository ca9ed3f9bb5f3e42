//! What policy says of sources, outside of the generations: allows, blocks, the known, and whose tenant's they are.

use super::GENERATIONS;
use crate::{gcra::Ticks, packet::Packet};

/// What [`super::Control::sources`] says: in these bits, which maps have entries and whether any are being written, and above
/// them a number that grows whenever an entry changes, so that what was found before is found anew (see [`Seen`]).
#[derive(Clone, Copy, Debug)]
pub struct SourceMaps;

impl SourceMaps {
    /// [`super::maps::SOURCES_V4`] has entries.
    pub const ADDRESSES_V4: u32 = 1;
    /// [`super::maps::SOURCES_V6`] has entries.
    pub const ADDRESSES_V6: u32 = 2;
    /// [`super::maps::PREFIXES_V4`] has entries.
    pub const PREFIXES_V4: u32 = 4;
    /// [`super::maps::PREFIXES_V6`] has entries.
    pub const PREFIXES_V6: u32 = 8;

    /// All of them.
    pub const ALL: u32 = 15;
    /// Entries are being written. The kernel gives the room of an entry that is replaced or removed to the next one at once,
    /// so that who has just found the one may read the other: whoever looks now looks until it has read the same twice.
    pub const WRITING: u32 = 16;
    /// Those of IPv4: addresses and prefixes.
    pub const V4: [u32; 2] = [Self::ADDRESSES_V4, Self::PREFIXES_V4];
    /// Those of IPv6.
    pub const V6: [u32; 2] = [Self::ADDRESSES_V6, Self::PREFIXES_V6];

    /// What follows on `before` where the maps of `bits` have entries from now on. Never 0 where one has.
    pub const fn next(before: u32, bits: u32) -> u32 {
        const BELOW: u32 = SourceMaps::ALL | SourceMaps::WRITING;
        (before & !BELOW).wrapping_add(BELOW + 1) | bits
    }
}

/// What policy says of a source or prefix. Entries carry the union of what covers them: one look-up is enough. One of zeros
/// says nothing, as none does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceEntry {
    /// When its block ends, in nanoseconds of the kernel's monotonic clock; 0 for none, `u64::MAX` for never.
    pub blocked_until: u64,
    /// A set of [`SourceFlags`] bits.
    pub flags: u32,
    /// The number of its tenant under each generation of policy, [`super::NONE`] for none. The two differ only while one
    /// policy follows another.
    pub tenants: [u16; GENERATIONS as usize],
    /// The number of its class, likewise: those of a class have the same overrides of the same limits.
    pub classes: [u16; GENERATIONS as usize],
    /// Zero.
    pub padding: u32,
}

impl SourceEntry {
    /// No block and no limit touches the source.
    #[inline(always)]
    pub const fn allows(&self) -> bool {
        self.flags & SourceFlags::ALLOW != 0
    }

    /// Its tenant under a generation of policy: 0 or 1.
    #[inline(always)]
    pub const fn tenant(&self, generation: u32) -> u16 {
        self.tenants[(generation & 1) as usize]
    }

    /// Its class under a generation of policy.
    #[inline(always)]
    pub const fn class(&self, generation: u32) -> u16 {
        self.classes[(generation & 1) as usize]
    }

    /// The source may take the way that is kept for the proven.
    #[inline(always)]
    pub const fn knows(&self) -> bool {
        self.flags & SourceFlags::KNOWN != 0
    }

    /// The source is refused now; the clock is read only where the block has an end.
    #[inline(always)]
    pub fn blocks(&self, now_nanos: impl FnOnce() -> u64) -> bool {
        match self.blocked_until {
            0 => false,
            u64::MAX => true,
            until => now_nanos() < until,
        }
    }

    /// Looks a source up, `maps` being those that have entries. An entry says all that its covering prefixes say too, so
    /// the first hit is the whole answer.
    #[inline(always)]
    pub fn find<E>(
        maps: u32,
        [addresses, prefixes]: [u32; 2],
        address: impl FnOnce() -> Option<E>,
        prefix: impl FnOnce() -> Option<E>,
    ) -> Option<E> {
        let exact = if maps & addresses == 0 { None } else { address() };
        if exact.is_none() && maps & prefixes != 0 { prefix() } else { exact }
    }
}

/// What was found of a source when it was last looked up on this CPU: one line of [`super::maps::SEEN_SOURCES`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// The source.
    pub source: Address,
    /// What was found of it: where that is nothing, the entry that says nothing.
    pub entry: SourceEntry,
    /// [`super::Control::sources`] before it was looked up; 0 in a line that is empty.
    pub sources: u32,
    /// The family of the source: 4 or 6.
    pub family: u8,
    /// Packets of other sources that came by since.
    pub strangers: u8,
    /// Zero.
    pub padding: [u8; 2],
    /// What it was refused last. With this a line of the CPU's cache is whole.
    pub refusal: Refusal,
}

const _: () = assert!(size_of::<Seen>() == 64);

/// A refusal of a source by the first limit of a service, which is plain and has a bucket of its own for each source.
///
/// That bucket has room for a cost from `edge + cost` on, and no earlier: charges move the edge on. (One that is taken back
/// on another CPU, or a debt that is expressed anew right after a change of policy, moves it back; the source then waits for
/// as long as one charge costs, at the most.)
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Where the bucket's depth reaches back to from what it owes, on the limit's clock.
    pub edge: Ticks,
    /// How many policies had been in force.
    pub epoch: u32,
    /// The number of the service, [`super::NONE`] for none.
    pub service: u16,
    /// 1 where there is one.
    pub some: u16,
}

impl Refusal {
    /// That by a bucket.
    #[inline(always)]
    pub const fn by(tat: Ticks, depth: Ticks, epoch: u32, service: u16) -> Self {
        Self { edge: tat.wrapping_sub(depth), epoch, service, some: 1 }
    }

    /// Whether it is one of packets for a service, under a policy.
    #[inline(always)]
    pub const fn is_of(&self, epoch: u32, service: u16) -> bool {
        self.some != 0 && self.epoch == epoch && self.service == service
    }

    /// Whether it still holds for a packet of that cost, when the limit's clock reads `now`: no charge ever moves the edge
    /// beyond now.
    #[inline(always)]
    pub const fn holds(&self, now: Ticks, cost: Ticks) -> bool {
        now.wrapping_sub(self.edge) < cost
    }
}

/// Lines of [`super::maps::SEEN_SOURCES`]: 128 KiB of each CPU.
pub const SEEN_SOURCES: u32 = 1 << 11;

/// Of so many packets whose source a line does not know, it gets to know one: see [`Seen::meets`].
const STRANGERS: u8 = 16;

impl Seen {
    /// The line of a packet's source. Multiply-shift is enough: sources that meet cost each other only time.
    #[inline(always)]
    pub const fn place(source: Address) -> u32 {
        let mixed = (source.low ^ source.high.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (u64::BITS - SEEN_SOURCES.trailing_zeros())) as u32
    }

    /// Whether the line says what the maps say of a packet's source, `sources` being what the control record says now.
    #[inline(always)]
    pub fn is_of(&self, packet: &Packet, sources: u32) -> bool {
        self.sources == sources
            && self.source.low == packet.source.low
            && self.source.high == packet.source.high
            && self.family == packet.family as u8
    }

    /// Whether the line is to know the source of a packet that it does not know. Whoever comes often is soon known, and of a
    /// flood from ever new sources few: to keep what is found costs half as much as to find it.
    #[inline(always)]
    pub fn meets(&mut self) -> bool {
        self.strangers = (self.strangers + 1) % STRANGERS;
        self.strangers == 0
    }
}

/// The bits of [`SourceEntry::flags`].
#[derive(Clone, Copy, Debug)]
pub struct SourceFlags;

impl SourceFlags {
    /// Allowed: wins over every block and limit.
    pub const ALLOW: u32 = 1;
    /// Proven by policy.
    pub const KNOWN: u32 = 2;
}

/// An address in host byte order: IPv4 in the low 32 bits of `low`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The first 64 bits of an IPv6 address; 0 for IPv4.
    pub high: u64,
    /// The rest.
    pub low: u64,
}
