//! Making a compiled policy the one in force.
//!
//! The spare generation is written, one store flips to it, and after a grace period (see [`super::grace`]) no packet is
//! under the old one any more: only then may it be written again, and what it freed be cleared. Everything that can
//! fail and matters to the caller comes before the flip. With the flip the policy is in force: what cannot be done
//! after it is owed, and settled before the next policy is written or when [`Datapath::settle`] is called.
//!
//! An agent that dies between the flip and the scaling of debts leaves them at their old price. The next one holds
//! every bucket to what its limit can owe ([`Datapath::recover`]): a source then waits no longer, and gains no more,
//! than one burst.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use anyhow::{Context, Result};
use throttle_common::{
    gcra,
    records::{Limit, Policy, Region, Service},
    table,
};

use super::{Datapath, bearable_sets, moving::Moved, regions, sources::Entries, tables::clear};
use crate::policy::{Compiled, HeldLimit, Layout, Tenants};

const FIT: &str = "the compiled policy does not fit what the kernel holds";
const UNSETTLED: &str =
    "nothing has changed, because the places of connections could not be put right under the policy before";

impl Datapath {
    /// What the kernel holds now, which the next policy must respect.
    pub fn layout(&self) -> Layout {
        Layout {
            sets: self.tables.control().sets,
            bearable: bearable_sets(),
            cpus: self.tables.cpus(),
            limits: self.limits(),
            tenants: Arc::clone(&self.tenants[self.tables.in_force() as usize]),
            clocks: self.clocks(),
        }
    }

    /// The head of the policy in force.
    pub fn policy(&self) -> Policy {
        self.tables.policy()
    }

    /// The name of a tenant in force.
    pub fn tenant(&self, number: u16) -> String {
        self.tables.tenant(number)
    }

    /// The numbers of tenants in force, by their names.
    pub fn tenants(&self) -> &Tenants {
        &self.tenants[self.tables.in_force() as usize]
    }

    /// The limits in force, by number, as the kernel has them.
    pub fn limits(&self) -> Vec<HeldLimit> {
        self.tables.limits()
    }

    /// The limit in force of that number.
    fn held(&self, number: u16) -> Option<Limit> {
        Some(self.tables.limit(number)).filter(|held| held.name[0] != 0)
    }

    /// The services in force, by number, as the kernel has them.
    pub fn services(&self) -> Vec<(u16, Service)> {
        self.tables.services()
    }

    /// Whether a policy differs from the one in force in nothing but how much its limits allow. Then going back to that one
    /// is a change of the same kind, by which no bucket is lost.
    pub fn only_reprices(&self, policy: &Compiled) -> bool {
        let only_repriced = |(number, next): &(u16, Limit)| {
            let Limit { price, depth, batch, overdraft_shift, .. } = *next;
            let repriced = |held: &Limit| Limit { price, depth, batch, overdraft_shift, ..*held };
            self.held(*number).is_some_and(|held| repriced(&held) == *next)
        };
        // What a service's limit allows all together says how much of it a health window leaves.
        let unpriced = |service: &Service| Service { connections: 0, ..*service };
        let in_force = self.policy();
        in_force == Policy { revision: in_force.revision, ..policy.policy }
            && self.limits().len() == policy.limits.len()
            && policy.limits.iter().all(only_repriced)
            && policy.overridden.is_empty()
            && policy.tenants == self.tenants[self.tables.in_force() as usize]
            && self.services().iter().map(|(_, it)| unpriced(it)).eq(policy.services.iter().map(unpriced))
    }

    /// Puts a policy in force. Buckets of limits that stay are kept; where the price of a limit changed, every bucket
    /// goes on owing for as many units as before. On an error nothing has changed.
    pub fn apply(&mut self, policy: &Compiled) -> Result<()> {
        regions::check(policy, self.tables.control().sets).context(FIT)?;
        let plan = regions::plan(&self.limits(), &policy.limits).context(FIT)?;
        self.settle_generation().context("the policy before is not wholly in force yet")?;
        if self.unsettled.load(Ordering::Relaxed) && policy.policy.counts_connections != 0 {
            self.settle_places().context(UNSETTLED)?;
        }
        self.overrides.write(1 - self.tables.in_force(), &policy.overridden).context("nothing has changed")?;
        for &number in &plan.renamed {
            self.tallies.reset_limit(number)?;
        }
        for &region in &plan.named {
            self.name_slots(region);
        }
        self.begin_measuring(&policy.services)?;
        self.begin_clocks(policy.services.iter().map(|service| service.clock));
        let moved = self.moved_by(policy);
        let spare = 1 - self.tables.in_force() as usize;
        self.tables.write_spare(policy, &self.tenants[spare]);
        self.tenants[spare] = Arc::clone(&policy.tenants);
        if self.policy().counts_connections != 0 {
            self.unsettled.store(true, Ordering::Relaxed);
        }
        self.tables.flip();
        self.forget_clocks();
        self.forget_windows();
        self.forget_breakers();
        for repriced in &plan.repriced {
            self.reprice(repriced);
        }
        self.owed.grace = true;
        self.owed.freed = plan.freed;
        self.owed.moved = moved;
        if let Err(error) = self.settle_generation() {
            tracing::warn!("the policy is in force; what it leaves to be done is done later: {error:#}");
        }
        Ok(())
    }

    /// Whether a change that is in force has left something to be done: see [`Datapath::settle`].
    pub fn owes(&self) -> bool {
        self.owed != Owed::default()
    }

    /// Whether packets may still be under the policy before.
    pub(super) fn may_be_under_another(&self) -> bool {
        self.owed.grace
    }

    /// Does what the last change could not do at once: waits for packets under the old policy, clears what it freed,
    /// and writes the sources that go with the new one. To be called again as long as it fails.
    pub fn settle(&mut self) -> Result<()> {
        self.settle_generation()?;
        if let Some(wanted) = self.owed.sources.clone() {
            self.set_sources(&wanted)?;
        }
        Ok(())
    }

    fn settle_generation(&mut self) -> Result<()> {
        if self.owed.grace {
            self.grace.wait().context("cannot wait for the packets under the old policy")?;
            self.owed.grace = false;
        }
        while let Some(region) = self.owed.freed.last() {
            clear(&self.tables, region.base, region.extent())?;
            self.owed.freed.pop();
        }
        while let Some(moved) = self.owed.moved.pop() {
            self.bring_home(&moved);
        }
        Ok(())
    }

    /// The limits per source that keep their buckets, and look for some of them elsewhere under the next policy.
    fn moved_by(&self, next: &Compiled) -> Vec<Moved> {
        let others = !Arc::ptr_eq(&next.tenants, &self.tenants[self.tables.in_force() as usize]);
        let moved = next.limits.iter().filter_map(|(number, limit)| {
            let before = self.held(*number).filter(|held| held.name == limit.name)?;
            let is_divided = limit.regions().any(|(_, region)| region.compartments != 0);
            Moved::between(&before, limit).filter(|moved| moved.is_redivided || others && is_divided)
        });
        moved.collect()
    }

    /// Gives each tenant its slot of a region that nobody uses yet: see [`Limit::home`]. So packets of tenants whose slots lie in
    /// one set never race for them.
    pub(super) fn name_slots(&self, region: Region) {
        // Of a slot's two words the first is the key.
        let keys = self.tables.buckets.run(region.base, region.sets).iter().step_by(2);
        (0..).zip(keys).for_each(|(tenant, key)| key.store(tenant, Ordering::Relaxed));
    }

    /// After an agent died, perhaps within [`Datapath::apply`]: waits for what may still be under the spare generation, clears
    /// what belongs to no limit, undoes what it was taking, lets no bucket owe more than its limit allows, and has packets
    /// find their sources anew.
    pub(super) fn recover(&self) -> Result<()> {
        self.grace.wait().context("cannot wait for the packets under an old policy")?;
        for (first, count) in regions::unused(&self.limits(), self.tables.control().sets) {
            clear(&self.tables, first, count)?;
        }
        self.unlock().context("cannot wait for the programs that take places")?;
        for moved in self.limits().iter().filter_map(|held| Moved::between(&held.record, &held.record)) {
            self.bring_home(&moved);
        }
        self.bound_debts();
        self.count_broken();
        self.sources.announce(&self.tables);
        Ok(())
    }

    /// Frees the slots that an agent had locked when it died, as one does that moves a debt: kernel programs, which lock some
    /// too, have ended within the grace period.
    fn unlock(&self) -> io::Result<()> {
        let regions = self.limits().into_iter().flat_map(|held| held.record.regions()).map(|(_, region)| region);
        let tats = regions.flat_map(|it| self.tables.buckets.run(it.base, it.extent()).iter().skip(1).step_by(2));
        let seen = tats.map(|tat| (tat, tat.load(Ordering::Relaxed)));
        let locked: Vec<_> = seen.filter(|(_, seen)| table::is_lock(*seen)).collect();
        if !locked.is_empty() {
            self.grace.wait()?;
        }
        for (tat, seen) in locked {
            _ = tat.compare_exchange(seen, gcra::UNUSED, Ordering::Relaxed, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// What a policy that is in force has left to be done.
#[derive(Default, PartialEq)]
pub(super) struct Owed {
    /// Packets may still be under the generation that is spare now.
    grace: bool,
    /// Regions that no limit has any more, to be cleared after the grace period.
    freed: Vec<Region>,
    /// Limits whose buckets move then.
    moved: Vec<Moved>,
    /// The sources that go with the policy, or with the one that stayed in force.
    pub(super) sources: Option<Entries>,
}
