//! Which segments are those of a connection: whoever sends one may claim to be anybody.
//!
//! Of a connection with this host its socket knows which bytes it takes; of one that is counted by its packets, what was
//! written down of it how far both sides have got.

use aya_ebpf::{
    Global,
    bindings::{bpf_sock, xdp_md},
    helpers::{bpf_sk_release, bpf_skc_to_tcp_sock},
    programs::XdpContext,
};
use throttle_common::{forwarded::Segment, packet::tcp, records::Connection};

use super::{
    flow::read_segment,
    handshake::{
        LISTEN, NEW_SYN_RECEIVED, SOCKETS_DESCRIBED, SYN_RECEIVED, brings_cookie, is_open, look_up, transport,
    },
    request::Request,
};
use crate::{
    services::is_forwarded,
    tables::{CONNECTIONS, scratch},
};

/// Offset of `rcv_nxt` in `struct tcp_sock`: the byte that it waits for.
#[unsafe(no_mangle)]
static SOCKET_EXPECTS: Global<u32> = Global::new(0);
/// Offset of `rcv_wup`: where the window began when it was last told.
#[unsafe(no_mangle)]
static SOCKET_WINDOW_FROM: Global<u32> = Global::new(0);
/// Offset of `rcv_wnd`: how wide it was then.
#[unsafe(no_mangle)]
static SOCKET_WINDOW: Global<u32> = Global::new(0);

// What `belongs` answers.
/// There is such a connection, and the segment is none of it; or nobody has it who listens here.
pub const STRAY: u32 = 0;
/// It is one of a connection, and new.
pub const BELONGS: u32 = 1;
/// No such connection is known.
pub const UNKNOWN: u32 = 2;

/// Whether the segment in the scratch space, which has payload or is a reset, belongs to a connection with the service:
/// [`STRAY`], [`BELONGS`] or [`UNKNOWN`].
///
/// A global function, which the verifier checks once and by itself; so are its two ways.
#[inline(never)]
#[unsafe(export_name = "segment_belongs")]
pub extern "C" fn belongs(ctx: *mut xdp_md, generation: u32, service: u32) -> u32 {
    let Some(scratch) = scratch() else { return UNKNOWN };
    scratch.entering.begin(&scratch.packet);
    let Some(segment) = read_segment(ctx, &scratch.packet) else { return UNKNOWN };
    scratch.entering.segment = segment;
    if is_forwarded(generation, service) { belongs_to_flow() } else { belongs_to_socket(ctx) }
}

/// The same by what is written down of a connection that is counted by its packets.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn belongs_to_flow() -> u32 {
    let Some(scratch) = scratch() else { return UNKNOWN };
    let Some(found) = CONNECTIONS.get_ptr(&scratch.entering.ends) else { return UNKNOWN };
    // SAFETY: an element of the map.
    let found = unsafe { &*found };
    if found.state != Connection::FORWARDED {
        return UNKNOWN;
    }
    if found.believes(&scratch.entering.segment) { BELONGS } else { STRAY }
}

/// The same by the socket.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn belongs_to_socket(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = scratch() else { return UNKNOWN };
    let Some(socket) = look_up(ctx, &scratch.entering.ends) else { return UNKNOWN };
    // SAFETY: the kernel found this socket, and it is held until it is released below.
    let state = unsafe { (&raw const (*socket).state).read_volatile() };
    let belongs = if is_open(state) {
        takes(socket, &scratch.entering.segment)
    } else if SOCKETS_DESCRIBED.load() == 0 {
        UNKNOWN
    } else {
        // The segment that completes a handshake, or one close behind it.
        let ctx = XdpContext::new(ctx);
        let completes = match state {
            NEW_SYN_RECEIVED => transport(&ctx, &scratch.packet)
                .is_some_and(|header| Request::of(socket).is_completed_by(&scratch.packet, header)),
            LISTEN => brings_cookie(&ctx, &scratch.packet, socket),
            SYN_RECEIVED => true,
            _ => false,
        };
        if completes { BELONGS } else { STRAY }
    };
    // SAFETY: held since it was looked up, and not used any more.
    unsafe { bpf_sk_release(socket.cast()) };
    belongs
}

/// Whether a socket takes a segment for new, as `tcp_sequence` does it: some of it lies behind what it has, and all of it in
/// the window.
#[inline(always)]
fn takes(socket: *mut bpf_sock, segment: &Segment) -> u32 {
    if SOCKETS_DESCRIBED.load() == 0 {
        return BELONGS;
    }
    // SAFETY: the kernel checks what kind of socket it is.
    let tcp = unsafe { bpf_skc_to_tcp_sock(socket.cast()) }.cast::<u8>();
    if tcp.is_null() {
        return UNKNOWN;
    }
    let word = |offset: &Global<u32>| {
        // SAFETY: the agent takes the offset from the kernel's description, and the verifier checks it.
        unsafe { tcp.add(offset.load() as usize).cast::<u32>().read_volatile() }
    };
    let (expects, from, window) = (word(&SOCKET_EXPECTS), word(&SOCKET_WINDOW_FROM), word(&SOCKET_WINDOW));
    let end = segment.sequence.wrapping_add(segment.payload);
    // A reset has no byte that could be new.
    let new = end.wrapping_sub(expects).cast_signed() > -i32::from(segment.has(tcp::RST));
    let within = from.wrapping_add(window).wrapping_sub(end).cast_signed() >= 0;
    if new && within { BELONGS } else { STRAY }
}
