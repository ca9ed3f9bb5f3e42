//! All maps, and the policy in force.
//!
//! What a map holds, who writes it and who reads it stands here; the records are in `throttle_common::records`. No bucket
//! and no connection is evicted: the one is given up only when it is full again (see `throttle_common::table`), the other
//! when it closes. What may be forgotten says so.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, PerCpuHashMap, RingBuf},
    macros::btf_map,
};
use throttle_common::{
    awaited,
    entrances::{self, Entrance, Turns},
    exchanges,
    gcra::Ticks,
    handshakes, lease,
    limits::Owed,
    packet::Packet,
    penalties,
    proven::Line,
    records::{
        Backend, Breaker, CANDIDATES, Connection, Control, Ends, Event, Exchanges, GENERATIONS, HealthClock, Lease,
        Limit, LimitTally, Losses, MAX_BACKENDS, MAX_BREAKERS, MAX_CANDIDATES, MAX_CLOCKS, MAX_CONNECTIONS, MAX_LIMITS,
        MAX_OVERRIDES, MAX_SERVICES, MAX_TENANTS, NAME, Offence, PORT_WORDS, PROVEN_LINES, Page, PageTally, Penalty,
        PenaltyTally, Policy, REASON_TALLIES as REASON_TALLY_COUNT, SEEN_SOURCES as SEEN_SOURCES_, Seen, Service, Slot,
        SourceEntry, Tally, Terms,
    },
    table::WAYS,
};

use crate::{
    clock::{Clock, Rough},
    connections::{self, Entering},
    leaving::Leaving,
    limits::Pending,
    pages::Answer,
    sockets::Opening,
};

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;
const GENERATIONS_: usize = GENERATIONS as usize;

/// Sets of the table unless the agent asks for another number at load: 1 Mi sets, 64 MiB.
const DEFAULT_SETS: usize = 1 << 20;
/// Single addresses, and prefixes, that may be blocked, allowed or known, of each family.
const MAX_SOURCES: usize = 1 << 20;
/// Interfaces.
const MAX_STATIONS: usize = 1 << 14;

/// Where to look. Written by the agent with single stores; read first by every packet.
#[btf_map]
pub static CONTROL: Array<Control, 1, MMAPABLE> = Array::new();
/// The head of each generation. Written by the agent while it is the spare one.
#[btf_map]
pub static POLICIES: Array<Policy, GENERATIONS_, MMAPABLE> = Array::new();
/// Limits by generation and number. Written by the agent while the generation is the spare one.
#[btf_map]
pub static LIMITS: Array<Limit, { GENERATIONS_ * MAX_LIMITS as usize }, MMAPABLE> = Array::new();
/// The penalties of limits by generation and number. Written likewise.
#[btf_map]
pub static PENALTIES: Array<Penalty, { GENERATIONS_ * MAX_LIMITS as usize }, MMAPABLE> = Array::new();
/// Services by generation and number, 0 unused. Written likewise.
#[btf_map]
pub static SERVICES: Array<Service, { GENERATIONS_ * MAX_SERVICES as usize }, MMAPABLE> = Array::new();
/// The pages of services by generation and number, 0 the one that every frame has room for. Written likewise.
#[btf_map]
pub static PAGES: Array<Page, { GENERATIONS_ * MAX_SERVICES as usize }, MMAPABLE> = Array::new();
/// The names of tenants by generation and number, 0 unused. Written likewise, read by the agent alone.
#[btf_map]
pub static TENANTS: Array<[u8; NAME], { GENERATIONS_ * MAX_TENANTS as usize }, MMAPABLE> = Array::new();
/// Services that share a port, most specific first, by generation and number, 0 unused. Written likewise.
#[btf_map]
pub static CANDIDATE_LISTS: Array<[u16; CANDIDATES], { GENERATIONS_ * MAX_CANDIDATES as usize }, MMAPABLE> =
    Array::new();
/// Candidate list numbers, four to a word, by generation and `port_place`. Written likewise.
#[btf_map]
pub static PORTS: Array<u64, { GENERATIONS_ * PORT_WORDS as usize }, MMAPABLE> = Array::new();

/// The health clocks of services and of the host. Written by the agent through its mapping, under each one's sequence
/// number; packets only read.
#[btf_map]
pub static CLOCKS: Array<HealthClock, { MAX_CLOCKS as usize }, MMAPABLE> = Array::new();

/// The health windows of services, by the numbers of their clocks. Written by the agent with single stores; packets only
/// read.
#[btf_map]
pub static WINDOWS: Array<u64, { MAX_CLOCKS as usize }, MMAPABLE> = Array::new();
/// The breakers of services and backends. The first word of each is written by the agent, the second by the connections
/// that are admitted as trials. The word of element 0, which is nobody's, says how many are not closed.
#[btf_map]
pub static BREAKERS: Array<Breaker, { MAX_BREAKERS as usize }, MMAPABLE> = Array::new();
/// The numbers of backends' breakers. Written by the agent; packets and dialling processes only read.
#[btf_map]
pub static BACKENDS: HashMap<Backend, u64, { MAX_BACKENDS as usize }, ON_DEMAND> = HashMap::new();
/// Requests that wait for their answers, by the hash of their connection. Written by what comes in and what leaves; one that
/// nobody answers is forgotten after [`exchanges::PATIENCE`].
#[btf_map]
pub static EXCHANGES: Array<u64, { exchanges::CELLS as usize }, MMAPABLE> = Array::new();
/// What was measured of services, by the numbers of their clocks. Entered by the agent, counted by packets, never reset.
#[btf_map]
pub static ANSWERS: PerCpuHashMap<u32, Exchanges, { MAX_CLOCKS as usize }, ON_DEMAND> = PerCpuHashMap::new();

/// The buckets of sources. Written by packets and, atomically and through its mapping, by the agent.
#[btf_map]
pub static BUCKETS: Array<[Slot; WAYS], DEFAULT_SETS, MMAPABLE> = Array::new();
/// The buckets of aggregates, one for each set. Written likewise.
#[btf_map]
pub static AGGREGATES: Array<Ticks, DEFAULT_SETS, MMAPABLE> = Array::new();

/// What each CPU has taken ahead of buckets that all share, by [`lease::Holding::slot`]. Written by packets on that CPU alone,
/// read by the agent.
#[btf_map]
pub static LEASES: Array<Lease, { lease::SLOTS as usize }, MMAPABLE> = Array::new();

/// Who completed a handshake lately. Written where one completes, read where a region has no room for a source.
#[btf_map]
pub static PROVEN: Array<Line, { PROVEN_LINES as usize }, MMAPABLE> = Array::new();

/// How often sources were refused by limits that have penalties. Written where they are, read by the agent.
#[btf_map]
pub static REFUSALS: Array<[Slot; WAYS], { penalties::SETS as usize }, MMAPABLE> = Array::new();
/// Who was refused too often, for the agent to read.
#[btf_map]
pub static OFFENCES: RingBuf<Offence, { 1 << 17 }> = RingBuf::new();
/// The bucket of what each CPU tells of them.
#[btf_map]
pub static OFFENCE_BUCKETS: PerCpuArray<Ticks, 1> = PerCpuArray::new();
/// What became of such refusals. Counted by packets, read by the agent; never reset.
#[btf_map]
pub static PENALTY_TALLIES: PerCpuArray<PenaltyTally, 1> = PerCpuArray::new();

/// The connections that hold places, by their ends. Written where a handshake completes, removed where a socket closes or,
/// of one that is counted by its packets, with the last of them; what either missed is mended by a program that the agent runs.
#[btf_map]
pub static CONNECTIONS: HashMap<Ends, Connection, { MAX_CONNECTIONS as usize }, ON_DEMAND> = HashMap::new();
/// What sources have asked for. Written by SYNs and by what completes their handshakes, under limits on connections.
#[btf_map]
pub static HANDSHAKES: Array<u64, { handshakes::CELLS as usize }, MMAPABLE> = Array::new();
/// SYN-ACKs of forwarded services that wait for their acknowledgement, and data of connections that are not known. Written by
/// what leaves, read by what comes in.
#[btf_map]
pub static SYN_ACKS: Array<u64, { awaited::CELLS as usize }, MMAPABLE> = Array::new();

/// The link-layer addresses of the interfaces that packets come in by, by their numbers. Written by the agent; packets only
/// read.
#[btf_map]
pub static STATIONS: HashMap<u32, u64, MAX_STATIONS, ON_DEMAND> = HashMap::new();

/// Connections that have entered and may not have opened yet, a ring. Written where a handshake completes, read where the
/// next connection asks for its place.
#[btf_map]
pub static ENTRANCES: Array<Entrance, { entrances::CELLS as usize }, MMAPABLE> = Array::new();
/// Where that ring begins and ends. Written likewise.
#[btf_map]
pub static ENTRANCE_TURNS: Array<Turns, 1, MMAPABLE> = Array::new();

/// What policy says of single IPv4 addresses (network byte order). Written by the agent; packets only read.
#[btf_map]
pub static SOURCES_V4: HashMap<[u8; 4], SourceEntry, MAX_SOURCES, ON_DEMAND> = HashMap::new();
/// What policy says of single IPv6 addresses (network byte order). Written likewise.
#[btf_map]
pub static SOURCES_V6: HashMap<[u8; 16], SourceEntry, MAX_SOURCES, ON_DEMAND> = HashMap::new();
/// What policy says of IPv4 prefixes: the address and four zero bytes, which keep the value aligned. Written likewise.
#[btf_map]
pub static PREFIXES_V4: LpmTrie<[u8; 8], SourceEntry, MAX_SOURCES> = LpmTrie::new();
/// What policy says of IPv6 prefixes. Written likewise.
#[btf_map]
pub static PREFIXES_V6: LpmTrie<[u8; 16], SourceEntry, MAX_SOURCES> = LpmTrie::new();

/// What was found of sources lately, by [`Seen::place`]. Written and read by packets of one CPU; means nothing once an entry
/// of a source changes.
#[btf_map]
pub static SEEN_SOURCES: PerCpuArray<Seen, { SEEN_SOURCES_ as usize }> = PerCpuArray::new();

/// What single sources and tenants have of a limit instead of what all have, by `override_key`. Written by the agent while
/// the generation is the spare one; packets only read.
#[btf_map]
pub static OVERRIDES: HashMap<u64, Terms, { GENERATIONS_ * MAX_OVERRIDES as usize }, ON_DEMAND> = HashMap::new();

/// Frames by reason and outcome. Counted by packets, read by the agent; never reset.
#[btf_map]
pub static REASON_TALLIES: PerCpuArray<Tally, { REASON_TALLY_COUNT as usize }> = PerCpuArray::new();
/// What each limit did, by number. Counted likewise.
#[btf_map]
pub static LIMIT_TALLIES: PerCpuArray<LimitTally, { MAX_LIMITS as usize }> = PerCpuArray::new();
/// What could not be reported or answered. Counted likewise.
#[btf_map]
pub static LOSSES: PerCpuArray<Losses, 1> = PerCpuArray::new();
/// What was sent in place of services that have pages. Counted likewise.
#[btf_map]
pub static PAGE_TALLIES: PerCpuArray<PageTally, 1> = PerCpuArray::new();

/// Sampled refusals for the agent to read.
#[btf_map]
pub static EVENTS: RingBuf<Event, { 1 << 18 }> = RingBuf::new();
/// The bucket of each CPU's events.
#[btf_map]
pub static EVENT_BUCKETS: PerCpuArray<Ticks, 1> = PerCpuArray::new();
/// The bucket of the host's answers.
#[btf_map]
pub static ANSWER_BUCKET: Array<Ticks, 1> = Array::new();

/// What a packet keeps while it is judged. Means nothing between packets, but for what is known of the time.
#[btf_map]
pub static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();
/// What each of the two programs at the sockets, and the one that mends, keeps for a moment. Means nothing between their runs.
#[btf_map]
pub static ENTERING: PerCpuArray<Opening, 3> = PerCpuArray::new();
/// What a packet keeps on its way out. Means nothing between packets.
#[btf_map]
pub static LEAVING: PerCpuArray<Leaving, 1> = PerCpuArray::new();
/// Nanoseconds, where a test sets the clock.
#[btf_map]
pub static TEST_CLOCK: Array<u64, 1> = Array::new();

/// The generation that judges this packet.
#[derive(Clone, Copy)]
pub struct InForce {
    /// Where to look.
    pub control: &'static Control,
    /// The head of the policy.
    pub policy: &'static Policy,
    /// 0 or 1, read once.
    pub generation: u32,
    /// How many policies have been in force.
    pub epoch: u32,
}

impl InForce {
    /// Reads which policy is in force.
    #[inline(always)]
    pub fn read() -> Option<Self> {
        let control = CONTROL.get(0)?;
        // SAFETY: a reference into the map is valid and aligned; the agent may store to it at any time.
        Self::of(unsafe { (&raw const control.generation).read_volatile() })
    }

    /// That of an epoch which was read before.
    #[inline(always)]
    pub fn of(epoch: u32) -> Option<Self> {
        let generation = epoch & 1;
        Some(Self { control: CONTROL.get(0)?, policy: POLICIES.get(generation)?, generation, epoch })
    }
}

/// What a packet keeps while it is judged, where the functions that the verifier checks apart can find it.
#[repr(C)]
pub struct Scratch {
    /// The packet, once it is read.
    pub packet: Packet,
    /// The number of its shape, or one beyond all shapes.
    pub shape: u32,
    /// Nothing: for [`crate::atomic::fence`].
    pub fence: u64,
    /// What was found of its source, where that had to be looked up.
    pub said: SourceEntry,
    /// When it was read, where the clock is read first.
    pub clock: Clock,
    /// What is known of the time without reading the clock.
    pub rough: Rough,
    /// 1 where that was enough for the packet before: then the next one may not need the clock either.
    pub in_rough: u64,
    /// Its limits, where it has several.
    pub pending: Pending,
    /// Its connection, where it completes the handshake of one.
    pub entering: Entering,
    /// One that may not have opened.
    pub overdue: Entrance,
    /// What was written down of it.
    pub forsaken: Connection,
    /// Where the socket lies that it is for, or the request that its SYN left behind.
    pub address: u64,
    /// Its TCP options, where they are read.
    pub options: [u8; connections::OPTIONS_ROOM],
    /// Where the next of them lies.
    pub option: u32,
    /// What they claim.
    pub claim: u32,
    /// Of one that opens a connection, the breakers that admit it as a trial.
    pub trials: [u16; 2],
    /// The backend that it is for.
    pub backend: Backend,
    /// Where it belongs to a connection that was refused with a page, what is to be done with it.
    pub step: u32,
    /// How many seconds its source is told to wait.
    pub wait: u64,
    /// What that source owes a limit.
    pub owed: Owed,
    /// What it is answered with there.
    pub answer: Answer,
}

/// This CPU's scratch space.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: this CPU's own element, and nothing interrupts this program.
    Some(unsafe { &mut *SCRATCH.get_ptr_mut(0)? })
}
