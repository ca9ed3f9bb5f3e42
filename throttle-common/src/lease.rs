//! Leases: many CPUs charge one bucket without meeting in its cache line at every packet.
//!
//! A charge is a span of the bucket's clock ([`crate::gcra`]): it begins at the TAT or now, whichever is later, ends at the
//! new TAT, and no other charge has any of it. A lease is such a span that a CPU takes ahead, with one charge, and gives to
//! its own packets piece by piece. A piece never begins before its packet comes: what of the span the clock has passed by
//! then is gone. So a packet on lease has what one has that is charged by itself, a span of its own within `depth` from now,
//! and over any window W all CPUs together admit at most `depth + W` worth of cost, as one alone does.
//!
//! A lease lapses as its span passes, and with it the bucket fills: what a CPU leaves unused comes back by itself, at the
//! latest when the bucket is full. Nobody gives it back, so nobody but its CPU touches a lease, and that without atomics.
//! All leases of a bucket hold no more than a [`PART`]th of its depth, which bounds what silent CPUs keep from others. Where a
//! bucket has no room for a batch, packets are charged by themselves: a lease never decides whether one is admitted.
//!
//! All spans are on the limit's clock. Where that runs slower, leases last longer, and are for as many packets.

use crate::{
    gcra::{self, TICKS_PER_NANO, Ticks},
    records::{Limit, NONE},
    table::{Check, Request, Set, attempt},
    words::Per,
};

/// The largest batch: what the rate allows in 50 us of the limit's clock. A CPU that takes all of the rate then meets the
/// bucket 20 000 times a second, whatever the rate.
pub const BATCH: Ticks = 50_000 * TICKS_PER_NANO;

/// What all CPUs may hold of a bucket: one part in so many of its depth, which is below 1 %.
pub const PART: u64 = 128;

/// The cost of one packet above which a limit has no leases: that of 100 000 a second. Slower ones are charged seldom enough.
pub const DEAREST: Ticks = 10_000 * TICKS_PER_NANO;

/// Packets below which a batch is not worth taking.
pub const FEWEST: u64 = 4;

/// Bytes that stand for one packet where a limit counts bytes.
pub const MEAN_FRAME: u32 = 512;

/// Leases that each CPU may have at once: a power of two.
pub const SLOTS: u32 = 1024;

/// How much of a bucket a CPU takes at once, where so many share it and a packet costs so much; 0 where each packet is
/// charged by itself.
pub const fn batch(packet: Ticks, depth: Ticks, cpus: u32) -> Ticks {
    let Some(share) = depth.checked_div(PART * cpus as u64) else { return 0 };
    let batch = if share < BATCH { share } else { BATCH };
    if packet > DEAREST || batch < FEWEST * packet { 0 } else { batch & !1 }
}

/// What a CPU holds of a bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// The bucket, and the policy under which it was taken: see [`Holding`].
    pub holding: u64,
    /// Where the next piece begins, if that is not past.
    pub next: Ticks,
    /// Where the span ends.
    pub end: Ticks,
    /// Zero: two leases make a cache line.
    pub padding: u64,
}

impl Lease {
    /// How much is left of it.
    #[inline(always)]
    pub const fn left(&self, now: Ticks) -> Ticks {
        gcra::debt(self.end, now).saturating_sub(gcra::debt(self.next, now))
    }

    /// Where the piece after the next one begins, if that may cost so much.
    #[inline(always)]
    pub const fn after(&self, now: Ticks, cost: Ticks) -> Option<Ticks> {
        let owed = gcra::debt(self.next, now) + cost;
        if owed > gcra::debt(self.end, now) { None } else { Some(now.wrapping_add(owed)) }
    }
}

/// Which bucket a lease is of. One that was taken under another policy is none: prices and depths were others then, and what
/// buckets owe may have been expressed anew since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// How many policies have been in force.
    pub epoch: u32,
    /// The limit's number.
    pub limit: u16,
    /// The number of the tenant whose bucket it is, [`crate::records::NONE`] where the limit has one bucket.
    pub tenant: u16,
}

impl Holding {
    /// That of the bucket which a limit charges for the packets of a tenant.
    #[inline(always)]
    pub const fn of(epoch: u32, limit: &Limit, tenant: u16) -> Self {
        Self { epoch, limit: limit.number, tenant: if limit.per == Per::Tenant as u8 { tenant } else { NONE } }
    }

    /// As it stands in the lease.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        (self.epoch as u64) << 32 | (self.limit as u64) << 16 | self.tenant as u64
    }

    /// Where a CPU has the lease. Buckets that meet there take turns: see [`Holding::may_replace`].
    #[inline(always)]
    pub const fn slot(self, cpu: u32) -> u32 {
        // An odd number, so that tenants have places of their own as long as there are any.
        cpu * SLOTS + (self.limit as u32 + self.tenant as u32 * 7) % SLOTS
    }

    /// Whether a lease may go that lies where this one would: it is of this bucket, of a past policy, or used up.
    #[inline(always)]
    pub const fn may_replace(self, lease: &Lease, now: Ticks) -> bool {
        lease.holding == self.word() || (lease.holding >> 32) as u32 != self.epoch || lease.left(now) == 0
    }
}

/// Takes another lease for a packet that the one in its place is not enough for, and gives it with what of that is already
/// the packet's.
///
/// The packet takes what is left of its own lease first, so that nothing is lost between two. `seen` is what was seen of the
/// bucket, which had room for the packet. `None`, with nothing changed, where it has none for the batch as well, or others
/// were faster: then the packet is to be charged by itself.
#[inline(always)]
pub fn renew<S: Set>(
    set: &S,
    request: &Request,
    seen: Check,
    (held, holding): (&Lease, Holding),
    batch: Ticks,
) -> Option<(Lease, Ticks)> {
    // Who takes a slot over pays for itself alone: of CPUs that do so at once, each may have its own.
    let Check::Held { seen: tat, .. } = seen else { return None };
    let left = if held.holding == holding.word() { held.left(request.now) } else { 0 };
    let wanted = request.cost.saturating_sub(left);
    let both = Request { cost: wanted + batch, ..*request };
    gcra::admit(tat, both.now, both.cost, both.depth)?;
    attempt(set, &both, seen)?;
    let begin = both.now.wrapping_add(gcra::debt(tat, both.now));
    let (next, end) = (begin.wrapping_add(wanted), begin.wrapping_add(both.cost));
    Some((Lease { holding: holding.word(), next, end, padding: 0 }, wanted))
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
