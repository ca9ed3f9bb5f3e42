//! Making a compiled policy the one in force.
//!
//! The spare generation is written, one store flips to it, and after a grace period (see [`super::grace`]) no packet is
//! under the old one any more: only then may it be written again, and what it freed be cleared. Everything is checked
//! before anything is written, and the writes themselves go to our own memory, so that what was begun ends.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use throttle_common::{
    gcra::{self, Ticks},
    records::{Policy, Service},
    table,
};

use super::{
    Datapath,
    regions::{self, Reprice, Scale},
    tables::clear,
};
use crate::policy::{Compiled, HeldLimit, Layout};

/// How often a debt is expressed anew when packets keep changing it meanwhile.
const TRIES: usize = 64;
const FIT: &str = "the compiled policy does not fit what the kernel holds";

impl Datapath {
    /// What the kernel holds now, which the next policy must respect.
    pub fn layout(&self) -> Layout {
        Layout { sets: self.tables.control().sets, limits: self.limits() }
    }

    /// The head of the policy in force.
    pub fn policy(&self) -> Policy {
        self.tables.policy()
    }

    /// The limits in force, by number, as the kernel has them.
    pub fn limits(&self) -> Vec<HeldLimit> {
        self.tables.limits()
    }

    /// The services in force, by number, as the kernel has them.
    pub fn services(&self) -> Vec<(u16, Service)> {
        self.tables.services()
    }

    /// Puts a policy in force. Buckets of limits that stay are kept; where the price of a limit changed, every bucket
    /// goes on owing for as many units as before. On an error nothing has changed.
    pub fn apply(&mut self, policy: &Compiled) -> Result<()> {
        regions::check(policy, self.tables.control().sets).context(FIT)?;
        let plan = regions::plan(&self.limits(), &policy.limits).context(FIT)?;
        for &number in &plan.renamed {
            self.tallies.reset_limit(number)?;
        }
        self.tables.write_spare(policy);
        self.tables.flip();
        for repriced in &plan.repriced {
            self.reprice(repriced);
        }
        self.grace.wait().context("cannot wait for the packets under the old policy")?;
        for region in &plan.freed {
            clear(&self.tables, region.base, region.sets)?;
        }
        Ok(())
    }

    /// Expresses the debts of a region anew. Right after the flip: what is charged at the new price before its slot is
    /// visited is scaled too, which touches only the packets of the milliseconds that the visit takes. The clock is read
    /// every few microseconds, because the time since a reading counts as debt.
    fn reprice(&self, Reprice { region, scale }: &Reprice) {
        const BETWEEN_READINGS: usize = 256;
        let scale_all = |all: &[AtomicU64], words: usize| {
            for chunk in all.chunks(BETWEEN_READINGS) {
                let now = gcra::ticks(self.now());
                chunk.iter().skip(words - 1).step_by(words).for_each(|tat| rescale(tat, now, scale));
            }
        };
        // Of a slot's two words the second is the bucket.
        scale_all(self.tables.buckets.run(region.base, region.sets), 2);
        scale_all(self.tables.aggregates.run(region.base, region.sets), 1);
    }

    /// After an agent died within [`Datapath::apply`]: waits for what may still be under the spare generation and
    /// clears what belongs to no limit.
    pub(super) fn recover(&self) -> Result<()> {
        self.grace.wait().context("cannot wait for the packets under an old policy")?;
        for (first, count) in regions::unused(&self.limits(), self.tables.control().sets) {
            clear(&self.tables, first, count)?;
        }
        Ok(())
    }
}

fn rescale(tat: &AtomicU64, now: Ticks, scale: &Scale) {
    for _ in 0..TRIES {
        let seen = tat.load(Ordering::Relaxed);
        let debt = if table::is_lock(seen) { 0 } else { gcra::debt(seen, now) };
        let next = now.wrapping_add(scale.debt(debt));
        if debt == 0 || tat.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}
