//! A source that is refused by its first limit will be until its bucket has filled up that far: its CPU remembers when, in
//! the line where it remembers the source. Packets that come before cost little more than those of a blocked source.
//!
//! What was remembered is of one service under one policy, and what it says the bucket would say too: see [`Refusal`].

use throttle_common::{
    gcra::Ticks,
    limits::{Clock as _, Table as _},
    packet::Packet,
    records::{Home, Limit, Refusal, Scope, Whose},
    table::{Look as _, WAYS, is_lock},
    words::Reason,
};

use super::{bucket::Maps, find, refuse};
use crate::{
    clock::{Clock, is_untouched},
    sources,
    tables::{InForce, Scratch, scratch},
    verdict::Verdict,
};

/// The verdict on a packet whose source is known to be refused by the first limit of its service.
#[inline(always)]
pub fn known(
    in_force: &InForce,
    (service, scope): (u16, &Scope),
    (packet, length): (&Packet, u32),
    clock: &mut Clock,
) -> Option<Verdict> {
    let refusal = sources::known(in_force, packet)?.refusal;
    if !refusal.is_of(in_force.epoch, service) {
        return None;
    }
    let number = scope.limits[0];
    let limit = find(in_force.generation, number.into())?;
    let cost = limit.price.cost(limit.units(length, packet.opens_connection())?);
    if !is_still_refused(&refusal, limit, cost, clock)? {
        return None;
    }
    let outcome = refuse(in_force.generation, limit, number.into(), (false, length));
    Some(Verdict { outcome, limit: number, service, ..Verdict::pass(limit.refusal()) })
}

/// Asks the clock only where it might have come as far.
#[inline(always)]
fn is_still_refused(refusal: &Refusal, limit: &Limit, cost: Ticks, clock: &mut Clock) -> Option<bool> {
    let scratch = scratch()?;
    if is_untouched(limit.clock)
        && let Some((rough, latest)) = scratch.rough.read()
        && refusal.holds(latest, cost)
    {
        scratch.in_rough = 1;
        *clock = rough;
        return Some(true);
    }
    scratch.rough.note(clock);
    Some(refusal.holds(clock.reads(limit.clock), cost))
}

/// Whether a verdict is one that says something of the next packet of the source: that of the first limit, which is plain,
/// and no limit on open connections is asked before it.
#[inline(always)]
pub fn is_worth_knowing(verdict: &Verdict, scope: &Scope) -> bool {
    verdict.reason == Reason::SourceLimit as u8
        && verdict.limit == scope.limits[0]
        && scope.plain != 0
        && scope.concurrent == 0
}

/// Remembers that the bucket of the source in the scratch space was too empty, where its CPU knows the source.
///
/// A global function, which the verifier checks once and by itself.
#[inline(never)]
#[unsafe(export_name = "remember_refusal")]
pub extern "C" fn remember(epoch: u32, service: u32, number: u32) -> u32 {
    let (Some(in_force), Some(Scratch { packet, .. })) = (InForce::of(epoch), scratch()) else { return 0 };
    let (Some(seen), Some(limit)) = (sources::made_known(&in_force, packet), find(in_force.generation, number)) else {
        return 0;
    };
    if limit.observe != 0 {
        // It keeps nothing from the limits behind it.
        return 0;
    }
    let tenant = seen.entry.tenant(in_force.generation);
    let whose = Whose { source: packet.source, family: packet.family, tenant };
    let Some(Home { key, set }) = limit.home(&whose, in_force.control.secret) else { return 0 };
    let Some(set) = Maps.set(set) else { return 0 };
    for way in 0..WAYS {
        let tat = set.tat(way);
        if set.key(way) == key && !is_lock(tat) {
            seen.refusal = Refusal::by(tat, limit.depth, epoch, service as u16);
            break;
        }
    }
    0
}
