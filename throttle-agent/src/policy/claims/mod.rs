//! What the guarantees under a limit come to.
//!
//! Of one unit there are four widths of shared limits: a tenant's at a service, a tenant's, a service's, the host's. Of
//! guarantees within each other the larger counts, not their sum, as far as what is used of the narrower is used of the
//! wider too: a packet that is within a narrower one is charged to the wider ones as well. But nobody says where a wider one
//! is used. What a tenant is guaranteed of a rate it may use at one service, all of it, as far as the limits per tenant there
//! let it; or elsewhere, while others use what that service is guaranteed. A connection takes its place of the narrowest,
//! and so a wider guarantee of connections is cut down to what it has beside.
//!
//! Both the check of policy, and what kernel records hold of guarantees, come from here.

mod rates;

use self::rates::Rates;
use super::{
    document::{Document, Limit},
    overrides::Override,
};
use std::collections::{BTreeMap, HashMap};
use throttle_common::words::Per;

/// The guarantees of a document, by what they count: see [`Limit::amount`] for the unit of their sums.
pub(super) struct Claims<'d> {
    tenants: Vec<&'d str>,
    kinds: BTreeMap<Kind, Guarantees<'d>>,
}

/// Limits on the rates of a unit, or on open connections.
type Kind = (u8, bool);

fn kind(limit: &Limit) -> Kind {
    (limit.unit as u8, limit.concurrent.is_some())
}

/// Those of one kind, by width.
#[derive(Default)]
struct Guarantees<'d> {
    tenants: Option<Amounts<'d>>,
    tenants_at: BTreeMap<&'d str, Amounts<'d>>,
    services: BTreeMap<&'d str, Amounts<'d>>,
    /// What all tenants together are guaranteed at a service.
    all_at: BTreeMap<&'d str, u128>,
    /// What all together are guaranteed beyond that.
    beside: u128,
    /// Of a rate, what may be used of it where.
    rates: Option<Rates<'d>>,
}

/// What a limit guarantees to each.
struct Amounts<'d> {
    limit: &'d str,
    by_default: Amount,
    overridden: HashMap<&'d str, Amount>,
}

/// How much, and how much of that at once.
#[derive(Clone, Copy)]
struct Amount {
    guaranteed: u128,
    at_once: u128,
}

impl Amount {
    fn of(limit: &Limit) -> Self {
        let guaranteed = limit.guaranteed_amount();
        let burst = limit.guaranteed().filter(|_| guaranteed > 0).map_or(0, |guarantee| guarantee.burst_units());
        // One more, because prices are rounded.
        Self { guaranteed, at_once: u128::from(burst) + u128::from(burst > 0) }
    }
}

impl<'d> Amounts<'d> {
    fn of(limit: &'d Limit) -> Self {
        let overridden = limit.by_tenant().map(|(tenant, limit)| (tenant, Amount::of(&limit))).collect();
        Self { limit: &limit.name, by_default: Amount::of(limit), overridden }
    }

    fn get(&self, tenant: Option<&str>) -> u128 {
        self.of_tenant(tenant).guaranteed
    }

    fn of_tenant(&self, tenant: Option<&str>) -> Amount {
        tenant.and_then(|tenant| self.overridden.get(tenant)).copied().unwrap_or(self.by_default)
    }

    /// The most that anybody may use at once.
    fn most_at_once(&self) -> u128 {
        self.overridden.values().chain([&self.by_default]).map(|amount| amount.at_once).max().unwrap_or_default()
    }
}

/// Guarantees that come to more than a limit allows.
pub(super) struct Claim<'d> {
    pub(super) sum: u128,
    /// The limits that guarantee it.
    pub(super) limits: Vec<&'d str>,
    /// Whom, where it is each tenant's own.
    pub(super) tenant: Option<&'d str>,
    /// What of the limit that one has.
    pub(super) allowed: Limit,
    /// Whether it is a service's limit on a rate, where tenants may use what they are guaranteed everywhere.
    pub(super) anywhere: bool,
}

impl<'d> Claims<'d> {
    pub(super) fn of(document: &'d Document) -> Self {
        let tenants: Vec<&str> = document.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
        let mut kinds = BTreeMap::<Kind, Guarantees>::new();
        for limit in document.limits.iter().filter(|limit| limit.guarantees()) {
            let of = kinds.entry(kind(limit)).or_default();
            match (limit.per, limit.service.as_deref()) {
                (Per::Tenant, None) => of.tenants = Some(Amounts::of(limit)),
                (Per::Tenant, Some(service)) => _ = of.tenants_at.insert(service, Amounts::of(limit)),
                (Per::Service, Some(service)) => _ = of.services.insert(service, Amounts::of(limit)),
                _ => {}
            }
        }
        for of in kinds.values_mut() {
            let all = |amounts: &Amounts<'_>| tenants.iter().map(|tenant| amounts.get(Some(tenant))).sum();
            of.all_at = of.tenants_at.iter().map(|(service, amounts)| (*service, all(amounts))).collect();
            of.beside = tenants.iter().map(|tenant| of.beside(Some(tenant))).sum();
        }
        for (of_kind, of) in kinds.iter_mut().filter(|((_, open), _)| !open) {
            let alike = document.limits.iter().filter(|limit| kind(limit) == *of_kind);
            of.rates = Some(Rates::of(of, &tenants, alike));
        }
        Self { tenants, kinds }
    }

    /// What is guaranteed under a shared limit, its own guarantee included, where that is more than it allows.
    pub(super) fn beyond(&self, limit: &'d Limit) -> Option<Claim<'d>> {
        let of = self.kinds.get(&kind(limit))?;
        let (sum, tenant, allowed) = match limit.per {
            Per::Source => None,
            Per::Tenant => {
                let overridden: HashMap<&str, Limit> = limit.by_tenant().collect();
                let none_in_particular = [None].into_iter();
                let whose = |tenant: Option<&'d str>| {
                    let allowed = tenant.and_then(|tenant| overridden.get(tenant)).unwrap_or(limit);
                    let sum = of.of_tenant(limit, tenant);
                    (sum > allowed.amount()).then(|| (sum, tenant, allowed.with(&Override::default())))
                };
                none_in_particular.chain(self.tenants.iter().copied().map(Some)).find_map(whose)
            }
            Per::Service | Per::Host => {
                let sum = of.under(limit);
                (sum > limit.amount()).then(|| (sum, None, limit.with(&Override::default())))
            }
        }?;
        let anywhere = limit.per == Per::Service && limit.rate.is_some() && of.tenants.is_some();
        Some(Claim { sum, limits: of.named(limit), tenant, allowed, anywhere })
    }

    /// What of a limit is guaranteed, by itself and by those that are narrower; to a tenant, where each has its own.
    pub(super) fn reserved(&self, limit: &Limit, tenant: Option<&str>) -> u128 {
        let Some(of) = self.kinds.get(&kind(limit)) else { return 0 };
        match limit.per {
            Per::Source => 0,
            Per::Tenant => of.of_tenant(limit, tenant),
            Per::Service | Per::Host => of.under(limit),
        }
    }

    /// How many units of a rate guarantees that a limit cannot refuse may use at once, in one of its buckets.
    pub(super) fn at_once(&self, limit: &Limit) -> u128 {
        let of = self.kinds.get(&kind(limit));
        of.and_then(|of| of.rates.as_ref()).map_or(0, |rates| rates.at_once(limit))
    }

    /// The limits whose guarantees count under a limit.
    pub(super) fn under(&self, limit: &Limit) -> Vec<&'d str> {
        let of = self.kinds.get(&kind(limit)).filter(|_| limit.per != Per::Source);
        of.map_or_else(Vec::new, |of| of.named(limit))
    }

    /// What a guarantee has beside those that are within it.
    pub(super) fn own(&self, limit: &Limit, tenant: Option<&str>) -> u128 {
        let Some(of) = self.kinds.get(&kind(limit)) else { return 0 };
        match (limit.per, limit.service.as_deref()) {
            (Per::Tenant, None) => of.beside(tenant),
            (Per::Tenant, Some(service)) => of.tenants_at.get(service).map_or(0, |at| at.get(tenant)),
            (Per::Service, Some(service)) => {
                of.own(service).saturating_sub(of.all_at.get(service).copied().unwrap_or(0))
            }
            _ => 0,
        }
    }
}

impl<'d> Guarantees<'d> {
    fn at_services(&self, tenant: Option<&str>) -> u128 {
        self.tenants_at.values().map(|amounts| amounts.get(tenant)).sum()
    }

    /// What a tenant is guaranteed beyond what it is at single services.
    fn beside(&self, tenant: Option<&str>) -> u128 {
        self.tenants.as_ref().map_or(0, |amounts| amounts.get(tenant)).saturating_sub(self.at_services(tenant))
    }

    /// What a tenant is guaranteed under a limit per tenant.
    fn of_tenant(&self, limit: &Limit, tenant: Option<&str>) -> u128 {
        match limit.service.as_deref() {
            Some(service) => self.tenants_at.get(service).map_or(0, |amounts| amounts.get(tenant)),
            None => self.tenants.as_ref().map_or(0, |amounts| amounts.get(tenant)).max(self.at_services(tenant)),
        }
    }

    /// What is guaranteed under a limit per service, or of the host.
    fn under(&self, limit: &Limit) -> u128 {
        let service = limit.service.as_deref();
        if let Some(rates) = &self.rates {
            return rates.under(self, service);
        }
        match service {
            Some(service) => self.at(service) + self.beside,
            None => self.guaranteed_at().map(|service| self.at(service)).sum::<u128>() + self.beside,
        }
    }

    /// What a service is guaranteed, or tenants there, whichever is more.
    fn at(&self, service: &str) -> u128 {
        self.own(service).max(self.all_at.get(service).copied().unwrap_or(0))
    }

    fn own(&self, service: &str) -> u128 {
        self.services.get(service).map_or(0, |amounts| amounts.get(None))
    }

    /// The services at which something is guaranteed.
    fn guaranteed_at(&self) -> impl Iterator<Item = &'d str> {
        self.services.keys().chain(self.tenants_at.keys().filter(|it| !self.services.contains_key(*it))).copied()
    }

    /// The limits whose guarantees count under a limit.
    fn named(&self, limit: &Limit) -> Vec<&'d str> {
        let service = limit.service.as_deref();
        let meets = |at: &&str| service.is_none() || service == Some(*at);
        let at = self.tenants_at.iter().filter(|(at, _)| meets(at)).map(|(_, amounts)| amounts.limit);
        let services = self.services.iter().filter(|(at, _)| limit.per != Per::Tenant && meets(at));
        let tenants = self.tenants.iter().filter(|_| limit.per != Per::Tenant || service.is_none());
        at.chain(tenants.map(|amounts| amounts.limit)).chain(services.map(|(_, amounts)| amounts.limit)).collect()
    }
}

#[cfg(test)]
mod tests;
