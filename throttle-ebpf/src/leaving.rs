//! What leaves: of a service whose connections are counted by their packets, the answers.
//!
//! The kernel calls [`leaving`] for every packet that goes out by a throttled interface, whoever sent it, after network
//! address translation: its ends are those of the packets that come in. It refuses nothing.

use aya_ebpf::{macros::classifier, programs::TcContext};
use network_types::tcp::TcpHdr;
use throttle_common::{
    forwarded::Side,
    packet::{self, Packet, protocol, tcp},
};

use crate::{
    clock::Clock,
    connections::{Entering, follow, note_answer, segment},
    services,
    tables::{InForce, LEAVING},
};

/// `TCX_NEXT`, and `TC_ACT_UNSPEC`: whoever is next decides.
const NEXT: i32 = -1;
/// Bytes that hold every header up to TCP's, in all but odd packets.
const HEADERS: u32 = 128;

/// What a packet keeps on its way out, where the functions that the verifier checks apart can find it.
#[repr(C)]
pub struct Leaving {
    packet: Packet,
    entering: Entering,
}

/// Sees a packet leave.
#[classifier]
pub fn leaving(ctx: TcContext) -> i32 {
    let Some(in_force) = InForce::read() else { return NEXT };
    if in_force.policy.counts_forwarded == 0 {
        return NEXT;
    }
    let Some(leaving) = LEAVING.get_ptr_mut(0) else { return NEXT };
    // SAFETY: this CPU's own element, and nothing that runs this program interrupts it.
    let Leaving { packet, entering } = unsafe { &mut *leaving };
    let wanted = if ctx.len() < HEADERS { ctx.len() } else { HEADERS };
    if ctx.data() + wanted as usize > ctx.data_end() && ctx.pull_data(wanted).is_err() {
        return NEXT;
    }
    // SAFETY: the kernel vouches for the bytes between the two.
    if unsafe { packet::parse(ctx.data(), ctx.data_end(), ctx.len(), packet) }.is_err() {
        return NEXT;
    }
    if packet.protocol == protocol::TCP {
        see(&ctx, &in_force, packet, entering);
    }
    NEXT
}

#[inline(always)]
fn see(ctx: &TcContext, in_force: &InForce, packet: &mut Packet, entering: &mut Entering) {
    // As the other side sends it.
    core::mem::swap(&mut packet.source, &mut packet.destination);
    core::mem::swap(&mut packet.source_port, &mut packet.destination_port);
    let (service, _) = services::classify(in_force, packet);
    if !services::is_forwarded(in_force.generation, u32::from(service)) {
        return;
    }
    let Ok(header) = ctx.load::<TcpHdr>(usize::from(packet.transport)) else { return };
    entering.begin(packet);
    entering.connection.since = Clock::read().nanos();
    entering.segment = segment(packet, u32::from_be_bytes(header.seq), u32::from_be_bytes(header.ack_seq));
    if packet.flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN | tcp::ACK {
        note_answer(entering, in_force.control.secret);
    } else {
        follow(entering, Side::Service);
    }
}
