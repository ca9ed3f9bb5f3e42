//! What lies in the maps: the records that the agent compiles policy into and that the kernel programs read and count.
//!
//! Every record is `#[repr(C)]` with explicit padding and a size that a test pins; [`LAYOUT`] names the whole and
//! grows whenever a record, a map or the meaning of a number changes. Policy records exist twice, one for each
//! generation: the agent writes the spare one and then flips [`Control::generation`].

use crate::{
    gcra::{Price, Ticks},
    hash::{self, Secret},
    packet::Family,
    words::Reason,
};

/// The version of everything in this module and of the set of maps. Pinned maps of another version are refused.
pub const LAYOUT: u64 = 1;

/// Policies that exist at once: the one in force and the one being written.
pub const GENERATIONS: u32 = 2;
/// Limits of one policy.
pub const MAX_LIMITS: u32 = 1024;
/// Services of one policy.
pub const MAX_SERVICES: u32 = 1024;
/// Different lists of services that share a port.
pub const MAX_CANDIDATES: u32 = 1024;
/// Services that may share one port (told apart by destination).
pub const CANDIDATES: usize = 8;
/// Limits that may apply to one packet.
pub const SCOPE_LIMITS: usize = 8;
/// Bytes of a name, zero-padded UTF-8.
pub const NAME: usize = 48;
/// Words of [`Port`] lists of one generation: TCP ports, UDP ports, then ICMP.
pub const PORT_WORDS: u32 = 2 * 65_536 / PORTS_IN_WORD + 1;
/// Port entries of 16 bits in one array element.
pub const PORTS_IN_WORD: u32 = 4;
/// "No service" and "no candidates".
pub const NONE: u16 = 0;

/// The names of the maps, which are also the names of their pins.
pub mod maps {
    /// `Array<Control, 1>`.
    pub const CONTROL: &str = "CONTROL";
    /// `Array<Policy, GENERATIONS>`.
    pub const POLICIES: &str = "POLICIES";
    /// `Array<Limit, GENERATIONS * MAX_LIMITS>`.
    pub const LIMITS: &str = "LIMITS";
    /// `Array<Service, GENERATIONS * MAX_SERVICES>`; element 0 of each generation is unused.
    pub const SERVICES: &str = "SERVICES";
    /// `Array<[u16; CANDIDATES], GENERATIONS * MAX_CANDIDATES>`; element 0 of each generation is unused.
    pub const CANDIDATE_LISTS: &str = "CANDIDATE_LISTS";
    /// `Array<u64, GENERATIONS * PORT_WORDS>`.
    pub const PORTS: &str = "PORTS";
    /// `Array<Bucket Set, sets>`, mmapable.
    pub const BUCKETS: &str = "BUCKETS";
    /// `Array<Ticks, sets>`, mmapable: the aggregates' buckets, one for each set.
    pub const AGGREGATES: &str = "AGGREGATES";
    /// `Hash<[u8; 4], SourceEntry>`: single IPv4 addresses, network byte order.
    pub const SOURCES_V4: &str = "SOURCES_V4";
    /// `Hash<[u8; 16], SourceEntry>`: single IPv6 addresses, network byte order.
    pub const SOURCES_V6: &str = "SOURCES_V6";
    /// `LpmTrie<[u8; 8], SourceEntry>`: IPv4 prefixes, network byte order, then four zero bytes.
    pub const PREFIXES_V4: &str = "PREFIXES_V4";
    /// `LpmTrie<[u8; 16], SourceEntry>`: IPv6 prefixes, network byte order.
    pub const PREFIXES_V6: &str = "PREFIXES_V6";
    /// `PerCpuArray<Tally, REASON_TALLIES>`.
    pub const REASON_TALLIES: &str = "REASON_TALLIES";
    /// `PerCpuArray<LimitTally, MAX_LIMITS>`.
    pub const LIMIT_TALLIES: &str = "LIMIT_TALLIES";
    /// `PerCpuArray<Losses, 1>`.
    pub const LOSSES: &str = "LOSSES";
    /// `PerCpuArray<Ticks, 1>`: the bucket that bounds events.
    pub const EVENT_BUCKETS: &str = "EVENT_BUCKETS";
    /// `Array<Ticks, 1>`: the bucket that bounds answers.
    pub const ANSWER_BUCKET: &str = "ANSWER_BUCKET";
    /// `RingBuf`: sampled [`super::Event`]s.
    pub const EVENTS: &str = "EVENTS";
    /// `PerCpuArray<[Charge; SCOPE_LIMITS]>`: a packet's scratch space; not pinned.
    pub const CHARGES: &str = "CHARGES";
    /// `Array<u64, 1>`: the clock where a test sets it.
    pub const TEST_CLOCK: &str = "TEST_CLOCK";
}

/// What every packet reads first. One element.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// [`LAYOUT`] of whoever created the maps.
    pub layout: u64,
    /// The place of keys in their regions; drawn when the table is created, never changed.
    pub secret: Secret,
    /// Which of the two policies is in force: 0 or 1.
    pub generation: u32,
    /// Which source maps have entries: a set of [`SourceMaps`] bits.
    pub sources: u32,
    /// Sets in the table of buckets.
    pub sets: u32,
    /// Zero.
    pub padding: u32,
}

/// The bits of [`Control::sources`].
#[derive(Clone, Copy, Debug)]
pub struct SourceMaps;

impl SourceMaps {
    /// [`maps::SOURCES_V4`] has entries.
    pub const ADDRESSES_V4: u32 = 1;
    /// [`maps::SOURCES_V6`] has entries.
    pub const ADDRESSES_V6: u32 = 2;
    /// [`maps::PREFIXES_V4`] has entries.
    pub const PREFIXES_V4: u32 = 4;
    /// [`maps::PREFIXES_V6`] has entries.
    pub const PREFIXES_V6: u32 = 8;
}

/// The head of one generation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The policy revision that this was compiled from.
    pub revision: u64,
    /// The answers that `reject` may send from this host.
    pub answers: Budget,
    /// The events that each CPU may report.
    pub events: Budget,
    /// The limits of packets that belong to no service.
    pub scope: Scope,
    /// 1 where the whole host only observes.
    pub observe: u8,
    /// 1 where services exist.
    pub has_services: u8,
    /// [`crate::words::Fate`] by [`Reason`] number.
    pub fates: [u8; FATES],
    /// Zero.
    pub padding: [u8; 6],
}

/// Room for the fates of all reasons.
pub const FATES: usize = 64;
const _: () = assert!(Reason::ALL.len() <= FATES);

/// A token bucket's constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// The cost of one.
    pub cost: Ticks,
    /// How deep the bucket is.
    pub depth: Ticks,
}

/// The limits that apply to a packet, in the order in which they are read and charged.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// How many of `limits` are meant.
    pub count: u16,
    /// Limit numbers, 0 to [`MAX_LIMITS`].
    pub limits: [u16; SCOPE_LIMITS],
    /// Zero.
    pub padding: [u16; 3],
}

/// A service. The destination decides where several share a port: the first match of a candidate list wins.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The limits of its packets: the host's and its own.
    pub scope: Scope,
    /// Destination prefix, both halves masked; IPv4 in the low 32 bits of `low`.
    pub destination: Address,
    /// Mask of `destination`; all zero matches every destination of either family.
    pub mask: Address,
    /// 4 or 6 where there is a destination, 0 where there is none.
    pub family: u8,
    /// IANA protocol number (6, 17, 1; 1 stands for ICMP and ICMPv6).
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 6],
    /// Its name.
    pub name: [u8; NAME],
}

/// A limit per source. Its number, stable by name, is its place in the array and in the tallies.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What its units cost.
    pub price: Price,
    /// How deep a bucket is.
    pub depth: Ticks,
    /// Where IPv4 sources have their buckets.
    pub v4: Region,
    /// Where IPv6 sources have their buckets.
    pub v6: Region,
    /// A [`crate::words::Unit`].
    pub unit: u8,
    /// A [`crate::words::Action`].
    pub action: u8,
    /// An [`crate::words::Overflow`].
    pub overflow: u8,
    /// 1 where it only observes.
    pub observe: u8,
    /// Zero.
    pub padding: [u8; 4],
    /// Its name; empty where the number is free.
    pub name: [u8; NAME],
}

/// A limit's part of the table for one family.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Its first set, and its first aggregate.
    pub base: u32,
    /// Its sets, and its aggregates; 0 where the limit does not touch this family.
    pub sets: u32,
    /// Bits of an address that make a source: 1 to 32, or 1 to 128.
    pub prefix: u8,
    /// Bits of an address that make an aggregate: 1 to 32, or 1 to 64.
    pub aggregate: u8,
    /// Zero.
    pub padding: [u8; 2],
}

impl Region {
    /// The key of a source in this region.
    #[inline(always)]
    pub const fn key(&self, source: Address, family: Family, secret: Secret) -> u64 {
        source.key(family, self.prefix, secret)
    }

    /// The set in which a key lives. The region must have sets.
    #[inline(always)]
    pub const fn set(&self, key: u64, secret: Secret) -> u32 {
        self.base + hash::place(key, self.sets, secret)
    }

    /// The aggregate's bucket that serves a source. The region must have sets. Aggregates that meet share a bucket.
    #[inline(always)]
    pub const fn aggregate(&self, source: Address, family: Family, secret: Secret) -> u32 {
        self.base + hash::place(source.key(family, self.aggregate, secret), self.sets, secret)
    }
}

impl Limit {
    /// Where sources of a family have their buckets.
    #[inline(always)]
    pub const fn region(&self, family: Family) -> &Region {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// A slot of the table: 16 bytes for a source.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// See [`crate::packet::Address::key`].
    pub key: u64,
    /// The source's bucket.
    pub tat: Ticks,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The first 64 bits of an IPv6 address; 0 for IPv4.
    pub high: u64,
    /// The rest.
    pub low: u64,
}

/// Packets and bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames.
    pub packets: u64,
    /// Their whole lengths.
    pub bytes: u64,
}

/// Elements of [`maps::REASON_TALLIES`]: one for each reason and outcome.
pub const REASON_TALLIES: u32 = FATES as u32 * OUTCOMES;
/// Outcomes of a packet.
pub const OUTCOMES: u32 = 4;

/// What one limit did. Every packet that it was asked about is in exactly one of `admitted`, `refused`, `observed`
/// and `spared`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitTally {
    /// Charged, or let through by the overflow rule `admit`.
    pub admitted: Tally,
    /// Refused by this limit.
    pub refused: Tally,
    /// Would have been refused by this limit.
    pub observed: Tally,
    /// Not charged because another limit refused.
    pub spared: Tally,
    /// Found no place in the region; each is also in one of the above.
    pub overflowed: Tally,
}

/// What could not be done. Reads 0 on a healthy host, `events_withheld` and `answers_withheld` excepted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Events beyond their budget.
    pub events_withheld: u64,
    /// Events that found the ring buffer full.
    pub events_lost: u64,
    /// Answers beyond their budget.
    pub answers_withheld: u64,
    /// Refusals that `reject` must not answer (fragments, errors, broadcasts).
    pub answers_undue: u64,
}

/// A sampled refusal.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The kernel's monotonic clock, nanoseconds.
    pub time: u64,
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// The interface that it came in by.
    pub interface: u32,
    /// Bytes of the frame.
    pub length: u32,
    /// Sender's port, 0 where there is none.
    pub source_port: u16,
    /// Receiver's port, 0 where there is none.
    pub destination_port: u16,
    /// The limit that refused, [`Event::NO_LIMIT`] where none did.
    pub limit: u16,
    /// The service, [`NONE`] where there is none.
    pub service: u16,
    /// 4, 6, or 0 for a frame without addresses.
    pub family: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// A [`Reason`].
    pub reason: u8,
    /// An [`crate::words::Outcome`].
    pub outcome: u8,
    /// Zero.
    pub padding: [u8; 4],
}

impl Event {
    /// No limit refused this packet.
    pub const NO_LIMIT: u16 = u16::MAX;
}

/// Where a port's candidate list number lies: the element of [`maps::PORTS`] within a generation, and the bit.
#[inline(always)]
pub const fn port_place(slot: u32) -> (u32, u32) {
    (slot / PORTS_IN_WORD, slot % PORTS_IN_WORD * 16)
}

/// The number of a TCP port (0), a UDP port (1) or ICMP (2, port 0) among all [`port_place`]s.
#[inline(always)]
pub const fn port_slot(transport: u32, port: u16) -> u32 {
    transport * 65_536 + port as u32
}

/// The bytes of a name, cut at [`NAME`].
pub fn name_bytes(name: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

/// The name in the bytes; empty where they are not UTF-8.
pub fn name_str(bytes: &[u8; NAME]) -> &str {
    let length = bytes.iter().position(|&byte| byte == 0).unwrap_or(NAME);
    core::str::from_utf8(&bytes[..length]).unwrap_or_default()
}

macro_rules! sized {
    ($($record:ident: $size:literal,)+) => {
        $(const _: () = assert!(core::mem::size_of::<$record>() == $size);)+

        #[cfg(feature = "user")]
        mod pod {
            use super::*;
            $(
                // SAFETY: `#[repr(C)]`, only integers, no implicit padding (the size is asserted), any bytes are valid.
                unsafe impl aya::Pod for $record {}
            )+
        }
    };
}

sized! {
    Control: 40,
    Policy: 136,
    Service: 112,
    Limit: 104,
    Slot: 16,
    SourceEntry: 16,
    Tally: 16,
    LimitTally: 80,
    Losses: 32,
    Event: 64,
}
