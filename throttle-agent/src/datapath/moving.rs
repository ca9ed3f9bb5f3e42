//! Buckets that move along: where tenants divide the table of a limit per source anew, or a source becomes another tenant's,
//! the policy in force looks for its bucket in another set than the policy before.

use std::sync::atomic::Ordering;

use ipnet::IpNet;
use throttle_common::{
    gcra,
    packet::Family,
    records::{Limit, NONE, Region, SourceEntry, Whose},
    table::{Look as _, Set as _, WAYS},
};

use super::{
    Datapath,
    debts::Debts,
    explain::address,
    mapped::MappedSet,
    regions::{FAMILIES, keeps},
    talkers::Source,
};

/// A limit whose buckets may lie where nobody looks for them any more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moved {
    /// The limit as it is from now on.
    pub(super) limit: Limit,
    /// Whether its table is divided anew, so that aggregates of other sources meet in a bucket.
    pub(super) is_redivided: bool,
}

impl Moved {
    /// What a limit per source that keeps buckets becomes; nothing where it has none to move. Open connections move by
    /// themselves: see [`Datapath::reconcile_connections`].
    pub(super) fn between(before: &Limit, limit: &Limit) -> Option<Self> {
        let has_buckets = !limit.is_shared() && !limit.is_concurrency();
        let division = |limit: &Limit| (limit.rest, limit.v4.compartments, limit.v6.compartments);
        let keeps = FAMILIES.into_iter().any(|family| keeps(before, limit, family));
        (has_buckets && keeps).then(|| Self { limit: *limit, is_redivided: division(before) != division(limit) })
    }
}

impl Datapath {
    /// Brings every debt to where it is looked for. A source that finds no place there owes nothing any more; nor do aggregates
    /// of a table that is divided anew, of which nobody knows whose debts they have. What a source has been charged since
    /// the policy changed is no more than its burst: the larger of both debts counts. To be called once no packet is under
    /// the policy before.
    pub(super) fn bring_home(&self, Moved { limit, is_redivided }: &Moved) {
        for (family, region) in limit.regions() {
            for place in region.base..region.base + region.sets {
                self.bring_set_home(limit, family, &region, place);
            }
            if *is_redivided {
                for bucket in self.tables.aggregates.run(region.base, region.extent()) {
                    bucket.store(gcra::UNUSED, Ordering::Relaxed);
                }
            }
        }
    }

    fn bring_set_home(&self, limit: &Limit, family: Family, region: &Region, place: u32) {
        let set = self.set_and_beside(region, place);
        for way in 0..WAYS {
            let seen = set.map(|set| set.tat(way));
            // Most of a table is empty. Who owes nothing has nothing to move, and its slot may become another's at any time.
            if seen == [gcra::UNUSED; 2] {
                continue;
            }
            let debts = Debts::at(limit, self.reads(limit));
            let (key, owed) = (set[0].key(way), debts.of(seen));
            let is_its = owed != [0; 2] && set.map(|set| set.tat(way)) == seen;
            let home = if is_its { self.home_of(limit, family, region, key) } else { None };
            if let Some(home) = home.filter(|&home| home != place) {
                // Nobody owes where there is no place.
                debts.owe(self.set_and_beside(region, home), key, owed, way);
                set.iter().zip(seen).for_each(|(set, seen)| _ = set.swap_tat(way, seen, gcra::UNUSED));
            }
        }
    }

    /// A set, and where buckets have two words the one with the second; else the same again.
    fn set_and_beside(&self, region: &Region, place: u32) -> [MappedSet<'_>; 2] {
        [place, place + region.extent() - region.sets].map(|place| MappedSet(self.tables.buckets.words(place)))
    }

    /// The tenant of all of a prefix, or [`NONE`]; nothing where parts of it are different ones'.
    pub fn tenant_of(&self, prefix: IpNet) -> Option<u16> {
        let of = |entry: &SourceEntry| entry.tenant(self.tables.in_force());
        let tenant = self.entry_covering(prefix).map_or(NONE, of);
        if prefix.prefix_len() == prefix.max_prefix_len() {
            return Some(tenant);
        }
        let mut within = self.sources.held().range(prefix..).take_while(|(net, _)| prefix.contains(*net));
        within.all(|(_, entry)| of(entry) == tenant).then_some(tenant)
    }

    /// The set in which the policy in force looks for a key; `None` where nobody knows whose that is.
    fn home_of(&self, limit: &Limit, family: Family, region: &Region, key: u64) -> Option<u32> {
        let secret = self.tables.control().secret;
        if region.compartments == 0 {
            return Some(region.set(key, secret));
        }
        let Source::Prefix(prefix) = Source::of(key, region, family) else { return None };
        let tenant = self.tenant_of(prefix)?;
        let (source, family) = address(prefix.addr());
        limit.home(&Whose { source, family, tenant }, secret).map(|home| home.set)
    }
}
