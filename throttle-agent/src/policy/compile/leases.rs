//! Which limits have buckets that CPUs take ahead, and how much at once: see [`throttle_common::lease`].

use crate::policy::document::{Document, Limit};
use throttle_common::{
    gcra::Ticks,
    lease,
    records::Terms,
    words::{Per, Unit},
};

/// How much a CPU takes at once of a limit's buckets; 0 where every packet is charged by itself.
///
/// That is so of limits per source, whose packets mostly come by one queue; of windows, which are no spans of a clock that
/// flows; and where guarantees are given in its unit, or overrides say that not all buckets are alike.
pub(super) fn batch(document: &Document, index: usize, terms: Terms, cpus: u32) -> Ticks {
    let limit = &document.limits[index];
    let guaranteed = |it: &Limit| it.unit == limit.unit && it.guarantees();
    let flows = limit.rate.is_some() && !limit.algorithm.is_windowed();
    let alike = limit.overrides.is_empty() && !document.limits.iter().any(guaranteed);
    if limit.per == Per::Source || !flows || !alike {
        return 0;
    }
    let units = if limit.unit == Unit::Bytes { lease::MEAN_FRAME } else { 1 };
    lease::batch(terms.price.cost(units), terms.depth, cpus)
}
