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
    words::{Algorithm, Per},
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
    if is_windowed(limit) {
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

pub(super) fn is_windowed(limit: &Limit) -> bool {
    matches!(limit.algorithm, Algorithm::FixedWindow | Algorithm::SlidingWindow)
}

/// What each class has of each limit, where that is not what all have; notes which limits have such. That is what overrides
/// say; and of a limit on the open connections of tenants it is also less by what one is guaranteed by a narrower limit.
pub(super) fn overridden(document: &Document, limits: &mut [Numbered]) -> Overridden {
    let (classes, claims) = (Classes::of(document), Claims::of(document));
    let mut found = Overridden::new();
    for Numbered { index, record } in limits {
        let limit = &document.limits[*index];
        let by_tenant: HashMap<&str, Limit> = limit.by_tenant().collect();
        let of = if record.is_guarantee() { guaranteed } else { terms };
        for (member, number) in classes.members.iter().zip(1..) {
            let there = member.terms(*index, limit, &by_tenant);
            let tenant = if limit.per == Per::Tenant { member.tenant } else { None };
            let there = of(there.as_ref().unwrap_or(limit), &claims, tenant);
            if there != record.terms() {
                found.insert((record.number, number), there);
                record.overridden = 1;
            }
        }
    }
    found
}
