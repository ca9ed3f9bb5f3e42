//! Connections that are open, where a limit counts them.
//!
//! A connection takes its places when the segment that completes its handshake arrives, before there is a socket: so
//! never are more of them open than a limit allows. Which segment that is, the kernel knows: it has the request that the
//! SYN left behind, or made a cookie of it ([`completes`]). Until the socket closes ([`crate::sockets`]) its places are
//! kept under its two ends in [`CONNECTIONS`]: there they are found by whoever sees the end, once and for all.

use core::ptr::from_ref;

use aya_ebpf::{
    Global,
    bindings::{BPF_F_CURRENT_NETNS, BPF_NOEXIST, bpf_sock, xdp_md},
    helpers::{bpf_sk_release, bpf_skc_lookup_tcp, bpf_skc_to_tcp_request_sock, bpf_tcp_check_syncookie},
    programs::XdpContext,
};
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
};
use throttle_common::{
    packet::{Family, Packet, protocol, tcp},
    records::{CONNECTION_LIMITS, Connection, Ends, Hold},
};

use crate::{
    frame::at,
    limits::give_back,
    tables::{CONNECTIONS, LOSSES, scratch},
};

/// 1 where the kernel describes its sockets. The verifier removes what needs that elsewhere.
#[unsafe(no_mangle)]
static SOCKETS_DESCRIBED: Global<u8> = Global::new(0);
/// Offset of `snt_isn` in `struct tcp_request_sock`.
#[unsafe(no_mangle)]
static REQUEST_SENT_ISN: Global<u32> = Global::new(0);

// include/net/tcp_states.h
const SYN_RECEIVED: u32 = 3;
const LISTEN: u32 = 10;
const NEW_SYN_RECEIVED: u32 = 12;

/// What a packet means for the connections of its source.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// Nothing.
    None = 0,
    /// It asks for one: a SYN.
    Asks = 1,
    /// It completes the handshake of one.
    Completes = 2,
    /// It is open, whether or not it should be.
    Open = 3,
}

/// A connection on its way in. Plain words, because it lies in a map.
#[repr(C)]
pub struct Entering {
    /// Its ends.
    pub ends: Ends,
    /// Its places so far.
    pub connection: Connection,
    /// How many of them.
    pub count: u32,
    padding: u32,
}

impl Entering {
    /// Begins anew.
    #[inline(always)]
    pub fn begin(&mut self, packet: &Packet) {
        self.ends = Ends {
            source: packet.source,
            destination: packet.destination,
            source_port: packet.source_port,
            destination_port: packet.destination_port,
            family: packet.family as u8,
            padding: [0; 3],
        };
        self.connection =
            Connection { since: 0, state: Connection::ENTERING, padding: 0, holds: [Hold::NONE; CONNECTION_LIMITS] };
        self.count = 0;
    }

    /// Goes on with what was written down between the same ends.
    #[inline(always)]
    pub fn resume(&mut self, found: &Connection) {
        self.connection = *found;
        let mut index = 0;
        while index < CONNECTION_LIMITS && self.connection.holds[index].is_some() {
            index += 1;
        }
        self.count = index as u32;
    }

    /// Whether it has a place under a limit.
    #[inline(always)]
    pub fn holds(&self, limit: u32) -> bool {
        let mut index = 0;
        while index < CONNECTION_LIMITS {
            if u32::from(self.connection.holds[index].limit) == limit {
                return true;
            }
            index += 1;
        }
        false
    }

    /// Notes a place.
    #[inline(always)]
    pub fn hold(&mut self, hold: Hold) {
        if let Some(free) = self.connection.holds.get_mut(self.count as usize) {
            *free = hold;
            self.count += 1;
        }
    }

    /// Writes it down; `false` where there is one between the same ends already, or no room.
    #[inline(always)]
    pub fn enter(&mut self, now_nanos: u64) -> bool {
        self.connection.since = now_nanos;
        CONNECTIONS.insert(&self.ends, &self.connection, u64::from(BPF_NOEXIST)).is_ok()
    }

    /// Gives its places back.
    #[inline(always)]
    pub fn leave(&self) {
        let mut index = 0;
        while index < CONNECTION_LIMITS {
            give_back(&self.connection.holds[index]);
            index += 1;
        }
    }
}

/// Counts a connection that could not be written down.
#[inline(always)]
pub fn count_lost() {
    if let Some(losses) = LOSSES.get_ptr_mut(0) {
        // SAFETY: this CPU's own element. Where a program interrupts another, one of two may go uncounted.
        unsafe { (*losses).connections_uncounted += 1 };
    }
}

/// What the packet in the scratch space means for limits on open connections.
#[inline(always)]
pub fn step(ctx: &XdpContext, packet: &Packet, concurrent: bool) -> Step {
    if packet.opens_connection() {
        Step::Asks
    } else if concurrent
        && packet.protocol == protocol::TCP
        && packet.flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::ACK
        && completes(ctx.ctx) != 0
    {
        Step::Completes
    } else {
        Step::None
    }
}

/// Writes the connection in the scratch space down.
#[inline(always)]
pub fn enter(now_nanos: u64) {
    let Some(scratch) = scratch() else { return };
    if !scratch.entering.enter(now_nanos) {
        scratch.entering.leave();
        count_lost();
    }
}

/// 1 where the packet in the scratch space completes a handshake with this host. Notes its ends there.
///
/// A global function, which the verifier checks once and by itself.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn completes(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    if SOCKETS_DESCRIBED.load() == 0 {
        return 0;
    }
    let packet = &scratch.packet;
    scratch.entering.begin(packet);
    if CONNECTIONS.get_ptr(&scratch.entering.ends).is_some() {
        return 0;
    }
    let Some(socket) = look_up(ctx, packet) else { return 0 };
    let ctx = XdpContext::new(ctx);
    // SAFETY: the kernel found this socket, and it is held until it is released below.
    let state = unsafe { (&raw const (*socket).state).read_volatile() };
    let completes = match state {
        NEW_SYN_RECEIVED => acknowledges(&ctx, packet, socket),
        LISTEN => brings_cookie(&ctx, packet, socket),
        // Opened by a SYN with a fast-open cookie, which proves the source.
        SYN_RECEIVED => true,
        _ => false,
    };
    // SAFETY: held since it was looked up, and not used any more.
    unsafe { bpf_sk_release(socket.cast()) };
    u32::from(completes)
}

/// The socket, request or listener that the packet is for.
#[inline(always)]
fn look_up(ctx: *mut xdp_md, packet: &Packet) -> Option<*mut bpf_sock> {
    /// `struct bpf_sock_tuple`, for IPv4.
    #[repr(C)]
    struct V4([u32; 2], [u16; 2]);
    /// And for IPv6.
    #[repr(C)]
    struct V6([u64; 4], [u16; 2], u32);
    const V6_SIZE: u32 = 36;
    let ports = [packet.source_port.to_be(), packet.destination_port.to_be()];
    let own = i64::from(BPF_F_CURRENT_NETNS).cast_unsigned();
    // SAFETY (both): the tuple has the size that is given, and lives through the call.
    let socket = match packet.family {
        Family::V4 => {
            let tuple = V4([packet.source.low as u32, packet.destination.low as u32].map(u32::to_be), ports);
            // SAFETY: see above.
            unsafe {
                bpf_skc_lookup_tcp(ctx.cast(), from_ref(&tuple).cast_mut().cast(), size_of::<V4>() as u32, own, 0)
            }
        }
        Family::V6 => {
            let (source, destination) = (packet.source, packet.destination);
            let addresses = [source.high, source.low, destination.high, destination.low].map(u64::to_be);
            let tuple = V6(addresses, ports, 0);
            // SAFETY: see above.
            unsafe { bpf_skc_lookup_tcp(ctx.cast(), from_ref(&tuple).cast_mut().cast(), V6_SIZE, own, 0) }
        }
    };
    (!socket.is_null()).then_some(socket)
}

/// Whether the packet acknowledges the SYN-ACK of a request: whoever sent it has seen that.
#[inline(always)]
fn acknowledges(ctx: &XdpContext, packet: &Packet, socket: *mut bpf_sock) -> bool {
    // SAFETY: the kernel checks what kind of socket it is.
    let request = unsafe { bpf_skc_to_tcp_request_sock(socket.cast()) }.cast::<u8>();
    if request.is_null() {
        return false;
    }
    // SAFETY: the agent takes the offset from the kernel's description, and the verifier checks it.
    let sent = unsafe { request.add(REQUEST_SENT_ISN.load() as usize).cast::<u32>().read_volatile() };
    at::<TcpHdr>(ctx, packet.transport.into()).is_some_and(|header| {
        // SAFETY: `at` checked the range.
        u32::from_be_bytes(unsafe { (*header).ack_seq }) == sent.wrapping_add(1)
    })
}

/// Whether the packet brings a SYN cookie of the kernel's back.
#[inline(always)]
fn brings_cookie(ctx: &XdpContext, packet: &Packet, socket: *mut bpf_sock) -> bool {
    let Some(header) = at::<TcpHdr>(ctx, packet.transport.into()) else { return false };
    let network = usize::from(packet.network);
    let (ip, length) = match packet.family {
        Family::V4 => (at::<Ipv4Hdr>(ctx, network).map(<*mut _>::cast), Ipv4Hdr::LEN),
        Family::V6 => (at::<Ipv6Hdr>(ctx, network).map(<*mut _>::cast), Ipv6Hdr::LEN),
    };
    // SAFETY: both headers were checked to lie within the frame.
    ip.is_some_and(|ip| unsafe {
        bpf_tcp_check_syncookie(socket.cast(), ip, length as u32, header.cast(), TcpHdr::LEN as u32) == 0
    })
}
