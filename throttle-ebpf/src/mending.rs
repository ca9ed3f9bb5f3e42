//! Mending what is written down of connections, for the agent, which finds out what is amiss.
//!
//! It runs [`mend`] (`BPF_PROG_TEST_RUN`) on a frame that says what, once for each connection. Places are taken, given back and
//! written down in that one run, which always comes to its end: an agent that is killed leaves no place that nobody holds, and
//! no slot that is being taken over.
//!
//! Packets may interrupt it, and see what it has done so far: see [`crate::connections`] for what they leave to it then.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use throttle_common::records::{CONNECTION_LIMITS, Connection, Mending};

use crate::{
    atomic,
    connections::{self, Step},
    frame, services,
    sockets::{MENDER, Opening, hold_missing},
    tables::{CONNECTIONS, ENTERING, InForce},
};

/// Does what the frame says, a [`Mending`]. `XDP_PASS` where the places of a connection are others now, `XDP_DROP` where they
/// are not, because nothing was amiss or the connection is no longer as it was found; `XDP_ABORTED` where it could not look.
#[xdp]
pub fn mend(ctx: XdpContext) -> u32 {
    // One after the other: of what is read of none that is not there the verifier wants to know nothing.
    let Some(in_force) = InForce::read() else { return xdp_action::XDP_ABORTED };
    let Some(opening) = opening() else { return xdp_action::XDP_ABORTED };
    let Some(asked) = asked(&ctx) else { return xdp_action::XDP_ABORTED };
    opening.packet = asked.ends.packet();
    opening.arrive(&in_force);
    opening.entering.step = Step::Continues;
    let changed = match asked.act {
        Mending::END => end(asked, opening),
        Mending::HOLD => hold(&ctx, &in_force, asked, opening),
        Mending::ADOPT => adopt(&in_force, opening),
        _ => return xdp_action::XDP_ABORTED,
    };
    if changed { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP }
}

/// What the agent asks for.
#[inline(always)]
fn asked(ctx: &XdpContext) -> Option<&'static Mending> {
    // SAFETY: the frame has as many bytes; the kernel gives test runs a page of their own, so that they are aligned.
    frame::at::<Mending>(ctx, 0).map(|asked| unsafe { &*asked })
}

/// Where the connection is kept meanwhile.
#[inline(always)]
fn opening() -> Option<&'static mut Opening> {
    // SAFETY: this CPU's own element, and the agent has no two mended at once.
    ENTERING.get_ptr_mut(MENDER).map(|opening| unsafe { &mut *opening })
}

/// Removes a connection that has ended, and gives its places back, also where whoever was to do that has not.
#[inline(always)]
fn end(asked: &Mending, opening: &mut Opening) -> bool {
    let (entering, was) = (&mut opening.entering, &asked.found);
    let Some(found) = CONNECTIONS.get_ptr_mut(&entering.ends) else { return false };
    let ends = was.since | Connection::ENDS;
    // SAFETY: an element of the map. No other has this word.
    unsafe {
        let word = &raw mut (*found).since;
        let goes_on = || (&raw const (*found).seen).read_volatile() != was.seen;
        if goes_on() || !atomic::swap(word, was.since, ends).0 {
            return false;
        }
        if goes_on() {
            // A packet has gone on with it meanwhile: it has not ended.
            atomic::swap(word, ends, was.since);
            return false;
        }
        entering.resume(&*found);
        connections::remove(found, &entering.ends, &entering.connection)
    }
}

/// Has a connection hold the places that it keeps and those that it lacks.
#[inline(always)]
fn hold(ctx: &XdpContext, in_force: &InForce, asked: &Mending, opening: &mut Opening) -> bool {
    let Some(found) = CONNECTIONS.get_ptr_mut(&opening.entering.ends) else { return false };
    let entering = &mut opening.entering;
    // SAFETY: an element of the map.
    if !unsafe { connections::begin_changing(found, asked.found.since) } {
        return false;
    }
    entering.connection.since = asked.found.since;
    entering.resumed = asked.settled != 0;
    let mut gone = 0;
    for index in 0..CONNECTION_LIMITS as u32 {
        gone |= keep_place(ctx.ctx, index);
    }
    let kept = opening.entering.count;
    let (service, scope) = services::classify(in_force, &opening.packet);
    hold_missing::<MENDER>(in_force, opening, service, scope);
    let entering = &mut opening.entering;
    // SAFETY: likewise.
    let stays = unsafe {
        let state = if asked.state == Mending::SAME { (*found).state } else { asked.state };
        connections::finish_changing(found, entering, state)
    };
    stays && (gone != 0 || entering.count > kept)
}

/// Has the connection keep one of its places, by its index, if the agent says so; else gives it back, and is 1.
///
/// A global function, which the verifier checks once and by itself.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn keep_place(ctx: *mut xdp_md, index: u32) -> u32 {
    let (Some(asked), Some(Opening { entering, .. })) = (asked(&XdpContext::new(ctx)), opening()) else { return 0 };
    let Some(found) = CONNECTIONS.get_ptr(&entering.ends) else { return 0 };
    // SAFETY: an element of the map, whose places are this program's to change.
    let hold = unsafe { (*found).holds[index as usize % CONNECTION_LIMITS] };
    if !hold.is_some() {
        return 0;
    }
    for kept in &asked.found.holds {
        if *kept == hold {
            entering.hold(hold);
            return 0;
        }
    }
    connections::give_back(&hold);
    1
}

/// Has a connection that is open take its places, and writes it down.
#[inline(always)]
fn adopt(in_force: &InForce, opening: &mut Opening) -> bool {
    if CONNECTIONS.get_ptr(&opening.entering.ends).is_some() {
        return false;
    }
    let (service, scope) = services::classify(in_force, &opening.packet);
    hold_missing::<MENDER>(in_force, opening, service, scope);
    let entering = &mut opening.entering;
    entering.connection.state = Connection::OPEN;
    entering.count > 0 && entering.enter()
}
