//! Limits whose buckets CPUs take ahead ([`throttle_common::lease`]): most packets are charged to their CPU's lease, and
//! touch nothing that other CPUs write. A packet that finds no lease goes the way of all others, and takes one where the
//! bucket has room for it.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use throttle_common::{
    lease::{self, Holding},
    limits::{Charge, Clock as _, Question, Table as _},
    records::{Lease, Limit},
};

use super::bucket::{Maps, seen};
use crate::{clock::Clock, tables::LEASES};

/// Where this CPU has the lease of a bucket.
#[inline(always)]
fn place(holding: Holding) -> u32 {
    // SAFETY: no arguments, available to every program type.
    holding.slot(unsafe { bpf_get_smp_processor_id() })
}

/// The lease at a place.
#[inline(always)]
fn at(place: u32) -> Option<&'static mut Lease> {
    // SAFETY: an element of the map that is this CPU's alone, and nothing interrupts this program; the agent only reads.
    Some(unsafe { &mut *LEASES.get_ptr_mut(place)? })
}

/// Looks whether this CPU's lease is enough for the packet, and notes in `charge` what that would take.
#[inline(always)]
pub fn look(epoch: u32, limit: &Limit, question: &Question, clock: &mut Clock, charge: &mut Charge) -> bool {
    charge.clear();
    let Some(units) = question.units(limit) else { return false };
    let holding = Holding::of(epoch, limit, question.tenant());
    charge.place = place(holding);
    let Some(lease) = at(charge.place).filter(|lease| lease.holding == holding.word()) else { return false };
    charge.cost = limit.price.cost(units);
    let Some(next) = lease.after(clock.reads(limit.clock), charge.cost) else { return false };
    charge.key = holding.word();
    charge.aim(Charge::LEASED, 0, next);
    true
}

/// The lease that a packet is charged to, unless another limit of the packet has taken its place since: then its span was
/// paid, and nobody has the rest of it.
#[inline(always)]
fn charged(charge: &Charge) -> Option<&'static mut Lease> {
    at(charge.place).filter(|lease| lease.holding == charge.key)
}

/// Charges a packet to the lease that was enough when it was looked at.
#[inline(always)]
pub fn spend(charge: &Charge) {
    if let Some(lease) = charged(charge) {
        lease.next = charge.seen;
    }
}

/// Takes another lease from the bucket that was weighed, with the packet's charge. `false` where there is none to be had:
/// then nothing was charged, and the packet is to be charged by itself.
#[inline(always)]
pub fn renew(epoch: u32, limit: &Limit, question: &Question, charge: &mut Charge) -> bool {
    let holding = Holding::of(epoch, limit, question.tenant());
    let place = place(holding);
    let Some(lease) = at(place).filter(|lease| holding.may_replace(lease, charge.now)) else { return false };
    let (Some(set), Some(seen)) = (Maps.set(charge.place), seen(charge)) else { return false };
    let request = question.request(charge, limit);
    let Some((renewed, cost)) = lease::renew(&set, &request, seen, (lease, holding), limit.batch) else { return false };
    *lease = renewed;
    (charge.key, charge.place, charge.cost) = (holding.word(), place, cost);
    charge.aim(Charge::LEASED, 0, renewed.next);
    true
}

/// Takes a charge back. What the packet had of an earlier lease is lost, which is less than its cost.
#[inline(always)]
pub fn take_back(charge: &Charge) {
    if let Some(lease) = charged(charge) {
        lease.next = lease.next.wrapping_sub(charge.cost);
    }
}
