//! What leaves: of a service whose connections are counted by their packets, or whose time to first byte is measured, the
//! answers.
//!
//! The kernel calls [`leaving`] for every packet that goes out by a throttled interface, whoever sent it, after network
//! address translation: its ends are those of the packets that come in. It refuses nothing.

use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};
use network_types::tcp::TcpHdr;
use throttle_common::{
    forwarded::Side,
    packet::{self, Packet, protocol, tcp},
};

use crate::{
    clock::Clock,
    connections::{Entering, Followed, follow, note_answer, note_data, segment},
    exchanges, services,
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
    if in_force.policy.counts_forwarded | in_force.policy.measures == 0 {
        return NEXT;
    }
    let wanted = if ctx.len() < HEADERS { ctx.len() } else { HEADERS };
    if ctx.data() + wanted as usize > ctx.data_end() && ctx.pull_data(wanted).is_err() {
        return NEXT;
    }
    if read(ctx.skb.skb) != 0 {
        see(ctx.skb.skb);
    }
    NEXT
}

/// Reads the packet; 0 where it cannot be read.
///
/// A global function, which the verifier checks once, wherever its caller comes from: twice the many paths through the
/// parser, for packets that had to be pulled together and for others, are too much for Linux 6.1.
#[inline(never)]
#[unsafe(export_name = "read_leaving")]
extern "C" fn read(ctx: *mut __sk_buff) -> u32 {
    let (ctx, Some(leaving)) = (TcContext::new(ctx), LEAVING.get_ptr_mut(0)) else { return 0 };
    // SAFETY: this CPU's own element, and nothing that runs this program interrupts it.
    let packet = unsafe { &mut (*leaving).packet };
    // SAFETY: the kernel vouches for the bytes between the two.
    unsafe { packet::parse(ctx.data(), ctx.data_end(), ctx.len(), packet) }.is_ok().into()
}

/// Sees the packet that was read. Likewise checked once, not for each path through the parser.
#[inline(never)]
#[unsafe(export_name = "see_leaving")]
extern "C" fn see(ctx: *mut __sk_buff) -> u32 {
    let (Some(in_force), Some(leaving)) = (InForce::read(), LEAVING.get_ptr_mut(0)) else { return 0 };
    // SAFETY: as above.
    let packet = unsafe { &mut (*leaving).packet };
    if packet.protocol != protocol::TCP {
        return 0;
    }
    // As the other side sends it.
    core::mem::swap(&mut packet.source, &mut packet.destination);
    core::mem::swap(&mut packet.source_port, &mut packet.destination_port);
    if in_force.policy.measures != 0 {
        exchanges::see_leaving(&in_force, packet);
    }
    if in_force.policy.counts_forwarded != 0 {
        see_forwarded(ctx);
    }
    0
}

/// Sees the packet that was read, as the other side sends it, where connections are counted by their packets.
#[inline(never)]
#[unsafe(export_name = "see_forwarded_leaving")]
extern "C" fn see_forwarded(ctx: *mut __sk_buff) -> u32 {
    let (Some(in_force), Some(leaving)) = (InForce::read(), LEAVING.get_ptr_mut(0)) else { return 0 };
    // SAFETY: as above.
    let Leaving { packet, entering } = unsafe { &mut *leaving };
    let (service, scope) = services::classify(&in_force, packet);
    if !services::is_forwarded(in_force.generation, u32::from(service)) {
        return 0;
    }
    let Ok(header) = TcContext::new(ctx).load::<TcpHdr>(usize::from(packet.transport)) else { return 0 };
    entering.begin(packet);
    entering.connection.since = Clock::read().nanos();
    entering.segment = segment(packet, u32::from_be_bytes(header.seq), u32::from_be_bytes(header.ack_seq));
    if packet.flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN | tcp::ACK {
        note_answer(entering, in_force.control.secret);
    } else if matches!(follow(entering, Side::Service), Followed::Unknown) && scope.concurrent != 0 {
        note_data(entering, in_force.control.secret);
    }
    0
}
