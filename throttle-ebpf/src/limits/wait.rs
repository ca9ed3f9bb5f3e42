//! How long a source is told to wait: until every limit of a service has room for another connection.

use throttle_common::{
    gcra::TICKS_PER_NANO,
    limits::{Clock as _, Owed, Question},
    pages::seconds,
    records::SCOPE_LIMITS,
};

use super::{Maps, find, scope};
use crate::{
    clock::{Clock, is_untouched},
    sources,
    tables::{InForce, Scratch, scratch},
};

/// The bytes of a usual SYN.
const SYN: u32 = 74;

/// Notes for the source of the packet in the scratch space how many whole seconds it is until it is let in, if nothing is charged
/// meanwhile: one at least.
///
/// A global function, which the verifier checks once and by itself; so are the others.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn weigh_wait(epoch: u32, now: u64, service: u32) -> u32 {
    ask_for_another(epoch, now);
    let mut longest = 0;
    for index in 0..SCOPE_LIMITS as u32 {
        let Some(scope) = scope(epoch & 1, service) else { return 0 };
        if index >= u32::from(scope.count) {
            break;
        }
        let number = u32::from(scope.limits[index as usize]);
        if look_what_is_owed(number) != 0 {
            longest = longest.max(wait(number, now));
        }
    }
    if let Some(scratch) = scratch() {
        scratch.wait = seconds(longest);
    }
    0
}

/// Notes what another connection from the same source would ask.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ask_for_another(epoch: u32, now: u64) -> u32 {
    let (Some(in_force), Some(Scratch { packet, pending, .. })) = (InForce::of(epoch), scratch()) else { return 0 };
    let entry = sources::recalled(&in_force, packet);
    let question = Question::about(packet, SYN, entry, in_force.generation, in_force.control.secret);
    pending.question = question.opening(SYN);
    pending.now = now;
    (pending.generation, pending.epoch) = (in_force.generation, epoch);
    0
}

/// Notes what is owed to a limit where that would be charged: 1 where the limit has a say in it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn look_what_is_owed(number: u32) -> u32 {
    let Some(Scratch { pending, owed, .. }) = scratch() else { return 0 };
    let Some(limit) = find(pending.generation, number) else { return 0 };
    if limit.observe != 0 {
        return 0;
    }
    let Some(found) = Owed::to(limit, &pending.question, &Maps) else { return 0 };
    *owed = found;
    1
}

/// Nanoseconds until that limit has room.
#[inline(never)]
#[unsafe(export_name = "wait_for_limit")]
extern "C" fn wait(number: u32, now: u64) -> u64 {
    let Some(Scratch { pending, owed, .. }) = scratch() else { return 0 };
    let Some(limit) = find(pending.generation, number) else { return 0 };
    let reads = Clock::at(now).reads(limit.clock);
    let ticks = owed.wait(limit, reads);
    let mut nanos = ticks.div_ceil(TICKS_PER_NANO);
    if ticks == 0 || is_untouched(limit.clock) {
        return nanos;
    }
    // Its clock may be slower: at most sixteen times for single sources.
    for _ in 0..4 {
        if Clock::at(now.wrapping_add(nanos)).reads(limit.clock).wrapping_sub(reads) >= ticks {
            break;
        }
        nanos *= 2;
    }
    nanos
}
