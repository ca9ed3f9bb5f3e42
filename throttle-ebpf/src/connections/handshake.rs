//! Which segment completes a handshake.
//!
//! The kernel knows: it has the request that the SYN left behind, or made a cookie of it. Who acknowledges the one or
//! brings the other back has seen the SYN-ACK, and is no spoofed source.

use core::ptr::{copy_nonoverlapping, from_ref};

use aya_ebpf::{
    Global,
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock, xdp_md},
    helpers::{bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie},
    programs::XdpContext,
};
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
};
use throttle_common::{
    packet::{Family, MAX_EXTENSIONS, Packet},
    records::{Address, Ends},
};

use super::request::Request;
use crate::{
    frame::{LINK_MAX, at},
    tables::{CONNECTIONS, scratch},
};

/// 1 where the kernel describes its sockets. The verifier removes what needs that elsewhere.
#[unsafe(no_mangle)]
pub static SOCKETS_DESCRIBED: Global<u8> = Global::new(0);

// include/net/tcp_states.h
/// Opened by its SYN (TCP fast open), and its handshake is not complete.
pub const SYN_RECEIVED: u32 = 3;
/// What is left of one that this host closed first: a SYN that is not of it goes to the listener.
pub const TIME_WAIT: u32 = 6;
pub const CLOSED: u32 = 7;
/// One that waits for connections.
pub const LISTEN: u32 = 10;
/// No socket yet: the request that a SYN left behind.
pub const NEW_SYN_RECEIVED: u32 = 12;

/// 1 where the packet in the scratch space, whose ends are noted there, completes a handshake with this host.
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
    if CONNECTIONS.get_ptr(&scratch.entering.ends).is_some() {
        return 0;
    }
    let Some(socket) = look_up(ctx, &scratch.entering.ends) else { return 0 };
    let ctx = XdpContext::new(ctx);
    // SAFETY: the kernel found this socket, and it is held until it is released below.
    let state = unsafe { (&raw const (*socket).state).read_volatile() };
    let completes = match state {
        NEW_SYN_RECEIVED => {
            transport(&ctx, packet).is_some_and(|header| Request::of(socket).is_completed_by(packet, header))
        }
        LISTEN => brings_cookie(&ctx, packet, socket),
        // Opened by a SYN that took no place, because its cookie could not be checked.
        SYN_RECEIVED => true,
        _ => false,
    };
    // SAFETY: held since it was looked up, and not used any more.
    unsafe { bpf_sk_release(socket.cast()) };
    u32::from(completes)
}

/// The state of the socket that the packet in the scratch space is for; [`CLOSED`] where there is none. Notes where it lies.
///
/// A global function likewise.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn see_socket(ctx: *mut xdp_md) -> u32 {
    scratch().map_or(CLOSED, |scratch| see(ctx, &scratch.entering.ends, &mut scratch.address))
}

/// The same of the listener that packets to its end are for where nothing else is between them.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn see_listener(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = scratch() else { return CLOSED };
    let ends = &mut scratch.overdue.ends;
    // SAFETY: elements of the scratch space, of this CPU alone.
    unsafe { copy_nonoverlapping(&raw const scratch.entering.ends, ends, 1) };
    (ends.source, ends.source_port) = (Address { high: 0, low: 0 }, 0);
    see(ctx, ends, &mut scratch.address)
}

/// The state of the socket between two ends, with where it lies.
#[inline(always)]
fn see(ctx: *mut xdp_md, ends: &Ends, address: &mut u64) -> u32 {
    let Some(socket) = look_up(ctx, ends) else { return CLOSED };
    *address = socket as u64;
    release_seen(socket)
}

/// The same of the one between two ends.
#[inline(always)]
pub fn state_of(ctx: *mut xdp_md, ends: &Ends) -> u32 {
    look_up(ctx, ends).map_or(CLOSED, release_seen)
}

/// Reads the state of a socket that was looked up, and lets go of it.
#[inline(always)]
fn release_seen(socket: *mut bpf_sock) -> u32 {
    // SAFETY: the kernel found this socket, and it is held until it is released below.
    let state = unsafe { (&raw const (*socket).state).read_volatile() };
    // SAFETY: held since it was looked up, and not used any more.
    unsafe { bpf_sk_release(socket.cast()) };
    state
}

/// Whether a socket in this state is one whose handshake is complete.
#[inline(always)]
pub const fn is_open(state: u32) -> bool {
    !matches!(state, SYN_RECEIVED | TIME_WAIT | CLOSED | LISTEN | NEW_SYN_RECEIVED)
}

/// The socket, request or listener that packets between two ends are for.
#[inline(always)]
pub fn look_up(ctx: *mut xdp_md, ends: &Ends) -> Option<*mut bpf_sock> {
    /// `struct bpf_sock_tuple`, for IPv4.
    #[repr(C)]
    struct V4([u32; 2], [u16; 2]);
    /// And for IPv6.
    #[repr(C)]
    struct V6([u64; 4], [u16; 2], u32);
    const V6_SIZE: u32 = 36;
    let ports = [ends.source_port.to_be(), ends.destination_port.to_be()];
    let own = i64::from(BPF_F_CURRENT_NETNS).cast_unsigned();
    // SAFETY (both): the tuple has the size that is given, and lives through the call.
    let socket = if ends.family == Family::V4 as u8 {
        let tuple = V4([ends.source.low as u32, ends.destination.low as u32].map(u32::to_be), ports);
        // SAFETY: see above.
        unsafe { bpf_skc_lookup_tcp(ctx.cast(), from_ref(&tuple).cast_mut().cast(), size_of::<V4>() as u32, own, 0) }
    } else {
        let (source, destination) = (ends.source, ends.destination);
        let addresses = [source.high, source.low, destination.high, destination.low].map(u64::to_be);
        let tuple = V6(addresses, ports, 0);
        // SAFETY: see above.
        unsafe { bpf_skc_lookup_tcp(ctx.cast(), from_ref(&tuple).cast_mut().cast(), V6_SIZE, own, 0) }
    };
    (!socket.is_null()).then_some(socket)
}

/// The TCP header. None lies behind more than the parser reads, but the verifier sees only what it is told here.
#[inline(always)]
pub fn transport(ctx: &XdpContext, packet: &Packet) -> Option<*mut TcpHdr> {
    /// The longest extension header (RFC 8200, section 4).
    const EXTENSION: usize = 256 * 8;
    const FARTHEST: usize = LINK_MAX + Ipv6Hdr::LEN + MAX_EXTENSIONS * EXTENSION;
    let offset = usize::from(packet.transport);
    if offset > FARTHEST { None } else { at(ctx, offset) }
}

/// Whether the packet brings a SYN cookie of the kernel's back.
#[inline(always)]
pub fn brings_cookie(ctx: &XdpContext, packet: &Packet, socket: *mut bpf_sock) -> bool {
    let Some(header) = transport(ctx, packet) else { return false };
    let network = usize::from(packet.network);
    if network > LINK_MAX {
        return false;
    }
    let (ip, length) = match packet.family {
        Family::V4 => (at::<Ipv4Hdr>(ctx, network).map(<*mut _>::cast), Ipv4Hdr::LEN),
        Family::V6 => (at::<Ipv6Hdr>(ctx, network).map(<*mut _>::cast), Ipv6Hdr::LEN),
    };
    // SAFETY: both headers were checked to lie within the frame.
    ip.is_some_and(|ip| unsafe {
        bpf_tcp_check_syncookie(socket.cast(), ip, length as u32, header.cast(), TcpHdr::LEN as u32) == 0
    })
}
