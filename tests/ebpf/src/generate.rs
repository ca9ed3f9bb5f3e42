//! A traffic source: run with live frames on one end of a veth pair, `generate` sends every frame that is due out of
//! that end, with a source address of its choice. `count` tells on the other end what came through.

use crate::{
    frame,
    traffic::{NEVER, Order, Received, Sent, xorshift},
};
use aya_ebpf::{
    bindings::{TC_ACT_SHOT, xdp_action},
    btf_maps::{Array, PerCpuArray},
    helpers::bpf_ktime_get_ns,
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};

/// Bytes of the frame before the EtherType, and of it for IPv4.
const ETHERTYPE: usize = 12;
const IPV4: u16 = 0x0800;

/// What to send; written by the test before the run.
#[btf_map]
static ORDER: Array<Order, 1> = Array::new();

/// What was sent; written here. A source runs on one CPU at a time.
#[btf_map]
static SENT: Array<Sent, 1> = Array::new();

/// What came through; written by `count`, one copy for each CPU.
#[btf_map]
static RECEIVED: PerCpuArray<Received, 1> = PerCpuArray::new();

/// Sends the frame if one is due, in the name of whose it is.
#[xdp]
fn generate(ctx: XdpContext) -> u32 {
    draw(&ctx).unwrap_or(xdp_action::XDP_ABORTED)
}

#[inline(always)]
fn draw(ctx: &XdpContext) -> Option<u32> {
    let order = ORDER.get(0)?;
    // SAFETY: array elements live as long as the program, and only this program on this CPU writes this one.
    let sent = unsafe { &mut *SENT.get_ptr_mut(0)? };
    if sent.turns & (order.clock_every - 1) == 0 {
        // SAFETY: the helper has no preconditions.
        let now = unsafe { bpf_ktime_get_ns() };
        if sent.flood + sent.honest > 0 && now < order.end && now - sent.now > sent.pause {
            sent.pause = now - sent.now;
        }
        sent.now = now;
    }
    sent.turns += 1;
    if sent.now < order.begin || sent.now >= order.end {
        return Some(xdp_action::XDP_DROP);
    }
    if sent.flood + sent.honest == 0 {
        (sent.first, sent.next_flood, sent.next_honest) = (sent.now, sent.now, sent.now);
    }
    if due(&mut sent.next_honest, order.honest_interval, order.catch_up, sent.now) {
        frame::set_source(ctx, order.honest_after(sent.honest))?;
        set_port(ctx, order.honest_port)?;
        sent.honest += 1;
        sent.last = sent.now;
        return Some(xdp_action::XDP_TX);
    }
    if due(&mut sent.next_flood, order.flood_interval, order.catch_up, sent.now) {
        sent.state = xorshift(sent.state);
        frame::set_source(ctx, order.flood_of(sent.state))?;
        set_port(ctx, order.flood_port)?;
        if order.from_ports != 0 {
            frame::change_source_port(ctx, (sent.state & order.from_ports) as u16)?;
        }
        sent.flood += 1;
        sent.last = sent.now;
        return Some(xdp_action::XDP_TX);
    }
    Some(xdp_action::XDP_DROP)
}

/// Writes the port that a frame goes to, if it is not the one that it names.
#[inline(always)]
fn set_port(ctx: &XdpContext, port: u32) -> Option<()> {
    if port == 0 { Some(()) } else { frame::set_port(ctx, port as u16) }
}

/// Whether a stream's next frame is due, and if so when the one after it will be.
#[inline(always)]
fn due(next: &mut u64, interval: u64, catch_up: u64, now: u64) -> bool {
    if interval == 0 {
        return true;
    }
    if interval == NEVER || now < *next {
        return false;
    }
    let earliest = now - catch_up;
    *next = if *next < earliest { earliest } else { *next } + interval;
    true
}

/// What the sending end needs for its driver to take frames, and what counts frames that only need to arrive.
#[xdp]
fn pass(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Counts what came through, and ends it there.
#[classifier]
fn count(ctx: TcContext) -> i32 {
    tally(&ctx);
    TC_ACT_SHOT
}

#[inline(always)]
fn tally(ctx: &TcContext) -> Option<()> {
    let order = ORDER.get(0)?;
    // SAFETY: this CPU's own copy, and nothing interrupts this program.
    let received = unsafe { &mut *RECEIVED.get_ptr_mut(0)? };
    let source = if u16::from_be(ctx.load(ETHERTYPE).ok()?) == IPV4 {
        u64::from(u32::from_be(ctx.load(frame::ETHERNET + frame::SOURCE_V4).ok()?))
    } else {
        u64::from_be(ctx.load(frame::ETHERNET + frame::SOURCE_V6).ok()?)
    };
    if order.is_honest(source) {
        received.honest += 1;
        received.honest_bytes += u64::from(ctx.len());
    } else {
        received.other += 1;
        received.other_bytes += u64::from(ctx.len());
    }
    Some(())
}
