//! Connections that are counted by their packets: which of them completes a handshake, and which is the last.
//!
//! What the service answered to a SYN was seen when it left ([`crate::leaving`]); whoever acknowledges it has seen it too,
//! and is no spoofed source. So it is with data where no connection is known: whoever acknowledges that has one. All that a
//! packet changes of connections is done when the other limits have let it pass.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use throttle_common::{
    awaited::Awaited,
    forwarded::{Segment, Side},
    hash::Secret,
    packet::{Packet, Part, tcp},
    records::{Connection, Ends},
};

use super::{
    Entering,
    changing::{mark_end, remove, word},
    handshake::transport,
};
use crate::{
    atomic,
    tables::{CONNECTIONS, CONTROL, SYN_ACKS, scratch},
};

// What [`read_step`] answers.
/// There is no such connection, and the packet acknowledges something.
pub const ACKNOWLEDGES: u32 = 2;
/// It says something new of a connection.
pub const CONTINUES: u32 = 3;

// What [`answer`] answers.
/// It completes the handshake of a connection.
pub const COMPLETES: u32 = 1;
/// It shows that a connection is open.
pub const REVEALS: u32 = 2;

/// What the packet in the scratch space, whose ends are noted there, means for its connection: [`ACKNOWLEDGES`],
/// [`CONTINUES`], or 0 for nothing.
///
/// A global function, which the verifier checks once and by itself; so are the others.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn read_step(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let entering = &mut scratch.entering;
    let Some(segment) = read_segment(ctx, &scratch.packet) else { return 0 };
    entering.segment = segment;
    if matches!(scratch.packet.part, Part::First) {
        // How much of it the other fragments bring is not known, but how much they can.
        entering.segment.payload = u16::MAX.into();
    }
    let now = entering.connection.since;
    if let Some(found) = CONNECTIONS.get_ptr(&entering.ends) {
        // SAFETY: an element of the map.
        let found = unsafe { &*found };
        let news = found.state == Connection::FORWARDED && !found.knows(&entering.segment, now);
        return if news { CONTINUES } else { 0 };
    }
    // As the host of this service, that of a forwarded one may forget a SYN which is said once more.
    if scratch.packet.flags & (tcp::ACK | tcp::RST) == tcp::ACK { ACKNOWLEDGES } else { 0 }
}

/// Whether there is a connection between the ends in the scratch space already: a SYN between them opens nothing, and if its
/// service begins anew, it goes on with the places that there are.
#[inline(always)]
pub fn is_known(entering: &Entering) -> bool {
    CONNECTIONS.get_ptr(&entering.ends).is_some()
}

/// What the segment in the scratch space acknowledges of what waits for that: a SYN-ACK ([`COMPLETES`]), data ([`REVEALS`]),
/// or 0 for nothing. Its connection is then described there. After [`read_step`] and not within it, for want of stack
/// likewise.
#[inline(never)]
#[unsafe(export_name = "answer_flow")]
pub extern "C" fn answer() -> u32 {
    let (Some(scratch), Some(control)) = (scratch(), CONTROL.get(0)) else { return 0 };
    let Entering { ends, connection, segment, .. } = &mut scratch.entering;
    let awaited = Awaited::of(ends, control.secret);
    let Some(cell) = SYN_ACKS.get_ptr(awaited.cell) else { return 0 };
    // SAFETY: an element of the map.
    let noted = unsafe { atomic::load(cell) };
    let completes = awaited.answers(noted, segment.acknowledged);
    if !completes && !awaited.reveals(noted, segment.acknowledged) {
        return 0;
    }
    connection.state = Connection::FORWARDED;
    // What a source said before its connection was known, nobody has followed.
    let is_first = completes && awaited.acknowledges(noted, segment.sequence);
    connection.begin(segment, is_first, connection.since);
    if completes {
        connection.complete();
    }
    if completes { COMPLETES } else { REVEALS }
}

/// Notes that the connection in the scratch space has begun: what it acknowledges waits no more. What its first word says is
/// for [`go_on`], after this and not within it: Linux 6.1 has no room on the stack for both (see [`crate::limits`]).
#[inline(never)]
#[unsafe(export_name = "begin_flow")]
pub extern "C" fn begin() -> u32 {
    let (Some(scratch), Some(control)) = (scratch(), CONTROL.get(0)) else { return 0 };
    let awaited = Awaited::of(&scratch.entering.ends, control.secret);
    if let Some(cell) = SYN_ACKS.get_ptr_mut(awaited.cell) {
        // SAFETY: an element of the map.
        let noted = unsafe { atomic::load(cell) };
        let acknowledged = scratch.entering.segment.acknowledged;
        if awaited.answers(noted, acknowledged) || awaited.reveals(noted, acknowledged) {
            // SAFETY: an element of the map. What another has written there meanwhile stays.
            unsafe { atomic::swap(cell, noted, 0) };
        }
    }
    0
}

/// Goes on with the connection in the scratch space: 1 where that was its last, and its places are given back.
#[inline(never)]
#[unsafe(export_name = "go_on_with_flow")]
pub extern "C" fn go_on() -> u32 {
    scratch().map_or(0, |scratch| u32::from(matches!(follow(&mut scratch.entering, Side::Source), Followed::Ended)))
}

/// Has the SYN-ACK of the connection in the scratch space, which its source has reset, wait once more, where the service has
/// said nothing else: it may not have heard of that connection before, and then heeds no reset of it.
#[inline(never)]
#[unsafe(export_name = "await_again")]
pub extern "C" fn await_again() -> u32 {
    let (Some(scratch), Some(control)) = (scratch(), CONTROL.get(0)) else { return 0 };
    if let Some((sequence, acknowledged)) = scratch.entering.connection.unheard_answer() {
        wait(&scratch.entering, control.secret, sequence, acknowledged);
    }
    0
}

/// What became of a connection with a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// There is none.
    Unknown,
    /// It goes on.
    Open,
    /// It is none any more.
    Ended,
}

/// Follows a connection with a segment of one side. Of all who see it close, the one who removes it gives its places back.
#[inline(always)]
pub fn follow(entering: &mut Entering, from: Side) -> Followed {
    let now = entering.connection.since;
    let Some(found) = CONNECTIONS.get_ptr_mut(&entering.ends) else { return Followed::Unknown };
    // SAFETY: an element of the map. Each side's packets write words of their own. Where it is removed meanwhile and has become
    // another's, that one's end may be seen later than it is; but it is not ended.
    unsafe {
        let since = (*found).began();
        let closes = (*found).state == Connection::FORWARDED && (*found).follow(from, &entering.segment, now);
        if closes && is_still(found, &entering.ends, since) && mark_end(found, since, Connection::ENDS) {
            entering.resume(&*found);
            if remove(found, &entering.ends, &entering.connection) {
                return Followed::Ended;
            }
        }
    }
    Followed::Open
}

/// Whether an element is still that of the connection between these ends with that word.
///
/// # Safety
///
/// An element of the map of connections.
#[inline(always)]
unsafe fn is_still(found: *mut Connection, ends: &Ends, since: u64) -> bool {
    // SAFETY: the caller's.
    unsafe { word(found, ends).is_some_and(|now| now & !Connection::MARKS == since) }
}

/// Notes the SYN-ACK of a service, where it is not known already.
#[inline(always)]
pub fn note_answer(entering: &Entering, secret: Secret) {
    if let Some(found) = CONNECTIONS.get_ptr_mut(&entering.ends) {
        // SAFETY: as in `follow`.
        unsafe {
            if (*found).state == Connection::FORWARDED {
                (*found).begin_anew(&entering.segment, entering.connection.since);
            }
        }
        return;
    }
    wait(entering, secret, entering.segment.sequence, entering.segment.acknowledged);
}

/// Has a SYN-ACK with these numbers wait for its acknowledgement.
#[inline(always)]
fn wait(entering: &Entering, secret: Secret, sequence: u32, acknowledged: u32) {
    let awaited = Awaited::of(&entering.ends, secret);
    if let Some(cell) = SYN_ACKS.get_ptr_mut(awaited.cell) {
        // SAFETY: an element of the map.
        unsafe { atomic::store(cell, awaited.note(sequence, acknowledged)) };
    }
}

/// Notes the data of a service between ends that no connection is known of, and that it ends.
#[inline(always)]
pub fn note_data(entering: &Entering, secret: Secret) {
    let awaited = Awaited::of(&entering.ends, secret);
    let Some(cell) = SYN_ACKS.get_ptr_mut(awaited.cell) else { return };
    // SAFETY: an element of the map.
    let noted = unsafe { atomic::load(cell) };
    let next = awaited.note_data(noted, &entering.segment);
    if next != noted {
        // SAFETY: as above.
        unsafe { atomic::store(cell, next) };
    }
}

/// What a packet that comes in says; `None` where it has no header of TCP.
#[inline(always)]
pub fn read_segment(ctx: *mut xdp_md, packet: &Packet) -> Option<Segment> {
    let header = transport(&XdpContext::new(ctx), packet)?;
    // SAFETY: `transport` checked the range.
    let [sequence, acknowledged] = unsafe { [(*header).seq, (*header).ack_seq] }.map(u32::from_be_bytes);
    Some(segment(packet, sequence, acknowledged))
}

/// What a packet says.
#[inline(always)]
pub fn segment(packet: &Packet, sequence: u32, acknowledged: u32) -> Segment {
    Segment { sequence, acknowledged, flags: packet.flags.into(), payload: packet.payload.into() }
}
