//! What limits allow: the price of a unit and the depth of a bucket, for all and for those whom overrides are for.

use super::limits::Numbered;
use crate::policy::{
    claims::Claims,
    classes::Classes,
    document::{Document, Limit},
    guarantee::Guarantee,
    layout::Overridden,
};
use std::collections::HashMap;
use throttle_common::{
    connections,
    gcra::Price,
    guarantees,
    records::{self, Terms},
    words::Per,
};

/// What allows nothing.
const NOTHING: Terms = Terms { price: Price { mantissa: 2, shift: 0 }, depth: 0 };

/// What a limit allows: of open connections what no guarantee reserves.
pub(super) fn terms(limit: &Limit, claims: &Claims<'_>, tenant: Option<&str>) -> Terms {
    let Some(rate) = limit.rate else {
        let connections = limit.concurrent.expect("the check found one of the two");
        let reserved = u32::try_from(claims.reserved(limit, tenant)).unwrap_or(u32::MAX);
        return open(connections.saturating_sub(reserved));
    };
    if limit.algorithm.is_windowed() {
        let (price, depth) = rate.window_price(limit.unit).expect("the check found a price for the window");
        return Terms { price, depth };
    }
    let price = rate.price(limit.unit).expect("the check found a price for the rate");
    let depth = rate.depth(limit.unit, limit.burst_units()).expect("the check found a depth for the burst");
    Terms { price, depth }
}

/// What its guarantee allows: of open connections what those that are narrower leave of it.
pub(super) fn guaranteed(limit: &Limit, claims: &Claims<'_>, tenant: Option<&str>) -> Terms {
    match (limit.guarantee, limit.guaranteed()) {
        (Some(Guarantee::Connections(_)), _) => open(u32::try_from(claims.own(limit, tenant)).unwrap_or(0)),
        (Some(Guarantee::Rate(rate)), Some(beside)) if rate.quantity.amount() > 0 => terms(&beside, claims, tenant),
        _ => NOTHING,
    }
}

/// How far guarantees may put a bucket of a limit on a rate, or of its guarantee, beyond its depth: by what may be used of
/// them at once, in a window by what they come to in one besides. Of overrides the dearest
/// counts for all.
pub(super) fn overdraft_shift(limit: &Limit, claims: &Claims<'_>, record: &records::Limit) -> u8 {
    let units = claims.at_once(limit);
    if record.is_concurrency() || units == 0 {
        return 0;
    }
    let of = if record.is_guarantee() { guaranteed } else { terms };
    let overridden = limit.by_tenant().map(|(tenant, there)| of(&there, claims, Some(tenant)).price);
    let prices = overridden.chain([record.price]);
    let dearest = prices.map(|price| (units * u128::from(price.mantissa)) >> price.shift).max().unwrap_or_default();
    let debt = dearest + u128::from(record.window);
    guarantees::overdraft_shift(u64::try_from(debt).unwrap_or(u64::MAX))
}

fn open(connections: u32) -> Terms {
    Terms { price: connections::PRICE, depth: connections::depth(connections) }
}

/// What each class has of each limit, where that is not what all have; notes which limits have such.
pub(super) fn overridden(document: &Document, limits: &mut [Numbered]) -> Overridden {
    let overridings = Overridings::of(document);
    let mut found = Overridden::new();
    for Numbered { index, record } in limits {
        for (class, there) in overridings.of_limit(*index, record.is_guarantee()) {
            found.insert((record.number, class), there);
            record.overridden = 1;
        }
    }
    found
}

/// How many terms classes have of limits that are not what all have.
pub(in crate::policy) fn overridings(document: &Document) -> usize {
    let overridings = Overridings::of(document);
    let limits = document.limits.iter().enumerate();
    let records = limits.flat_map(|(index, limit)| [Some((index, false)), limit.guarantees().then_some((index, true))]);
    records.flatten().map(|(index, is_guarantee)| overridings.of_limit(index, is_guarantee).count()).sum()
}

/// What classes have instead of what all have. That is what overrides say; and of a limit on the open connections of tenants
/// it is also less by what one is guaranteed by a narrower limit.
struct Overridings<'d> {
    document: &'d Document,
    classes: Classes<'d>,
    claims: Claims<'d>,
}

impl<'d> Overridings<'d> {
    fn of(document: &'d Document) -> Self {
        Self { document, classes: Classes::of(document), claims: Claims::of(document) }
    }

    /// Of the limit at a place in the document, or of its guarantee.
    fn of_limit(&self, index: usize, is_guarantee: bool) -> impl Iterator<Item = (u16, Terms)> {
        let limit = &self.document.limits[index];
        let of = if is_guarantee { guaranteed } else { terms };
        let (all, by_tenant) = (of(limit, &self.claims, None), limit.by_tenant().collect::<HashMap<_, _>>());
        self.classes.members.iter().zip(1..).filter_map(move |(member, class)| {
            let own = member.terms(index, limit, &by_tenant);
            let tenant = member.tenant.filter(|_| limit.per == Per::Tenant);
            if own.is_none() && tenant.is_none() {
                return None;
            }
            let there = of(own.as_ref().unwrap_or(limit), &self.claims, tenant);
            (there != all).then_some((class, there))
        })
    }
}
