//! Breakers: a new connection is kept from a service or a backend that fails.
//!
//! They are asked before the limits, because a refusal by them costs the least; a trial is taken when all limits have let
//! the connection pass, so that every trial is one that the backend sees. Nothing is asked while every breaker is closed.

use throttle_common::{
    breakers::{Admission, Breaker, Taken, Word},
    packet::{Packet, protocol},
    records::{Backend, NONE, Policy},
    table::TRIES,
    words::{Outcome, Reason},
};

use crate::{
    atomic,
    clock::Clock,
    services,
    tables::{BACKENDS, BREAKERS, InForce, scratch},
    verdict::Verdict,
};

/// What the breakers say of the packet, which lies in the scratch space: those of its service, and of the backend that it
/// is for.
#[inline(always)]
pub fn judge(in_force: &InForce, service: u16, packet: &Packet, clock: &mut Clock) -> Admission {
    if in_force.policy.has_breakers == 0 || !packet.opens_connection() || all_are_closed() {
        return Admission::Pass;
    }
    match weigh_breakers(in_force.generation, u32::from(service), clock.nanos()) {
        PASS => Admission::Pass,
        TRIAL => Admission::Trial,
        _ => Admission::Refuse,
    }
}

/// Refuses a connection: with a reset, where an answer is due.
#[inline(always)]
pub fn refuse(policy: &Policy, service: u16) -> Verdict {
    let outcome = if policy.observe == 0 { Outcome::Reject } else { Outcome::Observe };
    Verdict { outcome, service, ..Verdict::pass(Reason::BreakerOpen) }
}

/// Takes the trials that [`judge`] has found; `false` where others have taken the last of them since.
#[inline(always)]
pub fn take_trials(clock: &mut Clock) -> bool {
    take_found_trials(clock.nanos()) != 0
}

// What the functions below answer.
const PASS: u32 = 0;
const TRIAL: u32 = 1;
const REFUSE: u32 = 2;

/// Whether no breaker has anything to say.
#[inline(always)]
pub fn all_are_closed() -> bool {
    // SAFETY: an element of the map, aligned to 8.
    BREAKERS.get_ptr(NONE.into()).is_none_or(|broken| unsafe { atomic::load(&raw const (*broken).word) } == 0)
}

/// A global function, which the verifier checks once and by itself; so is the other.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weigh_breakers(generation: u32, service: u32, now: u64) -> u32 {
    let Some(scratch) = scratch() else { return PASS };
    let packet = &scratch.packet;
    let Backend { address, port, family, protocol, padding } = &mut scratch.backend;
    (*address, *port, *family) = (packet.destination, packet.destination_port, packet.family as u8);
    (*protocol, *padding) = (protocol::TCP, [0; 4]);
    let numbers = [services::breaker(generation, service), number_of(&scratch.backend)];
    scratch.trials = [NONE; 2];
    let mut answer = PASS;
    for index in 0..2 {
        match admit(numbers[index], now) {
            PASS => {}
            TRIAL => {
                scratch.trials[index] = numbers[index];
                answer = TRIAL;
            }
            _ => return REFUSE,
        }
    }
    answer
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn take_found_trials(now: u64) -> u32 {
    let Some(scratch) = scratch() else { return 1 };
    for index in 0..2 {
        if !take_trial(scratch.trials[index], now) {
            return 0;
        }
    }
    1
}

/// The number of a backend's breaker.
#[inline(always)]
pub fn number_of(backend: &Backend) -> u16 {
    // SAFETY: numbers are only replaced whole by the agent.
    match unsafe { BACKENDS.get(backend) } {
        Some(number) => *number as u16,
        None => NONE,
    }
}

/// What a breaker says of a new connection, as a number.
#[inline(always)]
pub fn admit(number: u16, now: u64) -> u32 {
    if number == NONE {
        return PASS;
    }
    let Some((word, taken)) = read(number) else { return PASS };
    match word.admit(taken, now) {
        Admission::Pass => PASS,
        Admission::Trial => TRIAL,
        Admission::Refuse => REFUSE,
    }
}

/// Takes a trial of a breaker: `false` where none is left, or where it is lost to others for too long. Where it has closed
/// meanwhile, none is needed.
#[inline(always)]
pub fn take_trial(number: u16, now: u64) -> bool {
    if number == NONE {
        return true;
    }
    let Some(breaker) = BREAKERS.get_ptr_mut(number.into()) else { return true };
    for _ in 0..TRIES {
        let Some((word, taken)) = read(number) else { return true };
        match word.admit(taken, now) {
            Admission::Pass => return true,
            Admission::Refuse => return false,
            Admission::Trial => {}
        }
        // SAFETY: an element of the map, aligned to 8.
        if unsafe { atomic::swap(&raw mut (*breaker).taken, taken.word(), word.one_more(taken, now).word()) }.0 {
            return true;
        }
    }
    false
}

#[inline(always)]
fn read(number: u16) -> Option<(Word, Taken)> {
    let breaker: *const Breaker = BREAKERS.get_ptr(number.into())?;
    // SAFETY: an element of the map, aligned to 8.
    unsafe {
        Some((Word::of(atomic::load(&raw const (*breaker).word)), Taken::of(atomic::load(&raw const (*breaker).taken))))
    }
}
