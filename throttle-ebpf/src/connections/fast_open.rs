//! SYNs that are served at once (TCP fast open).
//!
//! The kernel knows a cookie by its keys, and hands those to nobody; so they are read where they lie, as
//! [`super::request`] reads what it does. Where memory may not be read, such a SYN asks as any other, and what it opens is
//! counted when its handshake completes.

use core::ptr::from_mut;

use aya_ebpf::{Global, bindings::xdp_md, helpers::generated::bpf_xdp_load_bytes, programs::XdpContext};
use network_types::tcp::TcpHdr;
use throttle_common::{
    fast_open::{COOKIE, KEY, KEYS, SERVES, SERVES_ANYBODY, TcpOption, cookie, read_option},
    packet::{Part, tcp},
};

use super::{
    handshake::transport,
    request::{MEMORY_READ, read},
};
use crate::{frame::only_copy, sockets::SOCKET_NET, tables::scratch};

/// Offset of `ipv4.sysctl_tcp_fastopen` in `struct net`.
#[unsafe(no_mangle)]
static NET_FAST_OPEN: Global<u32> = Global::new(0);
/// Offset of `ipv4.tcp_fastopen_ctx`.
#[unsafe(no_mangle)]
static NET_FAST_OPEN_KEYS: Global<u32> = Global::new(0);
/// Offset of `icsk_accept_queue.fastopenq.max_qlen` in `struct inet_connection_sock`.
#[unsafe(no_mangle)]
static LISTENER_FAST_OPENS: Global<u32> = Global::new(0);
/// Offset of `icsk_accept_queue.fastopenq.ctx`.
#[unsafe(no_mangle)]
static LISTENER_FAST_OPEN_KEYS: Global<u32> = Global::new(0);
/// Offset of `key` in `struct tcp_fastopen_context`.
#[unsafe(no_mangle)]
static FAST_OPEN_KEY: Global<u32> = Global::new(0);
/// Offset of `num`.
#[unsafe(no_mangle)]
static FAST_OPEN_KEY_COUNT: Global<u32> = Global::new(0);

/// Bytes of options that a segment may have.
const OPTIONS: usize = 40;
/// Bytes kept for them: what is read from any place among them lies within.
pub const ROOM: usize = 128;

// What `find_claim` found: no claim, one that brings nothing back, or a cookie at this place among the options and so many
// more.
const NO_CLAIM: u32 = 0;
const EMPTY: u32 = 1;
const COOKIES: u32 = 2;

/// 1 where the SYN in the scratch space is served at once by the listener that was seen.
///
/// A global function, which the verifier checks once and by itself; so is the other.
#[inline(never)]
#[unsafe(export_name = "opens_fast")]
pub extern "C" fn opens(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    // One that ends too is no listener's.
    if MEMORY_READ.load() == 0 || scratch.packet.flags & tcp::FIN != 0 {
        return 0;
    }
    let claim = find_claim(ctx);
    // What the other fragments bring is not seen.
    let bare = scratch.packet.payload == 0 && !matches!(scratch.packet.part, Part::First);
    if claim == NO_CLAIM && bare {
        return 0;
    }
    u32::from(is_served(scratch.address, claim).unwrap_or(false))
}

/// Whether a listener serves what a SYN claims, as `tcp_try_fastopen` does it.
#[inline(always)]
fn is_served(listener: u64, claim: u32) -> Option<bool> {
    let net: u64 = read(listener, &SOCKET_NET)?;
    let ways: u32 = read(net, &NET_FAST_OPEN)?;
    if ways & SERVES == 0 || read::<i32>(listener, &LISTENER_FAST_OPENS)? <= 0 {
        return None;
    }
    if ways & SERVES_ANYBODY != 0 {
        return Some(true);
    }
    if claim < COOKIES {
        return None;
    }
    let scratch = scratch()?;
    let brought = u64::from_le_bytes(bytes(&scratch.options, claim - COOKIES));
    let own: u64 = read(listener, &LISTENER_FAST_OPEN_KEYS)?;
    let keys = if own == 0 { read(net, &NET_FAST_OPEN_KEYS)? } else { own };
    let count: u32 = read(keys, &FAST_OPEN_KEY_COUNT)?;
    let mut index = 0;
    while index < KEYS {
        let key = read::<[u64; 2]>(keys + u64::from(index) * KEY as u64, &FAST_OPEN_KEY)?;
        if index < count && cookie(&scratch.entering.ends, key) == brought {
            return Some(true);
        }
        index += 1;
    }
    Some(false)
}

/// What the options of the SYN in the scratch space claim, the last of them if there are several: as `tcp_parse_options`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn find_claim(ctx: *mut xdp_md) -> u32 {
    let (Some(scratch), Some(end)) = (scratch(), load_options(ctx)) else { return NO_CLAIM };
    // Kept in the map: of what is read from there the verifier knows nothing, so it follows the loop once for all lengths.
    let (next, claim) = (&raw mut scratch.option, &raw mut scratch.claim);
    // SAFETY: this CPU's own element; so it is below.
    unsafe { (next.write_volatile(0), claim.write_volatile(NO_CLAIM)) };
    for _ in 0..OPTIONS {
        // SAFETY: see above.
        let here = unsafe { next.read_volatile() };
        if here >= end {
            break;
        }
        let option = read_option(bytes(&scratch.options, here));
        let Some(behind) = option.length().map(|length| here + length as u32) else { break };
        if behind > end {
            break;
        }
        if let TcpOption::Claim { head, length } = option
            && length % 2 == 0
        {
            let found = if length == COOKIE { COOKIES + here + head as u32 } else { EMPTY };
            // SAFETY: see above.
            unsafe { claim.write_volatile(found) };
        }
        // SAFETY: see above.
        unsafe { next.write_volatile(behind) };
    }
    // SAFETY: see above.
    unsafe { claim.read_volatile() }
}

/// Copies the options of the SYN into the scratch space, and gives how many bytes there are.
#[inline(always)]
fn load_options(ctx: *mut xdp_md) -> Option<u32> {
    let scratch = scratch()?;
    let header = transport(&XdpContext::new(ctx), &scratch.packet)?;
    // SAFETY: `transport` checked the range of the whole header.
    let words = unsafe { (*header.cast::<[u8; TcpHdr::LEN]>())[12] } >> 4;
    // Both bounds apart, the upper one first: so every kernel sees either.
    let length = only_copy((usize::from(words) * 4).wrapping_sub(TcpHdr::LEN));
    if length > OPTIONS {
        return None;
    }
    let length = only_copy(length);
    if length < 4 {
        return None;
    }
    let (from, to) = (u32::from(scratch.packet.transport) + TcpHdr::LEN as u32, from_mut(&mut scratch.options));
    // SAFETY: the kernel checks the range in the frame, and there is room for that many bytes.
    (unsafe { bpf_xdp_load_bytes(ctx, from, to.cast(), length as u32) } == 0).then_some(length as u32)
}

/// So many bytes of the options from a place on.
#[inline(always)]
fn bytes<const COUNT: usize>(options: &[u8; ROOM], place: u32) -> [u8; COUNT] {
    let (place, mut bytes, mut index) = (only_copy(place as usize) % (ROOM / 2), [0; COUNT], 0);
    while index < COUNT {
        bytes[index] = options[place + index];
        index += 1;
    }
    bytes
}
