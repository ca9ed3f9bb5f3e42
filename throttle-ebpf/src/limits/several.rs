//! Several limits: all are weighed before any is charged, each at a glance ([`glance`]) where that is enough.
//!
//! Windows, guarantees, overrides, overflow and leases to be taken go the long way, in functions that the verifier checks
//! one by one. What each is to be charged waits in the scratch space.

use throttle_common::{
    guarantees::Guaranteed,
    limits::{self, Charge, Question, SLIDING, STEPPING, overflow, seek, weigh_at},
    records::{Limit, SCOPE_LIMITS, Scope},
    table::{Check, Commit},
    words::Reason,
};

use super::{
    ADMITTED, ELSEWHERE, Maps, Pending, STOP,
    bucket::{settle, settle_shared, settle_sliding, take_back},
    find, glance, lease, refuse, refused, scope, tally,
};
use crate::{
    clock::Clock,
    tables::{Scratch, scratch},
};

// The rounds, beside the place of a limit in its scope.
const WEIGH: u32 = 0;
const SETTLE: u32 = 0x10;
// How `count` counts, beside the place at which it ends.
const ALL: u32 = SCOPE_LIMITS as u32;
const SPARE: u32 = 0x20;

/// Weighs every limit of a service (or, for [`throttle_common::records::NONE`], of the host), then charges them in the same
/// order, then counts. `crowded` is what the limits on open connections have said.
/// Gives the answer of the limit that names the verdict, and in its upper half that limit's number.
///
/// A limit that only observes takes no part in the charging when it would have refused, and the packet goes on; the
/// first such limit names the verdict. A global function like [`ask`].
#[inline(never)]
#[unsafe(export_name = "several")]
pub extern "C" fn judge(service: u32, crowded: u32) -> u32 {
    let Some(Scratch { pending, .. }) = scratch() else { return ADMITTED };
    let Some(scope) = scope(pending.generation, service) else { return ADMITTED };
    let mut first = crowded;
    for round in [WEIGH, SETTLE] {
        for index in 0..SCOPE_LIMITS as u32 {
            let Some(number) = number(scope, index) else { break };
            let mut answer = ELSEWHERE;
            if scope.plain != 0 {
                answer = if round == SETTLE { glance::settle(index, number) } else { glance::weigh(index, number) };
            }
            if answer == ELSEWHERE {
                answer = if round == SETTLE { charge(index, number) } else { ask(index, number) };
            }
            if answer == ELSEWHERE {
                answer = if round == SETTLE { charge_sliding(index, number) } else { ask_sliding(index, number) };
            }
            if answer == ELSEWHERE {
                answer = share_sliding(round | index, number);
            }
            if answer & STOP != 0 {
                spare(service, round | index);
                return answer | number << 16;
            }
            if first == ADMITTED && answer != ADMITTED {
                first = answer | number << 16;
            }
        }
    }
    count(service, ALL);
    first
}

/// Counts as spared who was asked before the limit at an index refused: those before it, and in the second round also
/// those behind it, uncharged. A global function, because beside [`judge`] the stack has no room for it: Linux 6.1 counts
/// each function's part of the stack in steps of 32 bytes, and has 512 for all that call each other.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn spare(service: u32, refusal: u32) -> u32 {
    let Some(Scratch { pending: Pending { charges, .. }, .. }) = scratch() else { return 0 };
    let (round, index) = (refusal & SETTLE, refusal & (SETTLE - 1));
    if round == WEIGH {
        return count(service, SPARE | index);
    }
    for before in 0..SCOPE_LIMITS as u32 {
        if before >= index {
            break;
        }
        take_back(&charges[before as usize]);
    }
    count(service, SPARE | ALL)
}

/// Counts the limits before an index that were asked as having admitted, or as spared because another refused.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn count(service: u32, end: u32) -> u32 {
    let Some(Scratch { pending: Pending { question, generation, charges, .. }, .. }) = scratch() else { return 0 };
    let Some(scope) = scope(*generation, service) else { return 0 };
    for index in 0..SCOPE_LIMITS as u32 {
        let Some(number) = number(scope, index) else { break };
        if index >= end & (SPARE - 1) {
            break;
        }
        let charge = &charges[index as usize];
        if charge.asked() {
            let spare = end & SPARE != 0;
            tally(number, (charge.overflowed(), question.length), |tally| {
                if spare { &mut tally.spared } else { &mut tally.admitted }
            });
        }
    }
    0
}

/// The number of the limit on a rate at an index.
#[inline(always)]
fn number(scope: &Scope, index: u32) -> Option<u32> {
    if index < u32::from(scope.count) { Some(u32::from(scope.limits[index as usize])) } else { None }
}

/// Weighs one limit of several: the one at `index` in its scope.
///
/// A global function, which the verifier checks once and by itself; a static one it would follow anew on every path
/// that leads here, and the paths of eight limits multiply beyond its bounds. Such a function takes plain numbers only.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ask(index: u32, number: u32) -> u32 {
    let Some(Scratch { pending: Pending { question, now, generation, epoch, charges }, .. }) = scratch() else {
        return ADMITTED;
    };
    let charge = &mut charges[index as usize % SCOPE_LIMITS];
    let Some(limit) = find(*generation, number) else { return ADMITTED };
    if limit.is_sliding() {
        return ELSEWHERE;
    }
    charge.clear();
    if limit.is_leased() && lease::look(*epoch, limit, question, &mut Clock::at(*now), charge) {
        return ADMITTED;
    }
    let refusal = weigh_at::<STEPPING, _, _>(limit, question, &Maps, &mut Clock::at(*now), charge);
    answer(refusal, limit, *generation, number, charge, question)
}

/// Weighs one whose windows slide. Global functions of their own, because with [`ask`] and [`charge`], and with each other,
/// they would need more of the stack than is left.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ask_sliding(index: u32, number: u32) -> u32 {
    let Some(Scratch { pending: Pending { question, now, generation, charges, .. }, .. }) = scratch() else {
        return ADMITTED;
    };
    let charge = &mut charges[index as usize % SCOPE_LIMITS];
    let Some(limit) = find(*generation, number) else { return ADMITTED };
    charge.clear();
    match seek::<SLIDING, _, _>(limit, question, &Maps, &mut Clock::at(*now), charge) {
        Some(Check::Full) => ELSEWHERE,
        Some(Check::Exceeded) => exceeded(index, number),
        _ => ADMITTED,
    }
}

/// Counts that a source has used up what a limit whose windows slide allows.
#[inline(always)]
fn exceeded(index: u32, number: u32) -> u32 {
    let Some(Scratch { pending: Pending { question, generation, charges, .. }, .. }) = scratch() else {
        return ADMITTED;
    };
    let Some(limit) = find(*generation, number) else { return ADMITTED };
    let charge = &mut charges[index as usize % SCOPE_LIMITS];
    let refusal = limits::exceeded(limit, question, charge);
    answer(refusal, limit, *generation, number, charge, question)
}

/// Charges one limit of several, which was weighed. A global function like [`ask`], and not the same one: together they
/// would need more of the stack than is left.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn charge(index: u32, number: u32) -> u32 {
    let Some(Scratch { pending: Pending { question, generation, epoch, charges, .. }, .. }) = scratch() else {
        return ADMITTED;
    };
    if index == 0 {
        // What it is within a guarantee of, the charges say anew: others may have been faster.
        question.guaranteed = Guaranteed::NOT;
    }
    let charge = &mut charges[index as usize % SCOPE_LIMITS];
    let Some(limit) = find(*generation, number) else { return ADMITTED };
    if limit.is_sliding() {
        return ELSEWHERE;
    }
    if charge.kind == Charge::LEASED {
        lease::spend(charge);
        return ADMITTED;
    }
    if limit.is_leased() && lease::renew(*epoch, limit, question, charge) {
        return ADMITTED;
    }
    let refusal = settle::<STEPPING>(limit, question, charge);
    answer(refusal, limit, *generation, number, charge, question)
}

/// Charges one whose windows slide, where its source has a slot.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn charge_sliding(index: u32, number: u32) -> u32 {
    let Some(Scratch { pending: Pending { question, generation, charges, .. }, .. }) = scratch() else {
        return ADMITTED;
    };
    let charge = &mut charges[index as usize % SCOPE_LIMITS];
    let Some(limit) = find(*generation, number) else { return ADMITTED };
    match settle_sliding(limit, question, charge) {
        Some(Commit::Full) => ELSEWHERE,
        Some(Commit::Exceeded | Commit::Contended(_)) => exceeded(index, number),
        _ => ADMITTED,
    }
}

/// Weighs or charges one whose windows slide, where its source has no slot.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn share_sliding(step: u32, number: u32) -> u32 {
    let Some(Scratch { pending: Pending { question, generation, charges, .. }, .. }) = scratch() else {
        return ADMITTED;
    };
    let charge = &mut charges[step as usize % SCOPE_LIMITS];
    let Some(limit) = find(*generation, number) else { return ADMITTED };
    let refusal = if step & SETTLE == 0 {
        overflow::<SLIDING, _>(limit, question, &Maps, charge)
    } else {
        settle_shared::<SLIDING>(limit, question, charge)
    };
    answer(refusal, limit, *generation, number, charge, question)
}

/// Counts a refusal, and says it in a number. What a guarantee says is noted: it refuses nothing.
#[inline(always)]
fn answer(
    refusal: Option<Reason>,
    limit: &Limit,
    generation: u32,
    number: u32,
    charge: &mut Charge,
    question: &mut Question,
) -> u32 {
    if limit.is_guarantee() {
        if refusal.is_some() {
            charge.clear();
        } else if charge.asked() {
            question.guaranteed.note(limit);
        }
        return ADMITTED;
    }
    let Some(reason) = refusal else { return ADMITTED };
    let outcome = refuse(generation, limit, number, (charge.overflowed(), question.length));
    charge.clear();
    refused(reason, outcome) | if limit.observe == 0 { STOP } else { 0 }
}
