//! What lies in the maps: the records that the agent compiles policy into and that the kernel programs read and count.
//!
//! Every record is `#[repr(C)]` with explicit padding and a size that a test pins; [`LAYOUT`] names the whole and
//! grows whenever a record, a map or the meaning of a number changes. Policy records exist twice, one for each
//! generation: the agent writes the spare one and then flips [`Control::generation`].

mod account;
mod backends;
mod connections;
mod limit;
mod penalties;
mod policy;
mod region;
mod sources;

pub use self::{account::*, backends::*, connections::*, limit::*, penalties::*, policy::*, region::*, sources::*};
pub use crate::{breakers::Breaker, exchanges::Exchanges, health_clock::HealthClock, lease::Lease};

/// The version of everything in this module and of the set of maps. Pinned maps of an earlier version change over, where
/// the agent has a description of it (`datapath::migrate`, which says what must stay as it is); others are refused.
pub const LAYOUT: u64 = 5;

/// Policies that exist at once: the one in force and the one being written.
pub const GENERATIONS: u32 = 2;
/// Limits of one policy.
pub const MAX_LIMITS: u32 = 1024;
/// Services of one policy.
pub const MAX_SERVICES: u32 = 1024;
/// Tenants of one policy, and one number that is no tenant's.
pub const MAX_TENANTS: u32 = 1 << 14;
/// Health clocks, the host's included: room for those of two policies, of which one follows the other.
pub const MAX_CLOCKS: u32 = 2 * MAX_SERVICES;
/// The health clock of the host's limits; those of services have other numbers, stable by the service's name.
pub const HOST_CLOCK: u16 = 0;
/// The clock of limits of an earlier layout, which had none: beyond the last, it reads CLOCK_MONOTONIC.
pub const NO_CLOCK: u16 = u16::MAX;
/// Breakers: those of services have the numbers of their clocks, those of backends numbers from [`FIRST_BACKEND`] on.
pub const MAX_BREAKERS: u32 = 1 << 13;
/// The first number of a backend's breaker.
pub const FIRST_BACKEND: u16 = MAX_CLOCKS as u16;
/// Backends that may have breakers.
pub const MAX_BACKENDS: u32 = MAX_BREAKERS - FIRST_BACKEND as u32;
/// Different lists of services that share a port.
pub const MAX_CANDIDATES: u32 = 1024;
/// Services that may share one port (told apart by destination).
pub const CANDIDATES: usize = 8;
/// Limits that may apply to one packet.
pub const PACKET_LIMITS: usize = 8;
/// The same, with the guarantee that each may have.
pub const SCOPE_LIMITS: usize = 2 * PACKET_LIMITS;
/// Terms of limits, of one policy, that are other than those for all.
pub const MAX_OVERRIDES: u32 = 1 << 18;
/// Limits on open connections that may apply to one connection, of each of which it holds a place.
pub const CONNECTION_LIMITS: usize = 4;
/// Connections that may hold places at once.
pub const MAX_CONNECTIONS: u32 = 1 << 20;
/// Lines of [`maps::PROVEN`]: room for a million sources in 8 MiB.
pub const PROVEN_LINES: u32 = 1 << 17;
/// Bytes of a name, zero-padded UTF-8.
pub const NAME: usize = 48;
/// Elements of [`maps::PORTS`] of one generation: TCP ports, UDP ports, then ICMP.
pub const PORT_WORDS: u32 = 2 * 65_536 / PORTS_IN_WORD + 1;
/// Port entries of 16 bits in one array element.
pub const PORTS_IN_WORD: u32 = 4;
/// "No service", "no tenant", "no class" and "no candidates".
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
    /// `Array<Page, GENERATIONS * MAX_SERVICES>`: the pages of services, by their numbers; element 0 of each generation is the
    /// one that every frame has room for. A build before pages has no such map: it is made where it is not there.
    pub const PAGES: &str = "PAGES";
    /// `PerCpuArray<PageTally, 1>`; likewise.
    pub const PAGE_TALLIES: &str = "PAGE_TALLIES";
    /// `Array<Penalty, GENERATIONS * MAX_LIMITS>`: the penalties of limits, by their numbers; likewise, as the next four.
    pub const PENALTIES: &str = "PENALTIES";
    /// `Array<Bucket Set, penalties::SETS>`, mmapable: the refusals of sources by limits that have penalties.
    pub const REFUSALS: &str = "REFUSALS";
    /// `RingBuf`: [`super::Offence`]s.
    pub const OFFENCES: &str = "OFFENCES";
    /// `PerCpuArray<Ticks, 1>`: the bucket that bounds offences.
    pub const OFFENCE_BUCKETS: &str = "OFFENCE_BUCKETS";
    /// `PerCpuArray<PenaltyTally, 1>`.
    pub const PENALTY_TALLIES: &str = "PENALTY_TALLIES";
    /// `Array<[u8; NAME], GENERATIONS * MAX_TENANTS>`: the names of tenants; element 0 of each generation is unused.
    pub const TENANTS: &str = "TENANTS";
    /// `Array<[u16; CANDIDATES], GENERATIONS * MAX_CANDIDATES>`; element 0 of each generation is unused.
    pub const CANDIDATE_LISTS: &str = "CANDIDATE_LISTS";
    /// `Array<u64, GENERATIONS * PORT_WORDS>`.
    pub const PORTS: &str = "PORTS";
    /// `Array<HealthClock, MAX_CLOCKS>`, mmapable.
    pub const CLOCKS: &str = "CLOCKS";
    /// `Array<u64, MAX_CLOCKS>`, mmapable: the health windows of services, by the numbers of their clocks.
    pub const WINDOWS: &str = "WINDOWS";
    /// `Array<Breaker, MAX_BREAKERS>`, mmapable; element 0 is no breaker's: its word says how many are not closed.
    pub const BREAKERS: &str = "BREAKERS";
    /// `Hash<Backend, u64>`: the numbers of backends' breakers.
    pub const BACKENDS: &str = "BACKENDS";
    /// `Array<u64, exchanges::CELLS>`, mmapable: requests that wait for their answers.
    pub const EXCHANGES: &str = "EXCHANGES";
    /// `PerCpuHash<u32, Exchanges>`: what was measured of services, by the numbers of their clocks.
    pub const ANSWERS: &str = "ANSWERS";
    /// `Array<Bucket Set, sets>`, mmapable.
    pub const BUCKETS: &str = "BUCKETS";
    /// `Array<Ticks, sets>`, mmapable: the aggregates' buckets, one for each set.
    pub const AGGREGATES: &str = "AGGREGATES";
    /// `Array<Lease, lease::SLOTS * CPUs>`, mmapable: what each CPU has taken ahead of buckets.
    pub const LEASES: &str = "LEASES";
    /// `Array<proven::Line, PROVEN_LINES>`, mmapable: who completed a handshake lately.
    pub const PROVEN: &str = "PROVEN";
    /// `Hash<Ends, Connection>`: the connections that hold places.
    pub const CONNECTIONS: &str = "CONNECTIONS";
    /// `Array<u64, handshakes::CELLS>`, mmapable: what sources have asked for.
    pub const HANDSHAKES: &str = "HANDSHAKES";
    /// `Array<u64, awaited::CELLS>`: the SYN-ACKs of forwarded services that nobody has acknowledged yet, and their data
    /// where no connection is known.
    pub const SYN_ACKS: &str = "SYN_ACKS";
    /// `Hash<u32, u64>`: the link-layer addresses of interfaces ([`super::station`]), by their numbers; not pinned.
    pub const STATIONS: &str = "STATIONS";
    /// `Array<Entrance, entrances::CELLS>`: connections that have entered and may not have opened yet; not pinned.
    pub const ENTRANCES: &str = "ENTRANCES";
    /// `Array<Turns, 1>`: where that ring begins and ends; not pinned.
    pub const ENTRANCE_TURNS: &str = "ENTRANCE_TURNS";
    /// `Hash<[u8; 4], SourceEntry>`: single IPv4 addresses, network byte order.
    pub const SOURCES_V4: &str = "SOURCES_V4";
    /// `Hash<[u8; 16], SourceEntry>`: single IPv6 addresses, network byte order.
    pub const SOURCES_V6: &str = "SOURCES_V6";
    /// `LpmTrie<[u8; 8], SourceEntry>`: IPv4 prefixes, network byte order, then four zero bytes.
    pub const PREFIXES_V4: &str = "PREFIXES_V4";
    /// `LpmTrie<[u8; 16], SourceEntry>`: IPv6 prefixes, network byte order.
    pub const PREFIXES_V6: &str = "PREFIXES_V6";
    /// `PerCpuArray<Seen, SEEN_SOURCES>`: what was found of sources lately; not pinned.
    pub const SEEN_SOURCES: &str = "SEEN_SOURCES";
    /// `Hash<u64, Terms>`: what single sources and tenants have of a limit, by [`super::override_key`].
    pub const OVERRIDES: &str = "OVERRIDES";
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
    /// `PerCpuArray<Scratch, 1>`: what a packet keeps while it is judged; not pinned.
    pub const SCRATCH: &str = "SCRATCH";
    /// `PerCpuArray<Opening, 3>`: what the programs at the sockets, and the one that mends, keep for a moment; not pinned.
    pub const ENTERING: &str = "ENTERING";
    /// `PerCpuArray<Leaving, 1>`: what a packet on its way out keeps for a moment; not pinned.
    pub const LEAVING: &str = "LEAVING";
    /// `Array<u64, 1>`: the clock where a test sets it.
    pub const TEST_CLOCK: &str = "TEST_CLOCK";
}

/// A link-layer address as a number.
#[inline(always)]
pub const fn station(address: &[u8; 6]) -> u64 {
    u64::from_le_bytes([address[0], address[1], address[2], address[3], address[4], address[5], 0, 0])
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
    Policy: 152,
    Service: 136,
    Page: 208,
    Terms: 24,
    Limit: 128,
    Lease: 32,
    HealthClock: 256,
    Slot: 16,
    SourceEntry: 24,
    Seen: 64,
    Tally: 16,
    LimitTally: 80,
    Losses: 40,
    PageTally: 32,
    Penalty: 24,
    Offence: 40,
    PenaltyTally: 40,
    Event: 64,
    Carried: 88,
    Breaker: 16,
    Backend: 24,
    Exchanges: 448,
    Ends: 40,
    Hold: 16,
    Connection: 96,
    Mending: 152,
}
