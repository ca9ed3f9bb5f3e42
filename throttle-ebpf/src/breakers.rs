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

/// The verdict on the packet, which lies in the scratch space, where a breaker keeps it away: that of its service, or of the
/// backend that it is for. Notes which of them admit it as a trial.
#[inline(always)]
pub fn refusal(in_force: &InForce, packet: &Packet, clock: &Clock) -> Option<Verdict> {
    if in_force.policy.has_breakers == 0 || !packet.opens_connection() {
        return None;
    }
    let answer = weigh_breakers(in_force.epoch, clock.known());
    if answer & REFUSE == 0 { None } else { Some(refuse(in_force.policy, (answer >> SERVICE) as u16)) }
}

/// Refuses a connection: with a reset, where an answer is due.
#[inline(always)]
pub fn refuse(policy: &Policy, service: u16) -> Verdict {
    let outcome = if policy.observe == 0 { Outcome::Reject } else { Outcome::Observe };
    Verdict { outcome, service, ..Verdict::pass(Reason::BreakerOpen) }
}

/// Takes the trials that were found; `false` where others have taken the last of them since. `now` is 0 where the clock has
/// not been read.
#[inline(always)]
pub fn take_trials(trials: &[u16; 2], now: u64) -> bool {
    let mut index = 0;
    while index < trials.len() {
        if trials[index] != NONE && !take_trial(trials[index], Clock::at(now).nanos()) {
            return false;
        }
        index += 1;
    }
    true
}

// What the functions below answer.
const PASS: u32 = 0;
const TRIAL: u32 = 1;
const REFUSE: u32 = 2;
/// Above these, the number of the service.
const SERVICE: u32 = 16;

/// Whether no breaker has anything to say.
#[inline(always)]
pub fn all_are_closed() -> bool {
    // SAFETY: an element of the map, aligned to 8.
    BREAKERS.get_ptr(NONE.into()).is_none_or(|broken| unsafe { atomic::load(&raw const (*broken).word) } == 0)
}

/// A global function, which the verifier checks once and by itself.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weigh_breakers(epoch: u32, now: u64) -> u32 {
    let (Some(in_force), Some(scratch)) = (InForce::of(epoch), scratch()) else { return PASS };
    scratch.trials = [NONE; 2];
    if all_are_closed() {
        return PASS;
    }
    let now = Clock::at(now).nanos();
    let packet = &scratch.packet;
    let Backend { address, port, family, protocol, padding } = &mut scratch.backend;
    (*address, *port, *family) = (packet.destination, packet.destination_port, packet.family as u8);
    (*protocol, *padding) = (protocol::TCP, [0; 4]);
    let service = u32::from(services::classify(&in_force, packet).0);
    let numbers = [services::breaker(in_force.generation, service), number_of(&scratch.backend)];
    let mut answer = PASS;
    for (number, trial) in numbers.into_iter().zip(&mut scratch.trials) {
        match admit(number, now) {
            PASS => {}
            TRIAL => {
                *trial = number;
                answer = TRIAL;
            }
            _ => return REFUSE | service << SERVICE,
        }
    }
    answer
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
