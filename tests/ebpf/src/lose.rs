//! A cable that loses packets: `lose` drops some of those that come in by an interface, drawn one by one.

use crate::{
    frame::{ETHERNET, SOURCE_V4},
    traffic::{Arrivals, Loss, xorshift},
};
use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_SHOT},
    btf_maps::{Array, PerCpuArray},
    macros::{btf_map, classifier},
    programs::TcContext,
};

/// Bytes of the frame before the EtherType, of it for IPv4, and of the header before the protocol.
const ETHERTYPE: usize = 12;
const IPV4: u16 = 0x0800;
const PROTOCOL: usize = 9;
const TCP: u8 = 6;
/// Bytes of an IPv4 header without options and of a TCP header before its flags, and the flags of a SYN.
const FLAGS: usize = 20 + 13;
const SYN: u8 = 0x02;
const SYN_AND_ACK: u8 = 0x12;

/// How much to lose; written by the test.
#[btf_map]
static LOSS: Array<Loss, 1> = Array::new();

/// What came and what was lost; written here, one copy for each CPU, but for the seeds.
#[btf_map]
static ARRIVALS: PerCpuArray<Arrivals, 1> = PerCpuArray::new();

#[classifier]
fn lose(ctx: TcContext) -> i32 {
    if draw(&ctx) == Some(true) { TC_ACT_SHOT } else { TC_ACT_OK }
}

/// Whether this one gets lost.
#[inline(always)]
fn draw(ctx: &TcContext) -> Option<bool> {
    let loss = LOSS.get(0)?;
    // SAFETY: this CPU's own copy, and nothing interrupts this program.
    let seen = unsafe { &mut *ARRIVALS.get_ptr_mut(0)? };
    seen.packets += 1;
    seen.state = xorshift(seen.state);
    let is_lost = seen.state >> 32 < loss.odds;
    seen.lost += u64::from(is_lost);
    seen.asks += u64::from(asks_of(ctx) == Some(loss.counted));
    Some(is_lost)
}

/// Who asks for a connection by this packet.
#[inline(always)]
fn asks_of(ctx: &TcContext) -> Option<u64> {
    let is_tcp = u16::from_be(ctx.load(ETHERTYPE).ok()?) == IPV4 && ctx.load::<u8>(ETHERNET + PROTOCOL).ok()? == TCP;
    let is_syn = ctx.load::<u8>(ETHERNET + FLAGS).ok()? & SYN_AND_ACK == SYN;
    let source = u32::from_be(ctx.load(ETHERNET + SOURCE_V4).ok()?);
    if is_tcp && is_syn { Some(source.into()) } else { None }
}
