//! A plain limit at a glance: there is a lease that is enough, a bucket, or a slot for one.
//!
//! That is so of nearly every packet, and leaves little to do. Where it is not, nothing has been done, and
//! [`super::several`] goes the long way.

use throttle_common::{
    limits::{Charge, Glance, glance},
    records::{Limit, SCOPE_LIMITS},
};

use super::{ADMITTED, ELSEWHERE, Maps, Pending, STOP, bucket::settle_at_once, find, lease, refuse, refused};
use crate::{
    clock::Clock,
    tables::{Scratch, scratch},
};

/// Weighs a limit for the packet in the scratch space: the one at `index` in its scope. [`ELSEWHERE`] where that takes more.
///
/// A global function, which the verifier checks once and by itself; so is [`settle`].
#[inline(never)]
#[unsafe(export_name = "weigh_at_a_glance")]
pub extern "C" fn weigh(index: u32, number: u32) -> u32 {
    let Some(Scratch { pending: Pending { question, now, generation, epoch, charges }, .. }) = scratch() else {
        return ADMITTED;
    };
    let charge = &mut charges[index as usize % SCOPE_LIMITS];
    let Some(limit) = find(*generation, number) else { return ELSEWHERE };
    if limit.is_leased() && lease::look(*epoch, limit, question, &mut Clock::at(*now), charge) {
        return ADMITTED;
    }
    match glance(limit, question, &Maps, &mut Clock::at(*now), charge) {
        Glance::Nothing | Glance::Room => ADMITTED,
        Glance::Exceeded if limit.observe == 0 => {
            let outcome = refuse(*generation, limit, number, (charge.overflowed(), question.length));
            charge.clear();
            refused(limit.refusal(), outcome) | STOP
        }
        Glance::Exceeded | Glance::Elsewhere => ELSEWHERE,
    }
}

/// Charges it. [`ELSEWHERE`] where its bucket has changed since, or a lease may be taken.
#[inline(never)]
#[unsafe(export_name = "settle_at_a_glance")]
pub extern "C" fn settle(index: u32, number: u32) -> u32 {
    let Some(Scratch { pending: Pending { generation, charges, .. }, .. }) = scratch() else { return ADMITTED };
    let charge = &mut charges[index as usize % SCOPE_LIMITS];
    if !charge.asked() {
        return ADMITTED;
    }
    if charge.kind == Charge::LEASED {
        lease::spend(charge);
        return ADMITTED;
    }
    let leased = find(*generation, number).is_some_and(Limit::is_leased);
    if !leased && settle_at_once(charge) { ADMITTED } else { ELSEWHERE }
}
