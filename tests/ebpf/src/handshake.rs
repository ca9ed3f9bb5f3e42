//! Handshakes by the ten thousand for the benchmark: `note` remembers how a server answers each of many SYNs, and `turn`
//! gives the packets of their sources, one after the other, to the program under measurement.

use crate::{
    baseline::{MEASURED, SPREAD},
    frame::{self, ETHERNET},
};
use aya_ebpf::{
    bindings::{TC_ACT_OK, xdp_action},
    btf_maps::Array,
    helpers::bpf_redirect,
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};

/// Sources, by the lower bits of their addresses.
const SOURCES: usize = 1 << 16;
const IPV4: usize = 20;
/// The lower half of the destination, and fields of the TCP header behind an IPv4 header without options.
const DESTINATION_LOW: usize = 18;
const SEQUENCE: usize = IPV4 + 4;
const ACKNOWLEDGEMENT: usize = IPV4 + 8;
const FLAGS: usize = IPV4 + 13;
/// The number of every namespace's loopback interface, and the flag that has it receive.
const LOOPBACK: u32 = 1;
const BPF_F_INGRESS: u64 = 1;
/// The flags of the answer to a SYN.
const SYN_ACK: u8 = 0x12;

/// The number that each source has to acknowledge, as it stands in the packet; 0 before the server has answered.
#[btf_map]
static ACKNOWLEDGEMENTS: Array<u32, SOURCES> = Array::new();

/// Whose turn it is.
#[btf_map]
static TURN: Array<u64, 1> = Array::new();

/// Notes the SYN-ACKs among what leaves, and sends them home, where nobody wants them; lets the rest go. A server forgets
/// whom it cannot answer, and the queue of a veth is too short for the answers that it repeats all at once.
#[classifier]
fn note(ctx: TcContext) -> i32 {
    if ctx.load::<u8>(ETHERNET + FLAGS) != Ok(SYN_ACK) {
        return TC_ACT_OK;
    }
    note_answer(&ctx);
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_redirect(LOOPBACK, BPF_F_INGRESS) as i32 }
}

#[inline(always)]
fn note_answer(ctx: &TcContext) -> Option<()> {
    let low = u16::from_be(ctx.load(ETHERNET + DESTINATION_LOW).ok()?);
    let sequence = u32::from_be(ctx.load(ETHERNET + SEQUENCE).ok()?);
    // SAFETY: an element of the map; a source is answered by one CPU at a time, always with the same number.
    unsafe { *ACKNOWLEDGEMENTS.get_ptr_mut(low.into())? = sequence.wrapping_add(1).to_be() };
    Some(())
}

/// Makes the frame the next source's, then goes on in the measured program.
#[xdp]
fn turn(ctx: XdpContext) -> u32 {
    if next(&ctx).is_some() {
        // SAFETY: nothing here needs to be dropped.
        unsafe { MEASURED.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

#[inline(always)]
fn next(ctx: &XdpContext) -> Option<()> {
    // SAFETY: array elements live as long as the program; the benchmark runs on one CPU.
    let turn = unsafe { &mut *TURN.get_ptr_mut(0)? };
    let spread = SPREAD.get(0)?;
    let source = *turn & spread.random & (SOURCES as u64 - 1);
    *turn += 1;
    let acknowledgement = *ACKNOWLEDGEMENTS.get(source as u32)?;
    frame::set_source(ctx, spread.flood | source)?;
    let ip = ctx.data() + ETHERNET;
    if ip + IPV4 + 20 > ctx.data_end() {
        return None;
    }
    // SAFETY: the number lies within the frame, as was just checked, at an offset that two divides.
    unsafe { ((ip + ACKNOWLEDGEMENT) as *mut u32).write_unaligned(acknowledgement) };
    Some(())
}
