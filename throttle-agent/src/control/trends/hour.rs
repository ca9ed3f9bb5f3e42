//! Who was in debt how often: what the busiest source of an hour used of its rate.

use std::collections::HashMap;

use super::Look;
use crate::datapath::Source;

/// An hour, in nanoseconds.
pub(super) const HOUR: u64 = 3_600 * 1_000_000_000;
/// Sources that are counted within an hour.
const COUNTED: usize = 256;

/// How often sources were found in debt within an hour. A bucket drains at the limit's rate, so the share of the time
/// for which it is in debt is the share of the rate that the source uses.
#[derive(Debug, Default)]
pub(super) struct Hour {
    began: u64,
    looks: u32,
    debtors: HashMap<Source, u32>,
    /// Whether a look could not name all: then who is busiest is not known.
    unnamed: bool,
}

impl Hour {
    pub(super) fn from(began: u64) -> Self {
        Self { began, ..Self::default() }
    }

    pub(super) fn is_over(&self, now: u64) -> bool {
        now - self.began >= HOUR
    }

    pub(super) fn add(&mut self, look: &Look) {
        self.looks += 1;
        for region in &look.regions {
            self.unnamed |= region.busy > region.most.len() as u64;
            for talker in &region.most {
                if self.debtors.len() < COUNTED || self.debtors.contains_key(&talker.source) {
                    *self.debtors.entry(talker.source).or_default() += 1;
                } else {
                    self.unnamed = true;
                }
            }
        }
    }

    /// The share of its rate that the busiest source used; `None` where that is not known.
    pub(super) fn busiest(&self) -> Option<f64> {
        let most = self.debtors.values().max().copied().unwrap_or_default();
        // One look more than there were: a source that no look found may still have used that much.
        (!self.unnamed && self.looks > 0).then(|| (f64::from(most) + 1.0) / f64::from(self.looks + 1))
    }
}
