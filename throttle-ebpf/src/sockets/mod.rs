//! The sockets of this host's network namespace: who completes a handshake is no spoofed source, and what is open is open
//! until its socket closes.
//!
//! The kernel calls [`sockets`] at every change of a TCP socket's state. Where the fields of its structures lie is told
//! by the agent at load, from the kernel's own description; the verifier sees constants.
//!
//! A run that is interrupted keeps the kernel from running the same program again on that CPU: it counts a miss, and
//! the socket whose state changed then goes unseen. From Linux 7.0 on tasks may be preempted here, so that happens. Hence
//! [`sockets_again`] watches beside [`sockets`]: what the one has noted the other finds, and what the one must miss the
//! other sees. So it is, too, while an earlier build watches beside this one.

use aya_ebpf::{Global, helpers::bpf_skc_to_tcp_sock, macros::btf_tracepoint, programs::BtfTracePointContext};
use throttle_common::{
    packet::{Family, Packet, Part, protocol},
    proven::Claim,
    records::{Address, Connection, Ends, Limit, NONE, PROVEN_LINES, Scope, SourceEntry},
};

use crate::{
    clock::Clock,
    connections::{self, Entering, GUARANTEED, NOTHING, PLACES, WITHOUT_END, concurrent},
    limits, services, sources,
    tables::{CONNECTIONS, CONTROL, ENTERING, InForce, PROVEN},
};

/// Offset of `skc_net` in `struct sock`.
#[unsafe(no_mangle)]
pub static SOCKET_NET: Global<u32> = Global::new(0);
/// Offset of `ns.inum` in `struct net`.
#[unsafe(no_mangle)]
static NET_NUMBER: Global<u32> = Global::new(0);
/// Offset of `skc_family`.
#[unsafe(no_mangle)]
static SOCKET_FAMILY: Global<u32> = Global::new(0);
/// Offset of `skc_daddr`.
#[unsafe(no_mangle)]
static SOCKET_PEER_V4: Global<u32> = Global::new(0);
/// Offset of `skc_v6_daddr`.
#[unsafe(no_mangle)]
static SOCKET_PEER_V6: Global<u32> = Global::new(0);
/// Offset of `skc_rcv_saddr`.
#[unsafe(no_mangle)]
static SOCKET_OWN_V4: Global<u32> = Global::new(0);
/// Offset of `skc_v6_rcv_saddr`.
#[unsafe(no_mangle)]
static SOCKET_OWN_V6: Global<u32> = Global::new(0);
/// Offset of `skc_dport`.
#[unsafe(no_mangle)]
static SOCKET_PEER_PORT: Global<u32> = Global::new(0);
/// Offset of `inet_sport` in `struct tcp_sock`: unlike `skc_num` it is still there when the socket closes.
#[unsafe(no_mangle)]
static SOCKET_OWN_PORT: Global<u32> = Global::new(0);
/// The number of the network namespace whose packets are judged.
#[unsafe(no_mangle)]
static OWN_NET: Global<u32> = Global::new(0);

// include/net/tcp_states.h and include/linux/socket.h.
const ESTABLISHED: i32 = 1;
const SYN_RECEIVED: i32 = 3;
const CLOSED: i32 = 7;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// `::ffff:0:0/96` (RFC 4291, section 2.5.5.2): IPv4 on an IPv6 socket.
const MAPPED: u64 = 0xffff;

/// What this program keeps for a moment, where the functions that the verifier checks apart can find it.
#[repr(C)]
pub struct Opening {
    /// A packet of the connection.
    pub packet: Packet,
    /// What was found of its source.
    pub said: SourceEntry,
    /// The connection itself.
    pub entering: Entering,
}

impl Opening {
    /// Begins with the connection that the packet describes.
    #[inline(always)]
    pub fn arrive(&mut self, in_force: &InForce) {
        let (generation, secret) = (in_force.generation, in_force.control.secret);
        self.entering.arrive(&self.packet, Clock::read().nanos(), generation, secret);
    }
}

/// Which of them is of who mends: see [`crate::mending`].
pub const MENDER: u32 = 2;

/// Sees a socket go from one state to another.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn sockets(ctx: BtfTracePointContext) -> i32 {
    watch::<0>(&ctx)
}

/// Sees it once more, or alone.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn sockets_again(ctx: BtfTracePointContext) -> i32 {
    watch::<1>(&ctx)
}

/// What either does, in a place of its own.
#[inline(always)]
fn watch<const WATCHER: u32>(ctx: &BtfTracePointContext) -> i32 {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    // One that its SYN has opened (TCP fast open) may end before its handshake completes.
    let opens = old == SYN_RECEIVED && new != CLOSED;
    if !opens && new != CLOSED {
        return 0;
    }
    let socket = Socket(ctx.arg(0));
    let Some(opening) = ENTERING.get_ptr_mut(WATCHER) else { return 0 };
    let Some(in_force) = InForce::read() else { return 0 };
    // SAFETY: this CPU's own element, and the kernel lets nothing that interrupts this program run it again.
    let opening = unsafe { &mut *opening };
    let counted = in_force.policy.counts_connections != 0;
    if !(opens || counted) || !socket.is_ours() || !socket.describe(&mut opening.packet) {
        return 0;
    }
    if opens && new == ESTABLISHED {
        prove(opening.packet.source, opening.packet.family);
    }
    if counted {
        if opens { open::<WATCHER>(&in_force, opening) } else { close(opening, old == SYN_RECEIVED) }
    }
    0
}

/// Counts a connection that is open: its places are those that it took on its way in, and those that it did not. One whose
/// end was seen, or that is just being changed, is left to whoever did; what it lacks then the agent finds.
#[inline(always)]
fn open<const WATCHER: u32>(in_force: &InForce, opening: &mut Opening) {
    opening.arrive(in_force);
    let found = CONNECTIONS.get_ptr_mut(&opening.entering.ends);
    // SAFETY: an element of the map.
    if found.is_some_and(|found| !unsafe { begin_opening(found, &mut opening.entering) }) {
        return;
    }
    let (service, scope) = services::classify(in_force, &opening.packet);
    let forwarded = services::is_forwarded(in_force.generation, u32::from(service));
    if !forwarded {
        hold_missing::<WATCHER>(in_force, opening, service, scope);
    }
    let entering = &mut opening.entering;
    match found {
        Some(found) => {
            let state = if forwarded { entering.connection.state } else { Connection::OPEN };
            // SAFETY: an element of the map, and `begin_opening` let us by.
            unsafe { connections::finish_changing(found, entering, state) };
        }
        None if entering.count > 0 => {
            entering.connection.state = Connection::OPEN;
            entering.enter();
        }
        None => {}
    }
}

/// Begins to change a connection that is written down, and goes on with it; `false` where it is not ours to do so.
///
/// # Safety
///
/// An element of the map of connections.
#[inline(always)]
unsafe fn begin_opening(found: *mut Connection, entering: &mut Entering) -> bool {
    // SAFETY: the caller's.
    unsafe {
        let Some(since) = connections::word(found, &entering.ends) else { return false };
        if !connections::begin_changing(found, since) {
            return false;
        }
        entering.resume(&*found);
    }
    true
}

/// Has the connection that a watcher, or who mends, has described hold a place under each limit of its service, as far as it
/// lacks some.
#[inline(always)]
pub fn hold_missing<const WATCHER: u32>(in_force: &InForce, opening: &mut Opening, service: u16, scope: &Scope) {
    let generation = in_force.generation;
    let missing = u32::from(scope.concurrent) > opening.entering.count;
    let entry = missing.then(|| {
        find_opener(WATCHER);
        &opening.said
    });
    opening.entering.tenant = entry.map_or(NONE, |entry| entry.tenant(generation));
    opening.entering.class = entry.map_or(NONE, |entry| entry.class(generation));
    if missing && !entry.is_some_and(SourceEntry::allows) {
        for index in 0..PLACES as u32 {
            if hold_open(WATCHER, service.into(), index) == NO_MORE {
                break;
            }
        }
    }
}

/// Looks up who opens the connection that a watcher, or who mends, has described, and says there what is found.
///
/// A global function, which the verifier checks once and by itself.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn find_opener(watcher: u32) -> u32 {
    if let (Some(control), Some(opening)) = (CONTROL.get(0), ENTERING.get_ptr_mut(watcher)) {
        // SAFETY: as in `watch`.
        let Opening { packet, said, .. } = unsafe { &mut *opening };
        sources::look_up(control, packet, said);
    }
    0
}

/// How often a place is tried to be taken for what is open: whatever is not counted here is only the agent's to find.
const OFTEN: usize = 32;

/// Above the number of a limit, the watcher that asks for it.
const WATCHER_SHIFT: u32 = 16;

/// There is no further place to be held.
const NO_MORE: u32 = 1;

/// Has the connection that a watcher sees open on this CPU hold a place under one of the limits of its service, by its index
/// there; [`NO_MORE`] where that is the last, because there are no more limits or the place is one of a guarantee.
///
/// A global function, which the verifier checks once and by itself; so are its three steps: see `connections::places`. The
/// loop around it ends by a number that is written there: of others Linux 6.1 does not see that they end it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn hold_open(watcher: u32, service: u32, index: u32) -> u32 {
    let Some(opening) = ENTERING.get_ptr_mut(watcher) else { return NO_MORE };
    // SAFETY: as in `watch`.
    let generation = unsafe { (*opening).entering.generation };
    let number = limits::scope(generation, service).and_then(|scope| concurrent(scope, index as usize));
    let Some(number) = number else { return NO_MORE };
    let asked = watcher << WATCHER_SHIFT | number;
    let taken = connections::attempt::<OFTEN>(|| take_open(asked, look_for_open(asked)));
    if settle_open(asked, taken) == GUARANTEED { NO_MORE } else { 0 }
}

/// Looks for a place for it, if it has none.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn look_for_open(asked: u32) -> u32 {
    match opened(asked) {
        Some((entering, limit, number)) if !entering.holds(number) && entering.has_room() => {
            // What was asked for places on its way in has none of the guarantee's, or holds it.
            let depth = connections::due(entering, limit, true);
            if limit.is_guarantee() && entering.resumed { NOTHING } else { connections::look(entering, limit, depth) }
        }
        _ => NOTHING,
    }
}

/// Takes it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn take_open(asked: u32, looked: u32) -> u32 {
    let Some((entering, limit, number)) = opened(asked) else { return NOTHING };
    let depth = connections::due(entering, limit, true);
    connections::take(entering, limit, number, depth, looked)
}

/// Notes it. Where the table has no room for it either, the agent says so.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn settle_open(asked: u32, taken: u32) -> u32 {
    let Some((entering, limit, number)) = opened(asked) else { return 0 };
    let guaranteed = limit.is_guarantee() && entering.holds(number);
    if guaranteed || !limit.is_guarantee() {
        connections::settle(entering, limit, number, WITHOUT_END, taken);
    }
    if guaranteed { GUARANTEED } else { 0 }
}

/// The connection that a watcher sees open, and a limit with its number.
#[inline(always)]
fn opened(asked: u32) -> Option<(&'static mut Entering, &'static Limit, u32)> {
    let opening = ENTERING.get_ptr_mut(asked >> WATCHER_SHIFT)?;
    // SAFETY: as in `watch`.
    let entering = unsafe { &mut (*opening).entering };
    let number = asked & ((1 << WATCHER_SHIFT) - 1);
    let limit = limits::find(entering.generation, number)?;
    Some((entering, limit, number))
}

/// Gives the places of a connection back. Of all who see it close, the one who removes it does.
///
/// A socket that ends before its handshake does may be a second one for the same request, made on another CPU: what is open
/// already is not its.
#[inline(always)]
fn close(opening: &mut Opening, before_it_opened: bool) {
    let entering = &mut opening.entering;
    entering.begin(&opening.packet);
    let Some(found) = CONNECTIONS.get_ptr_mut(&entering.ends) else { return };
    // SAFETY: an element of the map.
    unsafe {
        let ours = if before_it_opened {
            ends_before_it_opens(found, &entering.ends)
        } else {
            connections::sees_end(found, &entering.ends)
        };
        if ours {
            entering.resume(&*found);
            connections::remove(found, &entering.ends, &entering.connection);
        }
    }
}

/// Marks the end of a connection that has not opened; `false` where it has, or is not ours to remove.
///
/// # Safety
///
/// An element of the map of connections.
#[inline(always)]
unsafe fn ends_before_it_opens(found: *mut Connection, ends: &Ends) -> bool {
    // SAFETY: the caller's. The word is another one when it has opened.
    unsafe {
        connections::word(found, ends).is_some_and(|since| {
            let state = (&raw const (*found).state).read_volatile();
            matches!(state, Connection::ENTERING | Connection::FAST)
                && connections::mark_end(found, since & !Connection::MARKS, Connection::FORSAKEN)
        })
    }
}

/// A `struct sock` of the kernel's.
struct Socket(*const u8);

impl Socket {
    /// Whether it lives in the network namespace whose packets are judged.
    #[inline(always)]
    fn is_ours(&self) -> bool {
        // SAFETY: the kernel vouches for the socket and its namespace, and checks both offsets against their types.
        let number = unsafe {
            let net: *const u8 = field(self.0, &SOCKET_NET);
            field::<u32>(net, &NET_NUMBER)
        };
        number == OWN_NET.load()
    }

    /// Describes a packet from the other end; `false` where it is no TCP socket.
    #[inline(always)]
    fn describe(&self, packet: &mut Packet) -> bool {
        // SAFETY: the kernel checks what kind of socket it is.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut().cast()) }.cast::<u8>();
        let Some((family, source, destination)) = self.addresses() else { return false };
        if tcp.is_null() {
            return false;
        }
        // SAFETY: as in `is_ours`.
        let (source_port, destination_port): (u16, u16) =
            unsafe { (field(self.0, &SOCKET_PEER_PORT), field(tcp, &SOCKET_OWN_PORT)) };
        *packet = Packet {
            family,
            source,
            destination,
            protocol: protocol::TCP,
            part: Part::Whole,
            source_port: u16::from_be(source_port),
            destination_port: u16::from_be(destination_port),
            ..Packet::default()
        };
        true
    }

    /// Who is at the other end, and which address of ours at this one.
    #[inline(always)]
    fn addresses(&self) -> Option<(Family, Address, Address)> {
        // SAFETY: as above.
        let family: u16 = unsafe { field(self.0, &SOCKET_FAMILY) };
        match family {
            AF_INET => {
                let v4 = |offset| {
                    // SAFETY: as above.
                    let address: u32 = unsafe { field(self.0, offset) };
                    Address::v4(u32::from_be(address))
                };
                Some((Family::V4, v4(&SOCKET_PEER_V4), v4(&SOCKET_OWN_V4)))
            }
            AF_INET6 => {
                let (peer, own) = (self.v6(&SOCKET_PEER_V6), self.v6(&SOCKET_OWN_V6));
                if peer.high == 0 && peer.low >> 32 == MAPPED {
                    Some((Family::V4, Address::v4(peer.low as u32), Address::v4(own.low as u32)))
                } else {
                    Some((Family::V6, peer, own))
                }
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn v6(&self, offset: &Global<u32>) -> Address {
        // SAFETY: as above; both halves lie within `struct in6_addr`.
        let [high, low] = unsafe {
            let words = self.0.add(offset.load() as usize).cast::<u64>();
            [words.read_volatile(), words.add(1).read_volatile()].map(u64::from_be)
        };
        Address { high, low }
    }
}

/// Reads a field.
///
/// # Safety
///
/// A `T` lies at this offset of the structure.
#[inline(always)]
unsafe fn field<T: Copy>(structure: *const u8, offset: &Global<u32>) -> T {
    // SAFETY: the caller's.
    unsafe { structure.add(offset.load() as usize).cast::<T>().read_volatile() }
}

#[inline(always)]
fn prove(peer: Address, family: Family) {
    let Some(control) = CONTROL.get(0) else { return };
    let now = Clock::read().nanos();
    let claim = Claim::of(peer, family, PROVEN_LINES, control.secret);
    if let Some(line) = PROVEN.get_ptr_mut(claim.line) {
        // SAFETY: an element of the map. Of two handshakes that meet here one may be forgotten.
        let line = unsafe { &mut *line };
        let (cell, value) = claim.remember(line, now);
        if let Some(cell) = line.get_mut(cell) {
            *cell = value;
        }
    }
}
