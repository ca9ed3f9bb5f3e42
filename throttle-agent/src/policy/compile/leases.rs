//! Which limits have buckets that CPUs take ahead, and how much at once: see [`throttle_common::lease`].

use crate::policy::document::Document;
use std::collections::HashSet;
use throttle_common::{
    gcra::Ticks,
    lease,
    records::Terms,
    words::{Per, Unit},
};

/// Which of a document's limits are leased.
pub(super) struct Leases<'d> {
    document: &'d Document,
    /// In which units something is guaranteed.
    guaranteed: HashSet<Unit>,
    cpus: u32,
}

impl<'d> Leases<'d> {
    /// Those of a document for so many CPUs.
    pub(super) fn of(document: &'d Document, cpus: u32) -> Self {
        let guarantees = document.limits.iter().filter(|limit| limit.guarantees());
        Self { document, guaranteed: guarantees.map(|limit| limit.unit).collect(), cpus }
    }

    /// How much a CPU takes at once of a limit's buckets; 0 where every packet is charged by itself.
    ///
    /// That is so of limits per source, whose packets mostly come by one queue; of windows, which are no spans of a clock
    /// that flows; and where guarantees are given in its unit, or overrides say that not all buckets are alike.
    pub(super) fn batch(&self, index: usize, terms: Terms) -> Ticks {
        let limit = &self.document.limits[index];
        let flows = limit.rate.is_some() && !limit.algorithm.is_windowed();
        let alike = limit.overrides.is_empty() && !self.guaranteed.contains(&limit.unit);
        if limit.per == Per::Source || !flows || !alike {
            return 0;
        }
        let units = if limit.unit == Unit::Bytes { lease::MEAN_FRAME } else { 1 };
        lease::batch(terms.price.cost(units), terms.depth, self.cpus)
    }
}
