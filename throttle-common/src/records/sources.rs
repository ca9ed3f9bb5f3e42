//! What policy says of sources, outside of the generations: allows, blocks and the known.

/// The bits of [`super::Control::sources`].
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
}

/// What policy says of a source or prefix. Entries carry the union of what covers them: one look-up is enough.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceEntry {
    /// When its block ends, in nanoseconds of the kernel's monotonic clock; 0 for none, `u64::MAX` for never.
    pub blocked_until: u64,
    /// A set of [`SourceFlags`] bits.
    pub flags: u32,
    /// Zero.
    pub padding: u32,
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
