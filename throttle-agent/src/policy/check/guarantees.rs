//! Guarantees: each within its limit, and all under a limit within that.

use super::limits::{burst, rate};
use crate::policy::{
    claims::Claims,
    document::{Document, Limit},
    fault::{Diagnostic, Fault},
    guarantee::{Guarantee, SUFFIX},
    read::Unread,
    units::{Quantity, Rate},
};
use throttle_common::{
    records::NAME,
    words::{Per, Unit},
};

pub(super) fn check(document: &Document, unread: &Unread, found: &mut Vec<Diagnostic>) {
    let before = found.len();
    for (index, limit) in document.limits.iter().enumerate() {
        let path = |field: &str| format!("limit[{index}].{field}");
        let read = |fields: &[&str]| unread.is_empty() || fields.iter().all(|field| unread.spares(&path(field)));
        if read(&["guarantee", "guarantee-burst", "per", "unit", "rate", "concurrent", "algorithm", "burst"]) {
            of_one(limit, false, &mut |field, fault| found.push(fault.at(path(field))));
        }
    }
    if found.len() == before && unread.spares("limit") && unread.spares("tenant") {
        rivals(document, found);
        sums(document, found);
    }
}

/// Its own guarantee: of the same kind as the limit, and no more than that; nothing only where it is `another` than all
/// have.
pub(super) fn of_one(limit: &Limit, another: bool, wrong: &mut impl FnMut(&str, Fault)) {
    let Some(guarantee) = limit.guarantee else {
        if limit.guarantee_burst.is_some() {
            wrong("guarantee-burst", Fault::new("there is no guarantee", "add guarantee = \"100/s\", or leave it out"));
        }
        return;
    };
    if !matches!(limit.per, Per::Tenant | Per::Service) {
        let reason = format!("a limit per {} guarantees nobody a part of what others share", limit.per.name());
        wrong("guarantee", Fault::new(reason, "write per = \"tenant\" or per = \"service\", or leave it out"));
    }
    if limit.name.len() + SUFFIX.len() > NAME {
        let reason = "the name of a limit with a guarantee is longer than there is room for";
        wrong("name", Fault::new(reason, format!("write at most {} characters", NAME - SUFFIX.len())));
    }
    match (guarantee, limit.concurrent) {
        (Guarantee::Rate(of), None) if of.quantity.amount() == 0 => {}
        (Guarantee::Rate(of), None) => rated(limit, of, wrong),
        (Guarantee::Connections(_), Some(_)) => {
            if limit.guarantee_burst.is_some() {
                wrong("guarantee-burst", Fault::new("a number of open connections has no burst", "leave it out"));
            }
        }
        (Guarantee::Rate(_), Some(_)) => {
            let remedy = "write how many are reserved, such as guarantee = 20";
            return wrong("guarantee", Fault::new("of open connections a number is guaranteed, no rate", remedy));
        }
        (Guarantee::Connections(_), None) => {
            let remedy = "write a rate in quotes, such as guarantee = \"100/s\"";
            return wrong("guarantee", Fault::new("of a rate a rate is guaranteed, no number", remedy));
        }
    }
    if limit.guaranteed_amount() > limit.amount() {
        let reason = format!("{guarantee} are guaranteed of a limit of {}", limit.allowance());
        wrong("guarantee", Fault::new(reason, "write no more than the limit, which is its ceiling"));
    } else if limit.guaranteed_amount() == 0 && !another {
        wrong("guarantee", Fault::new(format!("`{guarantee}` guarantees nothing"), "leave it out"));
    }
}

fn rated(limit: &Limit, of: Rate, wrong: &mut impl FnMut(&str, Fault)) {
    let derived = limit.guaranteed().expect("it has a guarantee");
    match rate(&derived, of) {
        Err(fault) => wrong("guarantee", fault),
        Ok(()) => burst(&derived, of).unwrap_or_else(|fault| wrong("guarantee-burst", fault)),
    }
}

/// Of two guarantees for the same packets nobody could say which counts.
fn rivals(document: &Document, found: &mut Vec<Diagnostic>) {
    let kind = |limit: &Limit| (limit.unit, limit.concurrent.is_some(), limit.per, limit.service.clone());
    let guaranteed = || document.limits.iter().enumerate().filter(|(_, limit)| limit.guarantees());
    for (index, limit) in guaranteed() {
        if let Some((_, other)) = guaranteed().take_while(|(at, _)| *at < index).find(|(_, it)| kind(it) == kind(limit))
        {
            let reason = format!("`{}` guarantees the same packets something already", other.name);
            found.push(Fault::new(reason, "leave one of the two out").at(format!("limit[{index}].guarantee")));
        }
    }
}

/// What is guaranteed under a limit must be there.
fn sums(document: &Document, found: &mut Vec<Diagnostic>) {
    let claims = Claims::of(document);
    for (index, limit) in document.limits.iter().enumerate() {
        let Some(claim) = claims.beyond(limit) else { continue };
        let field = if limit.concurrent.is_some() { "concurrent" } else { "rate" };
        let allowed = claim.allowed.allowance();
        let whose = claim.tenant.map_or_else(String::new, |tenant| format!(" of tenant `{tenant}`"));
        let limits = claim.limits.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ");
        let sum = written(limit, claim.sum);
        let reason = format!("the guarantees{whose} by {limits} come to {sum}, more than {allowed}");
        let remedy = "raise it, or guarantee less: what is guaranteed must be there for all at once";
        found.push(Fault::new(reason, remedy).at(format!("limit[{index}].{field}")));
    }
}

/// A sum as the limit would write it, rounded up.
fn written(limit: &Limit, sum: u128) -> String {
    let Some(rate) = limit.rate else { return sum.to_string() };
    let unit = Quantity::new(1, rate.quantity.scale()).bits() * 86_400 / u128::from(rate.per.seconds());
    let amount = u64::try_from(sum.div_ceil(unit)).unwrap_or(u64::MAX);
    let unit = if limit.unit == Unit::Bytes || amount == 1 { "" } else { limit.unit.name() };
    let rate = Rate { quantity: Quantity::new(amount, rate.quantity.scale()), per: rate.per };
    if unit.is_empty() { rate.to_string() } else { format!("{rate} {unit}") }
}
