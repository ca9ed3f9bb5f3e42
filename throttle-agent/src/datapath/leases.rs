//! What CPUs have taken ahead of buckets: see [`throttle_common::lease`]. Only packets write there; this reads.

use throttle_common::{
    gcra::Ticks,
    lease::Holding,
    records::{Lease, Limit},
};

use super::Datapath;

impl Datapath {
    /// What all CPUs together hold of a tenant's bucket of a limit, or of its only one: that much of what the bucket owes is
    /// of packets that are still to come.
    pub(super) fn leased(&self, limit: &Limit, tenant: u16) -> Ticks {
        if !limit.is_leased() {
            return 0;
        }
        let (holding, now) = (Holding::of(self.tables.epoch(), limit, tenant), self.reads(limit));
        let leases = (0..self.tables.cpus()).map(|cpu| self.tables.leases.get(holding.slot(cpu)));
        leases.filter(|lease| lease.holding == holding.word()).map(|lease| left(&lease, limit, now)).sum()
    }
}

/// What is left of a lease. Its words are read one by one while its CPU may be writing them, but no lease holds more than this.
fn left(lease: &Lease, limit: &Limit, now: Ticks) -> Ticks {
    lease.left(now).min(limit.batch)
}
