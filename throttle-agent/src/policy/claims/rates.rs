//! What guarantees of a rate may come to where they are used, and how much of that at once.

use super::{Amounts, Guarantees};
use crate::policy::document::{Limit, Mode};
use std::collections::{BTreeMap, HashMap};
use throttle_common::words::Per;

/// Of one unit.
pub(super) struct Rates<'d> {
    /// What all tenants together may use at a service of what they are guaranteed there and everywhere, where that is not
    /// as much as elsewhere.
    used_at: BTreeMap<&'d str, u128>,
    /// Likewise where no limit per tenant says more.
    elsewhere: u128,
    /// What all together may use, wherever that is.
    in_all: u128,
    at_once: AtOnce<'d>,
}

/// How many units may be used at once.
struct AtOnce<'d> {
    /// By one tenant at a service, and by all.
    tenants_at: BTreeMap<&'d str, [u128; 2]>,
    /// By one tenant wherever it wants, and by all.
    tenants: [u128; 2],
    services: BTreeMap<&'d str, u128>,
}

impl<'d> Rates<'d> {
    /// Those of some guarantees; `alike` are all limits of their kind.
    pub(super) fn of(of: &Guarantees<'d>, tenants: &[&str], alike: impl Iterator<Item = &'d Limit>) -> Self {
        // They bound what is guaranteed everywhere.
        let mut ceilings = BTreeMap::<&str, Vec<Ceiling>>::new();
        let bounds = |limit: &&Limit| limit.per == Per::Tenant && limit.mode == Mode::Enforce && of.tenants.is_some();
        for limit in alike.filter(bounds) {
            if let Some(service) = limit.service.as_deref() {
                ceilings.entry(service).or_default().push(Ceiling::of(limit));
            }
        }
        let wide = |tenant: &str| of.tenants.as_ref().map_or(0, |amounts| amounts.get(Some(tenant)));
        let used = |service: &str, tenant: &str| {
            let there = of.tenants_at.get(service).map_or(0, |amounts| amounts.get(Some(tenant)));
            let most = ceilings.get(service).into_iter().flatten().map(|ceiling| ceiling.get(tenant)).min();
            there.max(wide(tenant).min(most.unwrap_or(u128::MAX)))
        };
        let limited = of.tenants_at.keys().chain(ceilings.keys()).copied();
        let all = |used: &dyn Fn(&str) -> u128| tenants.iter().map(|tenant| used(tenant)).sum::<u128>();
        Self {
            used_at: limited.map(|service| (service, all(&|tenant| used(service, tenant)))).collect(),
            elsewhere: all(&wide),
            in_all: in_all(of, tenants),
            at_once: AtOnce::of(of, tenants),
        }
    }

    /// What may be used of guarantees at a service, or of the host.
    pub(super) fn under(&self, of: &Guarantees<'_>, service: Option<&str>) -> u128 {
        let Some(service) = service else { return self.in_all };
        of.own(service).max(self.used_at.get(service).copied().unwrap_or(self.elsewhere))
    }

    /// What may be used at once of guarantees that a limit cannot refuse, in one of its buckets.
    pub(super) fn at_once(&self, limit: &Limit) -> u128 {
        let AtOnce { tenants_at, tenants, services } = &self.at_once;
        let at = |service: &str, all: usize| tenants_at.get(service).map_or(0, |at| at[all]);
        match (limit.per, limit.service.as_deref()) {
            (Per::Source, _) => 0,
            (Per::Tenant, Some(service)) => at(service, 0),
            (Per::Tenant, None) => tenants[0] + tenants_at.values().map(|at| at[0]).sum::<u128>(),
            (_, Some(service)) => services.get(service).copied().unwrap_or(0) + tenants[1] + at(service, 1),
            (_, None) => {
                services.values().sum::<u128>() + tenants[1] + tenants_at.values().map(|at| at[1]).sum::<u128>()
            }
        }
    }
}

/// What all together may use of their guarantees.
///
/// While others use what a service is guaranteed, a tenant may use elsewhere what it is guaranteed everywhere; or at services
/// what it is guaranteed there, of which theirs are part. The most that comes of it is looked for among many cases; that it
/// is no more than either of these sums is enough.
fn in_all(of: &Guarantees<'_>, tenants: &[&str]) -> u128 {
    let of_tenant = |tenant: &str, at: &dyn Fn(&str) -> bool| {
        let at_services = of.tenants_at.iter().filter(|(service, _)| at(service));
        let wide = of.tenants.as_ref().map_or(0, |amounts| amounts.get(Some(tenant)));
        wide.max(at_services.map(|(_, amounts)| amounts.get(Some(tenant))).sum())
    };
    let all = |at: &dyn Fn(&str) -> bool| tenants.iter().map(|tenant| of_tenant(tenant, at)).sum::<u128>();
    let apart = of.services.keys().map(|service| of.own(service)).sum::<u128>() + all(&|_| true);
    let within = of.services.keys().map(|service| of.at(service)).sum::<u128>()
        + all(&|service| !of.services.contains_key(service));
    apart.min(within)
}

impl<'d> AtOnce<'d> {
    fn of(of: &Guarantees<'d>, tenants: &[&str]) -> Self {
        let both = |amounts: &Amounts<'_>| {
            let each = tenants.iter().map(|tenant| amounts.of_tenant(Some(tenant)).at_once);
            [amounts.most_at_once(), each.sum()]
        };
        Self {
            tenants_at: of.tenants_at.iter().map(|(service, amounts)| (*service, both(amounts))).collect(),
            tenants: of.tenants.as_ref().map_or([0; 2], both),
            services: of.services.iter().map(|(service, amounts)| (*service, amounts.most_at_once())).collect(),
        }
    }
}

/// What a limit per tenant at a service admits of each.
struct Ceiling<'d> {
    by_default: u128,
    overridden: HashMap<&'d str, u128>,
}

impl<'d> Ceiling<'d> {
    fn of(limit: &'d Limit) -> Self {
        let overridden = limit.by_tenant().map(|(tenant, limit)| (tenant, limit.amount())).collect();
        Self { by_default: limit.amount(), overridden }
    }

    fn get(&self, tenant: &str) -> u128 {
        self.overridden.get(tenant).copied().unwrap_or(self.by_default)
    }
}
