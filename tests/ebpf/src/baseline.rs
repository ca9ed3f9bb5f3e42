//! What throttle is compared to in the same run. Every measured program, throttle's own too, is entered through `vary`.

use crate::{
    frame,
    traffic::{Order, xorshift},
};
use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, LruHashMap, ProgramArray},
    helpers::bpf_ktime_get_ns,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use throttle_common::{
    gcra::{self, Ticks},
    hash::Secret,
    packet::{self, Packet},
    words::Reason,
};

/// Which sources to draw; nobody is honest.
#[btf_map]
pub(crate) static SPREAD: Array<Order, 1> = Array::new();

/// The xorshift state.
#[btf_map]
static DICE: Array<u64, 1> = Array::new();

/// The program under measurement, at 0.
#[btf_map]
pub(crate) static MEASURED: ProgramArray<1> = ProgramArray::new();

/// A limit as the baseline needs it: what a packet costs and how deep a bucket is.
#[btf_map]
static PRICE: Array<[Ticks; 2], 1> = Array::new();

/// A bucket for each source, in the map that comes to mind first.
#[btf_map]
static LRU: LruHashMap<u64, Ticks, 1_048_576> = LruHashMap::new();

const NO_SECRET: Secret = [0; 2];

/// Draws the frame's source, then goes on in the measured program.
#[xdp]
fn vary(ctx: XdpContext) -> u32 {
    if let (Some(spread), Some(dice)) = (SPREAD.get(0), DICE.get_ptr_mut(0)) {
        // SAFETY: array elements live as long as the program; the benchmark runs on one CPU.
        let state = unsafe { &mut *dice };
        *state = xorshift(*state);
        if frame::set_source(&ctx, spread.flood_of(*state)).is_some() {
            // SAFETY: nothing here needs to be dropped.
            unsafe { MEASURED.tail_call(&ctx, 0) };
        }
    }
    xdp_action::XDP_ABORTED
}

/// Goes on in the measured program, and does nothing else.
#[xdp]
fn enter(ctx: XdpContext) -> u32 {
    // SAFETY: nothing here needs to be dropped.
    unsafe { MEASURED.tail_call(&ctx, 0) };
    xdp_action::XDP_ABORTED
}

/// The floor: what it costs to be called.
#[xdp]
fn drop(_: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// The least that stops a flood: drops what its sources send, and passes the rest.
#[xdp]
fn drop_flood(ctx: XdpContext) -> u32 {
    match (SPREAD.get(0), read(&ctx)) {
        (Some(spread), Ok(packet)) if spread.is_flood(packet.source.low) => xdp_action::XDP_DROP,
        _ => xdp_action::XDP_PASS,
    }
}

/// What every limiter must do at least: read the packet and the clock.
#[xdp]
fn parse_clock(ctx: XdpContext) -> u32 {
    match read(&ctx) {
        // SAFETY: the helper has no preconditions.
        Ok(packet) if packet.source.low != unsafe { bpf_ktime_get_ns() } => xdp_action::XDP_DROP,
        _ => xdp_action::XDP_PASS,
    }
}

/// The same token bucket in an LRU hash.
#[xdp]
fn lru_hash(ctx: XdpContext) -> u32 {
    match read(&ctx) {
        Ok(packet) => limit(&packet).unwrap_or(xdp_action::XDP_ABORTED),
        Err(_) => xdp_action::XDP_PASS,
    }
}

#[inline(always)]
fn read(ctx: &XdpContext) -> Result<Packet, Reason> {
    let (start, end) = (ctx.data(), ctx.data_end());
    let mut packet = Packet::default();
    // SAFETY: the verifier proves that every read lies between the two.
    unsafe { packet::parse(start, end, (end - start) as u32, &mut packet) }?;
    Ok(packet)
}

#[inline(always)]
fn limit(packet: &Packet) -> Option<u32> {
    let &[cost, depth] = PRICE.get(0)?;
    let key = packet.source.key(packet.family, 32, NO_SECRET);
    // SAFETY: the helper has no preconditions.
    let now = gcra::ticks(unsafe { bpf_ktime_get_ns() });
    let held = LRU.get_ptr_mut(key);
    // SAFETY: the entry may meanwhile serve another key, as in any use of this map; it stays a bucket.
    let tat = held.map_or(0, |tat| unsafe { tat.read_volatile() });
    let Some(next) = gcra::admit(tat, now, cost, depth) else { return Some(xdp_action::XDP_DROP) };
    match held {
        // SAFETY: as above; a lost update is this baseline's inaccuracy, and to its speed's credit.
        Some(tat) => unsafe { tat.write_volatile(next) },
        None => LRU.insert(key, next, 0).ok()?,
    }
    Some(xdp_action::XDP_PASS)
}
