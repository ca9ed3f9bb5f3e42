//! The limits of a packet: all are weighed before any is charged, so that a refusal by one costs the others nothing.
//!
//! A packet with one limit keeps everything in registers ([`one`]); with several, what each is to be charged waits in
//! the per-CPU scratch map ([`glance`], [`several`]). [`bucket`] is where a limit meets the table, [`lease`] where it need
//! not. Limits on open connections are asked first ([`crate::connections`]): what they refuse is charged to nobody.

mod bucket;
mod glance;
mod lease;

use aya_ebpf::programs::XdpContext;
use throttle_common::{
    guarantees::Guaranteed,
    limits::{self, Charge, FLOWING, Question, SLIDING, STEPPING, outcome, overflow, seek, weigh_at},
    packet::Packet,
    records::{Limit, LimitTally, MAX_LIMITS, MAX_SERVICES, NONE, SCOPE_LIMITS, Scope, SourceEntry, Tally},
    table::{Check, Commit},
    words::{Outcome, Reason},
};

pub use self::bucket::{MapSet, Maps};
use self::bucket::{settle, settle_shared, settle_sliding, take_back};
use crate::{
    account::count,
    clock::Clock,
    connections,
    tables::{InForce, LIMIT_TALLIES, LIMITS, POLICIES, SERVICES, Scratch, scratch},
    verdict::Verdict,
};

/// Applies the limits of `scope`, which is that of `service`, to the packet, which lies in the scratch space.
#[inline(always)]
pub fn judge(
    ctx: &XdpContext,
    in_force: &InForce,
    (service, scope): (u16, &Scope),
    (packet, length): (&Packet, u32),
    entry: Option<&SourceEntry>,
    clock: &mut Clock,
) -> Verdict {
    let mut verdict = Verdict::pass(Reason::Admitted);
    if scope.count + scope.concurrent > 0 {
        let question = Question::about(packet, length, entry, in_force.generation, in_force.control.secret);
        let alone = scope.count == 1 && scope.concurrent | scope.windows == 0;
        let judged = alone && one(in_force, scope.limits[0], &question, clock, &mut verdict);
        if !judged && let Some(Scratch { pending, .. }) = scratch() {
            pending.question = question;
            pending.now = clock.nanos();
            (pending.generation, pending.epoch) = (in_force.generation, in_force.epoch);
            verdict = verdict_of(all(ctx, u32::from(service), scope));
        }
    }
    verdict.service = service;
    verdict
}

/// Applies what the limits say, one function after the other and not within the other: the stack has no room for all.
/// Answers as [`several`] does.
#[inline(always)]
fn all(ctx: &XdpContext, service: u32, scope: &Scope) -> u32 {
    let crowded = if scope.concurrent == 0 { ADMITTED } else { connections::admit(ctx.ctx, service) };
    if crowded & STOP != 0 {
        return crowded;
    }
    let mut answer = ELSEWHERE;
    if scope.plain != 0 && crowded == ADMITTED {
        answer = glance::judge(service);
    }
    if answer == ELSEWHERE {
        answer = several(service, crowded);
    }
    if scope.concurrent != 0 {
        connections::conclude(service, u32::from(answer & STOP == 0));
    }
    answer
}

/// Judges a packet that has one limit; `false` where this CPU is to take of it ahead, or has taken too little: then nothing
/// was done, and it is for [`all`].
#[inline(always)]
fn one(in_force: &InForce, number: u16, question: &Question, clock: &mut Clock, verdict: &mut Verdict) -> bool {
    let generation = in_force.generation;
    let Some(limit) = find(generation, u32::from(number)) else { return true };
    let mut charge = Charge::NOTHING;
    let refusal = if limit.is_leased() {
        if !lease::look(in_force.epoch, limit, question, clock, &mut charge) {
            return false;
        }
        lease::spend(&charge);
        None
    } else {
        match weigh_at::<FLOWING, _, _>(limit, question, &Maps, clock, &mut charge) {
            None => settle::<FLOWING>(limit, question, &mut charge),
            refusal => refusal,
        }
    };
    match refusal {
        Some(reason) => {
            let outcome = refuse(generation, limit, u32::from(number), &charge, question);
            *verdict = Verdict { outcome, limit: number, ..Verdict::pass(reason) };
        }
        None if charge.asked() => tally(u32::from(number), &charge, question, |tally| &mut tally.admitted),
        None => {}
    }
    true
}

/// Weighs every limit of a service (or, for [`NONE`], of the host), then charges them in the same order, then counts.
/// `crowded` is what the limits on open connections have said.
/// Gives the answer of the limit that names the verdict, and in its upper half that limit's number.
///
/// A limit that only observes takes no part in the charging when it would have refused, and the packet goes on; the
/// first such limit names the verdict. A global function like [`ask`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn several(service: u32, crowded: u32) -> u32 {
    let Some(Scratch { pending, .. }) = scratch() else { return ADMITTED };
    let Some(scope) = scope(pending.generation, service) else { return ADMITTED };
    let mut first = crowded;
    for phase in [WEIGH, SETTLE] {
        for index in 0..SCOPE_LIMITS as u32 {
            if index >= u32::from(scope.count) {
                break;
            }
            let number = u32::from(scope.limits[index as usize]);
            let mut answer = if phase == SETTLE { charge(index, number) } else { ask(index, number) };
            if answer == ELSEWHERE {
                answer = if phase == SETTLE { charge_sliding(index, number) } else { ask_sliding(index, number) };
            }
            if answer == ELSEWHERE {
                answer = share_sliding(phase | index, number);
            }
            if answer & STOP != 0 {
                spare(service, phase | index);
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

/// Counts as spared who was asked before the limit at an index refused: those before it, and in the second round also
/// those behind it, uncharged. A global function, because beside [`several`] the stack has no room for it: Linux 6.1 counts
/// each function's part of the stack in steps of 32 bytes, and has 512 for all that call each other.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn spare(service: u32, refusal: u32) -> u32 {
    let Some(Scratch { pending, .. }) = scratch() else { return 0 };
    let Some(scope) = scope(pending.generation, service) else { return 0 };
    let (phase, index) = (refusal & SETTLE, refusal & (SETTLE - 1));
    let asked = if phase == SETTLE { u32::from(scope.count) } else { index };
    for spared in 0..SCOPE_LIMITS as u32 {
        if spared >= asked {
            break;
        }
        let charged = if spared < index { phase } else { WEIGH };
        conclude(SPARE | charged | spared, u32::from(scope.limits[spared as usize]));
    }
    0
}

/// The limits of a service, or of the host.
#[inline(always)]
pub fn scope(generation: u32, service: u32) -> Option<&'static Scope> {
    if service == u32::from(NONE) {
        Some(&POLICIES.get(generation)?.scope)
    } else {
        Some(&SERVICES.get(generation * MAX_SERVICES + service)?.scope)
    }
}

/// What a packet with several limits keeps between their steps.
#[repr(C)]
pub struct Pending {
    /// What it asks of each.
    pub question: Question,
    /// When.
    pub now: u64,
    /// The policy that it meets.
    pub generation: u32,
    /// How many policies have been in force.
    pub epoch: u32,
    /// What each is to be charged, as in its scope.
    pub charges: [Charge; SCOPE_LIMITS],
}

// What `ask` and `conclude` are told, besides the place of the limit in its scope.
const WEIGH: u32 = 0;
const SETTLE: u32 = 0x10;
const SPARE: u32 = 0x20;
// What `ask` answers.
pub const ADMITTED: u32 = 0;
const REFUSED: u32 = 1;
const OBSERVED: u32 = 4;
const REJECTED: u32 = 8;
pub const STOP: u32 = 16;
/// Above these, the number of the reason.
const REASON: u32 = 8;
/// Nothing was done: it is for another function.
const ELSEWHERE: u32 = 64;

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
        Some(Commit::Exceeded) => exceeded(index, number),
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
    let outcome = refuse(generation, limit, number, charge, question);
    charge.clear();
    refused(reason, outcome) | if limit.observe == 0 { STOP } else { 0 }
}

/// A refusal as a number.
#[inline(always)]
pub fn refused(reason: Reason, outcome: Outcome) -> u32 {
    REFUSED
        | (reason as u32) << REASON
        | match outcome {
            Outcome::Observe => OBSERVED,
            Outcome::Reject => REJECTED,
            _ => 0,
        }
}

/// Counts one limit of several as having admitted, or as spared because another refused. A global function, as above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn conclude(step: u32, number: u32) -> u32 {
    let Some(Scratch { pending: Pending { question, charges, .. }, .. }) = scratch() else { return 0 };
    let charge = &charges[step as usize % SCOPE_LIMITS];
    if charge.asked() {
        let spare = step & SPARE != 0;
        if spare && step & SETTLE != 0 {
            take_back(charge);
        }
        tally(number, charge, question, |tally| if spare { &mut tally.spared } else { &mut tally.admitted });
    }
    0
}

#[inline(always)]
pub fn verdict_of(answer: u32) -> Verdict {
    if answer == ADMITTED {
        return Verdict::pass(Reason::Admitted);
    }
    let outcome = if answer & OBSERVED != 0 {
        Outcome::Observe
    } else if answer & REJECTED != 0 {
        Outcome::Reject
    } else {
        Outcome::Drop
    };
    Verdict {
        outcome,
        reason: (answer >> REASON) as u8,
        limit: (answer >> 16) as u16,
        ..Verdict::pass(Reason::Admitted)
    }
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
    outcome(limit, observed)
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
