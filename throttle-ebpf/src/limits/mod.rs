//! The limits of a packet: all are weighed before any is charged, so that a refusal by one costs the others nothing.
//!
//! A packet with one limit keeps everything in registers ([`one`]); with several, what each is to be charged waits in
//! the per-CPU scratch map ([`glance`], [`several`]). Whose first limit refuses is refused at once as long as that limit would
//! ([`refusal`]). [`bucket`] is where a limit meets the table, [`lease`] where it need not. Limits on open connections are
//! asked first ([`crate::connections`]): what they refuse is charged to nobody.

mod bucket;
mod glance;
mod lease;
mod refusal;
mod several;
mod wait;

use aya_ebpf::programs::XdpContext;
use throttle_common::{
    limits::{Charge, FLOWING, Question, outcome, weigh_at},
    packet::Packet,
    records::{Limit, LimitTally, MAX_LIMITS, MAX_SERVICES, NONE, SCOPE_LIMITS, Scope, SourceEntry, Tally},
    words::{Outcome, Reason},
};

use self::bucket::settle;
pub use self::{
    bucket::{MapSet, Maps},
    wait::weigh_wait,
};
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
        if let Some(refused) = refusal::known(in_force, (service, scope), (packet, length), clock) {
            return refused;
        }
        let question = Question::about(packet, length, entry, in_force.generation, in_force.control.secret);
        let alone = scope.count == 1 && scope.concurrent == 0 && scope.plain != 0;
        let judged = alone && one(in_force, scope.limits[0], &question, clock, &mut verdict);
        if !judged && let Some(Scratch { pending, .. }) = scratch() {
            pending.question = question;
            pending.now = clock.nanos();
            (pending.generation, pending.epoch) = (in_force.generation, in_force.epoch);
            verdict = verdict_of(all(ctx, u32::from(service), scope));
        }
        if refusal::is_worth_knowing(&verdict, scope) {
            refusal::remember(in_force.epoch, service.into(), verdict.limit.into());
        }
    }
    verdict.service = service;
    verdict
}

/// Applies what the limits say, one function after the other and not within the other: the stack has no room for all.
/// Answers as [`several::judge`] does.
#[inline(always)]
fn all(ctx: &XdpContext, service: u32, scope: &Scope) -> u32 {
    let crowded = if scope.concurrent == 0 { ADMITTED } else { connections::admit(ctx.ctx, service) };
    if crowded & STOP != 0 {
        return crowded;
    }
    let answer = several::judge(service, crowded);
    if scope.concurrent != 0 {
        connections::conclude(service, u32::from(answer & STOP == 0 || answer & OBSERVED != 0));
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
        if question.units(limit).is_none() || question.home(limit).is_none() {
            return true;
        }
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
            let outcome = refuse(generation, limit, u32::from(number), (charge.overflowed(), question.length));
            *verdict = Verdict { outcome, limit: number, ..Verdict::pass(reason) };
        }
        None if charge.asked() => {
            tally(u32::from(number), (charge.overflowed(), question.length), |tally| &mut tally.admitted);
        }
        None => {}
    }
    true
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

// What the functions of limits answer.
pub const ADMITTED: u32 = 0;
const REFUSED: u32 = 1;
const OBSERVED: u32 = 4;
const REJECTED: u32 = 8;
pub const STOP: u32 = 16;
/// Above these, the number of the reason.
const REASON: u32 = 8;
/// Nothing was done: it is for another function.
const ELSEWHERE: u32 = 64;

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
fn refuse(generation: u32, limit: &Limit, number: u32, frame: (bool, u32)) -> Outcome {
    let observed = limit.observe != 0 || POLICIES.get(generation).is_some_and(|policy| policy.observe != 0);
    tally(number, frame, |tally| if observed { &mut tally.observed } else { &mut tally.refused });
    outcome(limit, observed)
}

/// Counts a frame: whether its source has found no place, and its bytes.
#[inline(always)]
fn tally(number: u32, (overflowed, length): (bool, u32), of: impl FnOnce(&mut LimitTally) -> &mut Tally) {
    if let Some(tally) = LIMIT_TALLIES.get_ptr_mut(number) {
        // SAFETY: this CPU's own element, and nothing interrupts this program.
        let tally = unsafe { &mut *tally };
        if overflowed {
            count(&mut tally.overflowed, length);
        }
        count(of(tally), length);
    }
}
