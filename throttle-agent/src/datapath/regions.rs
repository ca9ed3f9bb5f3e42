//! What a new policy does to the table: which regions go, which come, and whose debts must be expressed anew.
//!
//! Pure: the limits in force and the limits to be come in, a [`Plan`] goes out. A region stays when a limit of the same
//! name keeps it with the same unit and prefixes; then the buckets in it stay too.

use std::collections::{HashMap, HashSet};

use anyhow::{Result, bail, ensure};
use throttle_common::{
    gcra::{MAX_DEPTH, Price, Ticks},
    packet::Family,
    records::{
        Limit, MAX_CANDIDATES, MAX_CLOCKS, MAX_LIMITS, MAX_SERVICES, MAX_TENANTS, NAME, NONE, PORT_WORDS,
        PORTS_IN_WORD, Region, SCOPE_LIMITS, Terms, name_str,
    },
    words::Per,
};

use crate::policy::{Compiled, HeldLimit};

/// A region whose buckets are kept while what they are allowed may change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reprice {
    /// Its limit as it was.
    pub(super) before: Limit,
    /// As it is from now on: what its clock reads counts.
    pub(super) limit: Limit,
    pub(super) family: Family,
    pub(super) region: Region,
}

/// How debts are expressed anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    /// The new price of a unit over the old one.
    ratio: f64,
    depth: Ticks,
}

impl Scale {
    pub(super) fn between(old: &Terms, new: &Terms) -> Self {
        let unit = |price: Price| price.mantissa as f64 / (price.shift as f64).exp2();
        Self { ratio: unit(new.price) / unit(old.price), depth: new.depth }
    }

    /// Likewise, where buckets may owe this much.
    pub(super) const fn up_to(self, depth: Ticks) -> Self {
        Self { depth, ..self }
    }

    /// A bucket that owed `debt` for some units goes on owing for as many, though never more than it is deep.
    pub(super) fn debt(&self, debt: Ticks) -> Ticks {
        // Below 2^56 and so exact to eight ticks, which is 31 ps; never negative, because neither factor is.
        #[expect(clippy::cast_sign_loss, reason = "the line above")]
        let debt = (debt as f64 * self.ratio).round() as Ticks;
        // Buckets are even.
        debt.min(self.depth) & !1
    }
}

/// What has to be done to the table around the flip.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// To be cleared when no packet uses them any more.
    pub(super) freed: Vec<Region>,
    /// To be expressed anew.
    pub(super) repriced: Vec<Reprice>,
    /// New, and of tenants, each of whom has a slot in them.
    pub(super) named: Vec<Region>,
    /// Numbers that a limit of another name had before, whose tallies start from zero.
    pub(super) renamed: Vec<u16>,
}

pub(super) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Compares what is with what is to be. Nothing new may lie where something goes: packets still use that.
pub(super) fn plan(held: &[HeldLimit], next: &[(u16, Limit)]) -> Result<Plan> {
    let mut plan = Plan::default();
    let by_name: HashMap<&[u8; NAME], &HeldLimit> = held.iter().map(|old| (&old.record.name, old)).collect();
    let next_by_name: HashMap<&[u8; NAME], &Limit> = next.iter().map(|(_, limit)| (&limit.name, limit)).collect();
    for old in held {
        let new = next_by_name.get(&old.record.name).copied();
        for (family, region) in old.record.regions() {
            match new.filter(|new| keeps(&old.record, new, family)) {
                // Connections stay open, however few are allowed from now on.
                Some(new) if new.is_concurrency() => {}
                Some(new) if is_repriced(&old.record, new) => {
                    plan.repriced.push(Reprice { before: old.record, limit: *new, family, region });
                }
                Some(_) => {}
                None => plan.freed.push(region),
            }
        }
    }
    for (number, new) in next {
        let old = by_name.get(&new.name);
        let fresh = FAMILIES.into_iter().filter(|&family| !old.is_some_and(|old| keeps(&old.record, new, family)));
        for region in fresh.map(|family| new.region(family)) {
            if new.per == Per::Tenant as u8 && !plan.named.contains(region) {
                plan.named.push(*region);
            }
            let free = !plan.freed.iter().any(|freed| overlap(freed, region));
            ensure!(free, "limit {}: its region is one that packets still use", name_str(&new.name));
        }
        if old.is_none_or(|old| old.number != *number) {
            plan.renamed.push(*number);
        }
    }
    Ok(plan)
}

/// Whether what a bucket owes may be too much, or the price of other units than before.
fn is_repriced(old: &Limit, new: &Limit) -> bool {
    new.price != old.price || new.depth < old.depth || [old, new].iter().any(|limit| limit.overridden != 0)
}

pub(super) fn keeps(old: &Limit, new: &Limit, family: Family) -> bool {
    // What a bucket holds depends on the clock: whose health it follows, and whether it flows, stands still, or counts
    // windows of a length. Those that slide have regions of their own kind.
    let alike = old.unit == new.unit
        && old.per == new.per
        && old.is_concurrency() == new.is_concurrency()
        && old.window == new.window
        && old.goes_by(new.clock);
    old.name == new.name && alike && old.region(family).lies_as(new.region(family))
}

fn overlap(a: &Region, b: &Region) -> bool {
    a.base < b.base + b.extent() && b.base < a.base + a.extent()
}

/// The sets that belong to no limit, as first and count: they hold no buckets.
pub(super) fn unused(held: &[HeldLimit], sets: u32) -> Vec<(u32, u32)> {
    let mut used: Vec<_> = held.iter().flat_map(|held| [held.record.v4, held.record.v6]).collect();
    used.sort_unstable_by_key(|region| region.base);
    let mut unused = Vec::new();
    let mut end = 0;
    for region in used.iter().filter(|region| region.sets != 0) {
        if region.base > end {
            unused.push((end, region.base - end));
        }
        end = end.max(region.base + region.extent());
    }
    if sets > end {
        unused.push((end, sets - end));
    }
    unused
}

/// Refuses what does not fit the maps, before anything is written.
pub(super) fn check(policy: &Compiled, sets: u32) -> Result<()> {
    ensure!(policy.services.len() < MAX_SERVICES as usize, "more than {} services", MAX_SERVICES - 1);
    let clocks = policy.services.iter().map(|it| it.clock).chain(policy.limits.iter().map(|(_, it)| it.clock));
    ensure!(clocks.into_iter().all(|clock| u32::from(clock) < MAX_CLOCKS), "a health clock beyond the last");
    let tenants = policy.tenants.values().all(|&number| number != NONE && u32::from(number) < MAX_TENANTS);
    ensure!(tenants, "a tenant of a number that is none");
    ensure!(policy.candidates.len() < MAX_CANDIDATES as usize, "more than {} lists of services", MAX_CANDIDATES - 1);
    let ports = PORT_WORDS * PORTS_IN_WORD;
    ensure!(policy.ports.iter().all(|&(slot, _)| slot < ports), "a port beyond the last");
    let mut numbers = HashSet::new();
    for (number, limit) in &policy.limits {
        let name = name_str(&limit.name);
        ensure!(u32::from(*number) < MAX_LIMITS, "limit {name}: its number {number} is beyond the last");
        ensure!(numbers.insert(*number), "limit {name}: its number is taken");
    }
    let scopes = policy.services.iter().map(|service| &service.scope).chain([&policy.policy.scope]);
    for scope in scopes {
        let count = usize::from(scope.count) + usize::from(scope.concurrent);
        ensure!(count <= SCOPE_LIMITS, "{count} limits for one packet, more than {SCOPE_LIMITS}");
        let known = scope.limits[..count].iter().all(|number| numbers.contains(number));
        ensure!(known, "a limit that does not exist");
    }
    let mut taken: Vec<(Region, &str)> = Vec::new();
    for (_, limit) in &policy.limits {
        let name = name_str(&limit.name);
        ensure!(limit.price.mantissa > 0 && limit.depth <= MAX_DEPTH, "limit {name}: its price or depth is impossible");
        ensure!(limit.overdraft() <= MAX_DEPTH, "limit {name}: guarantees put it too far into debt");
        let windows = limit.window == 0 || (limit.depth..=MAX_DEPTH).contains(&limit.window);
        ensure!(windows && (!limit.is_sliding() || limit.window != 0), "limit {name}: its window is impossible");
        let leased = !limit.is_leased() || (limit.is_shared() && limit.window == 0 && limit.batch <= limit.depth);
        ensure!(leased, "limit {name}: its buckets cannot be taken ahead");
        for (family, bits) in [(Family::V4, 32), (Family::V6, 128)] {
            let region = limit.region(family);
            if region.sets == 0 {
                continue;
            }
            let shared = limit.is_shared() && limit.v4 == limit.v6;
            let prefixes = (1..=bits).contains(&region.prefix) && (1..=bits.min(64)).contains(&region.aggregate);
            ensure!(prefixes || shared, "limit {name}: its prefixes are impossible");
            ensure!(
                limit.is_sliding() == (region.doubled == 1) && region.doubled <= 1,
                "limit {name}: its buckets have another number of words than its algorithm needs"
            );
            let end = region.base.checked_add(region.extent());
            ensure!(end.is_some_and(|end| end <= sets), "limit {name}: its region is beyond the table of {sets} sets");
            // The one bucket of all serves both families.
            if !(shared && family == Family::V6) {
                taken.push((*region, name));
            }
        }
    }
    taken.sort_unstable_by_key(|(region, _)| region.base);
    let mut neighbours = taken.iter().zip(taken.iter().skip(1));
    match neighbours.find(|((one, _), (other, _))| overlap(one, other)) {
        Some(((_, other), (_, name))) => bail!("limit {name}: its region is also that of limit {other}"),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "regions_tests.rs"]
mod tests;
