//! Limits at a glance: all are plain, and there are leases that are enough, buckets, or slots for them.
//!
//! That is so of nearly every packet, and leaves little to do. Where it is not, nothing has been done, and
//! [`super::several`] goes the long way.

use throttle_common::{
    limits::{Glance, glance},
    records::{PACKET_LIMITS, SCOPE_LIMITS, Scope},
};

use super::{
    ADMITTED, DUE, ELSEWHERE, Maps, Pending, SPARE, STOP,
    bucket::{settle_at_once, take_back},
    find, lease, refuse, refused, scope, tally,
};
use crate::{
    clock::Clock,
    tables::{Scratch, scratch},
};

/// Applies the limits of a service to the packet in the scratch space, and answers as [`super::several::judge`] does, or
/// [`ELSEWHERE`].
#[inline(always)]
pub fn judge(service: u32) -> u32 {
    let answer = weigh(service);
    if answer == ADMITTED { settle(service) } else { answer }
}

/// Weighs every limit.
///
/// A global function, which the verifier checks once and by itself; so are the others.
#[inline(never)]
#[unsafe(export_name = "weigh_at_a_glance")]
extern "C" fn weigh(service: u32) -> u32 {
    let Some(Scratch { pending: Pending { generation, .. }, .. }) = scratch() else { return ADMITTED };
    let Some(scope) = scope(*generation, service) else { return ADMITTED };
    let mut all = ADMITTED;
    for index in 0..PACKET_LIMITS as u32 {
        let Some(number) = number(scope, index) else { break };
        let answer = glance_at(index, number);
        if answer == DUE {
            // What refuses is said first, and nothing taken for it.
            all = ELSEWHERE;
        } else if answer != ADMITTED {
            if answer & STOP != 0 {
                count(service, SPARE | index);
            }
            return answer;
        }
    }
    all
}

/// Weighs one.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn glance_at(index: u32, number: u32) -> u32 {
    let Some(Scratch { pending: Pending { question, now, generation, epoch, charges }, .. }) = scratch() else {
        return ADMITTED;
    };
    let charge = &mut charges[index as usize % SCOPE_LIMITS];
    let Some(limit) = find(*generation, number) else { return ELSEWHERE };
    if limit.is_leased() && lease::look(*epoch, limit, question, &mut Clock::at(*now), charge) {
        return ADMITTED;
    }
    match glance(limit, question, &Maps, &mut Clock::at(*now), charge) {
        Glance::Room if limit.is_leased() && lease::is_due(*epoch, limit, question, charge) => DUE,
        Glance::Nothing | Glance::Room => ADMITTED,
        Glance::Exceeded if limit.observe == 0 => {
            let outcome = refuse(*generation, limit, number, charge, question);
            refused(limit.refusal(), outcome) | STOP | number << 16
        }
        Glance::Exceeded | Glance::Elsewhere => ELSEWHERE,
    }
}

/// Charges them all, or none.
#[inline(never)]
#[unsafe(export_name = "settle_at_a_glance")]
extern "C" fn settle(service: u32) -> u32 {
    let Some(Scratch { pending: Pending { generation, charges, .. }, .. }) = scratch() else { return ADMITTED };
    let Some(scope) = scope(*generation, service) else { return ADMITTED };
    for index in 0..PACKET_LIMITS as u32 {
        if number(scope, index).is_none() {
            break;
        }
        if !settle_at_once(&mut charges[index as usize]) {
            take_back_before(index);
            return ELSEWHERE;
        }
    }
    count(service, PACKET_LIMITS as u32);
    ADMITTED
}

/// Takes the charges of limits before an index back.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn take_back_before(end: u32) -> u32 {
    let Some(Scratch { pending: Pending { charges, .. }, .. }) = scratch() else { return 0 };
    for index in 0..PACKET_LIMITS as u32 {
        if index >= end {
            break;
        }
        take_back(&charges[index as usize]);
    }
    0
}

/// Counts the limits before an index as having admitted, or as spared because that one refused.
#[inline(never)]
#[unsafe(export_name = "count_at_a_glance")]
extern "C" fn count(service: u32, end: u32) -> u32 {
    let Some(Scratch { pending: Pending { question, generation, charges, .. }, .. }) = scratch() else { return 0 };
    let Some(scope) = scope(*generation, service) else { return 0 };
    for index in 0..PACKET_LIMITS as u32 {
        let Some(number) = number(scope, index) else { break };
        if index >= end & (SPARE - 1) {
            break;
        }
        let charge = &charges[index as usize];
        if charge.asked() {
            let spare = end & SPARE != 0;
            tally(number, charge, question, |tally| if spare { &mut tally.spared } else { &mut tally.admitted });
        }
    }
    0
}

/// The number of the limit on a rate at an index.
#[inline(always)]
fn number(scope: &Scope, index: u32) -> Option<u32> {
    if index < u32::from(scope.count) { Some(u32::from(scope.limits[index as usize])) } else { None }
}
