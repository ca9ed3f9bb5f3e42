//! The limits of a packet: all are weighed before any is charged, so that a refusal by one costs the others nothing.
//!
//! A packet with one limit keeps everything in registers ([`one`]); with several, what each is to be charged waits in
//! the per-CPU scratch map ([`several`]). [`bucket`] is where a limit meets the table.

mod bucket;

use throttle_common::{
    records::{Hold, Limit, LimitTally, MAX_LIMITS, MAX_SERVICES, NONE, SCOPE_LIMITS, Scope, Tally},
    words::{Action, Outcome, Reason},
};

use self::bucket::{Charge, settle, take_back, weigh};
pub use self::bucket::{Question, give_back};
use crate::{
    account::count,
    clock::Clock,
    connections,
    tables::{InForce, LIMIT_TALLIES, LIMITS, POLICIES, SERVICES, Scratch, scratch},
    verdict::Verdict,
};

/// Applies the limits of `scope`, which is that of `service`.
#[inline(always)]
pub fn judge(in_force: &InForce, (service, scope): (u16, &Scope), question: &Question, clock: &mut Clock) -> Verdict {
    let mut verdict = Verdict::pass(Reason::Admitted);
    if scope.count > 0 {
        if scope.count == 1 {
            one(in_force, scope.limits[0], question, clock, &mut verdict);
        } else if let Some(Scratch { pending, .. }) = scratch() {
            pending.question = *question;
            pending.now = clock.nanos();
            pending.generation = in_force.generation;
            verdict = verdict_of(several(u32::from(service)));
        }
    }
    if question.completes() && matches!(verdict.outcome, Outcome::Pass | Outcome::Observe) {
        connections::enter(clock.nanos());
    }
    verdict.service = service;
    verdict
}

#[inline(always)]
fn one(in_force: &InForce, number: u16, question: &Question, clock: &mut Clock, verdict: &mut Verdict) {
    let generation = in_force.generation;
    let Some(limit) = find(generation, u32::from(number)) else { return };
    let mut charge = Charge::NOTHING;
    let refusal = match weigh(limit, question, clock, &mut charge) {
        None => settle(limit, question, clock, &mut charge),
        refusal => refusal,
    };
    match refusal {
        Some(reason) => {
            let outcome = refuse(generation, limit, u32::from(number), &charge, question);
            *verdict = Verdict { outcome, limit: number, ..Verdict::pass(reason) };
        }
        None if charge.asked() => {
            hold(limit, u32::from(number), &charge, question);
            tally(u32::from(number), &charge, question, |tally| &mut tally.admitted);
        }
        None => {}
    }
}

/// Weighs every limit of a service (or, for [`NONE`], of the host), then charges them in the same order, then counts.
/// Gives the answer of the limit that names the verdict, and in its upper half that limit's number.
///
/// A limit that only observes takes no part in the charging when it would have refused, and the packet goes on; the
/// first such limit names the verdict. A global function like [`ask`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn several(service: u32) -> u32 {
    let Some(Scratch { pending, .. }) = scratch() else { return ADMITTED };
    let scope = if service == u32::from(NONE) {
        let Some(policy) = POLICIES.get(pending.generation) else { return ADMITTED };
        &policy.scope
    } else {
        let Some(service) = SERVICES.get(pending.generation * MAX_SERVICES + service) else { return ADMITTED };
        &service.scope
    };
    let mut first = ADMITTED;
    for phase in [WEIGH, SETTLE] {
        for index in 0..SCOPE_LIMITS as u32 {
            if index >= u32::from(scope.count) {
                break;
            }
            let number = u32::from(scope.limits[index as usize]);
            let answer = ask(phase | index, number);
            if answer & STOP != 0 {
                // Who was asked: those before this one, and in the second round also those behind it, uncharged.
                let asked = if phase == SETTLE { u32::from(scope.count) } else { index };
                for spared in 0..SCOPE_LIMITS as u32 {
                    if spared >= asked {
                        break;
                    }
                    let charged = if spared < index { phase } else { WEIGH };
                    conclude(SPARE | charged | spared, u32::from(scope.limits[spared as usize]));
                }
                return answer | number << 16;
            }
            if first == ADMITTED && answer != ADMITTED {
                first = answer | number << 16;
            }
        }
    }
    for index in 0..SCOPE_LIMITS as u32 {
        if index >= u32::from(scope.count) {
            break;
        }
        conclude(index, u32::from(scope.limits[index as usize]));
    }
    first
}

/// What a packet with several limits keeps between their steps.
#[repr(C)]
pub struct Pending {
    question: Question,
    now: u64,
    generation: u32,
    charges: [Charge; SCOPE_LIMITS],
}

// What `ask` and `conclude` are told, besides the place of the limit in its scope.
const WEIGH: u32 = 0;
const SETTLE: u32 = 0x10;
const SPARE: u32 = 0x20;
// What `ask` answers.
const ADMITTED: u32 = 0;
const REFUSED: u32 = 1;
const OVERFLOWED: u32 = 2;
const OBSERVED: u32 = 4;
const REJECTED: u32 = 8;
const STOP: u32 = 16;
const CROWDED: u32 = 32;

/// Weighs or charges one limit of several.
///
/// A global function, which the verifier checks once and by itself; a static one it would follow anew on every path
/// that leads here, and the paths of eight limits multiply beyond its bounds. Such a function takes plain numbers only.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ask(step: u32, number: u32) -> u32 {
    let Some(Scratch { pending: Pending { question, now, generation, charges }, .. }) = scratch() else {
        return ADMITTED;
    };
    let charge = &mut charges[step as usize % SCOPE_LIMITS];
    let Some(limit) = find(*generation, number) else { return ADMITTED };
    let clock = &mut Clock::at(*now);
    let refusal = if step & SETTLE == 0 {
        charge.clear();
        weigh(limit, question, clock, charge)
    } else {
        settle(limit, question, clock, charge)
    };
    let Some(reason) = refusal else { return ADMITTED };
    let outcome = refuse(*generation, limit, number, charge, question);
    charge.clear();
    REFUSED
        | match reason {
            Reason::SourceOverflow => OVERFLOWED,
            Reason::ConnectionLimit => CROWDED,
            _ => 0,
        }
        | match outcome {
            Outcome::Observe => OBSERVED,
            Outcome::Reject => REJECTED,
            _ => 0,
        }
        | if limit.observe == 0 { STOP } else { 0 }
}

/// Counts one limit of several as having admitted, or as spared because another refused. A global function, as above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn conclude(step: u32, number: u32) -> u32 {
    let Some(Scratch { pending: Pending { question, generation, charges, .. }, .. }) = scratch() else { return 0 };
    let charge = &charges[step as usize % SCOPE_LIMITS];
    if charge.asked() {
        let spare = step & SPARE != 0;
        if spare && step & SETTLE != 0 {
            take_back(charge);
        }
        if !spare && let Some(limit) = find(*generation, number) {
            hold(limit, number, charge, question);
        }
        tally(number, charge, question, |tally| if spare { &mut tally.spared } else { &mut tally.admitted });
    }
    0
}

/// Takes a place for a connection that is open, whether or not the limit allows it.
#[inline(always)]
pub fn count_open(limit: &Limit, number: u32, question: &Question) -> Option<Hold> {
    let (mut charge, clock) = (Charge::NOTHING, &mut Clock::unread());
    let refused = weigh(limit, question, clock, &mut charge).or_else(|| settle(limit, question, clock, &mut charge));
    if refused.is_some() { None } else { charge.hold(number) }
}

/// Notes the place that a connection takes.
#[inline(always)]
fn hold(limit: &Limit, number: u32, charge: &Charge, question: &Question) {
    if question.completes()
        && limit.is_concurrency()
        && let (Some(hold), Some(Scratch { entering, .. })) = (charge.hold(number), scratch())
    {
        entering.hold(hold);
    }
}

#[inline(always)]
fn verdict_of(answer: u32) -> Verdict {
    if answer == ADMITTED {
        return Verdict::pass(Reason::Admitted);
    }
    let reason = if answer & OVERFLOWED != 0 {
        Reason::SourceOverflow
    } else if answer & CROWDED != 0 {
        Reason::ConnectionLimit
    } else {
        Reason::SourceLimit
    };
    let outcome = if answer & OBSERVED != 0 {
        Outcome::Observe
    } else if answer & REJECTED != 0 {
        Outcome::Reject
    } else {
        Outcome::Drop
    };
    Verdict { outcome, limit: (answer >> 16) as u16, ..Verdict::pass(reason) }
}

#[inline(always)]
pub fn find(generation: u32, number: u32) -> Option<&'static Limit> {
    LIMITS.get(generation * MAX_LIMITS + number)
}

/// Counts a refusal and says what becomes of it.
#[inline(always)]
fn refuse(generation: u32, limit: &Limit, number: u32, charge: &Charge, question: &Question) -> Outcome {
    let observed = limit.observe != 0 || POLICIES.get(generation).is_some_and(|policy| policy.observe != 0);
    tally(number, charge, question, |tally| if observed { &mut tally.observed } else { &mut tally.refused });
    if observed {
        Outcome::Observe
    } else if limit.action == Action::Reject as u8 {
        Outcome::Reject
    } else {
        Outcome::Drop
    }
}

#[inline(always)]
fn tally(number: u32, charge: &Charge, question: &Question, of: impl FnOnce(&mut LimitTally) -> &mut Tally) {
    if let Some(tally) = LIMIT_TALLIES.get_ptr_mut(number) {
        // SAFETY: this CPU's own element, and nothing interrupts this program.
        let tally = unsafe { &mut *tally };
        if charge.overflowed() {
            count(&mut tally.overflowed, question.length);
        }
        count(of(tally), question.length);
    }
}
