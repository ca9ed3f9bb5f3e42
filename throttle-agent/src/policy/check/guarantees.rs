//! Guarantees: each within its limit, and all under a limit within that.

use super::{
    health::slowed,
    limits::{burst, rate},
};
use crate::policy::{
    claims::Claims,
    document::{Document, Limit, Mode},
    fault::{Diagnostic, Fault},
    guarantee::{Guarantee, SUFFIX},
    read::Unread,
    units::{Quantity, Rate},
};
use throttle_common::{
    records::NAME,
    words::{Algorithm, Per, Unit},
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
        let claims = Claims::of(document);
        sums(document, &claims, found);
        forgetful(document, &claims, found);
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
fn sums(document: &Document, claims: &Claims<'_>, found: &mut Vec<Diagnostic>) {
    for (index, limit) in document.limits.iter().enumerate() {
        let Some(claim) = claims.beyond(limit) else { continue };
        let field = if limit.concurrent.is_some() { "concurrent" } else { "rate" };
        let allowed = claim.allowed.allowance();
        let whose = claim.tenant.map_or_else(String::new, |tenant| format!(" of tenant `{tenant}`"));
        let limits = listed(&claim.limits);
        let sum = written(limit, claim.sum);
        let reason = format!("the guarantees{whose} by {limits} come to {sum}, more than {allowed}");
        let remedy = if claim.anywhere {
            "raise it, guarantee less, or let each tenant have less there (per = \"tenant\"): what is guaranteed \
             everywhere may all be used at one service"
        } else {
            "raise it, or guarantee less: what is guaranteed must be there for all at once"
        };
        found.push(Fault::new(reason, remedy).at(format!("limit[{index}].{field}")));
    }
}

/// What guarantees take of a window that slides beyond what it admits cannot be told in the one after the next: they would
/// exceed it again and again.
fn forgetful(document: &Document, claims: &Claims<'_>, found: &mut Vec<Diagnostic>) {
    for (index, limit) in document.limits.iter().enumerate() {
        let limits = claims.under(limit);
        if limit.algorithm == Algorithm::SlidingWindow && !limits.is_empty() {
            let reason =
                format!("a window that slides would soon forget what is guaranteed of it by {}", listed(&limits));
            let remedy = "write \"token-bucket\" or \"fixed-window\", or guarantee nothing under it";
            found.push(Fault::new(reason, remedy).at(format!("limit[{index}].algorithm")));
        }
    }
}

fn listed(limits: &[&str]) -> String {
    limits.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ")
}

/// What is allowed, and probably not meant.
pub(super) fn warn(document: &Document, warn: &mut impl FnMut(String, String, &str)) {
    let unwell = slowed(document);
    let alike =
        |one: &Limit, other: &Limit| (one.unit, one.concurrent.is_some()) == (other.unit, other.concurrent.is_some());
    for (index, limit) in document.limits.iter().enumerate().filter(|(_, limit)| limit.guarantees()) {
        let field = if limit.guarantee.is_some() { "guarantee" } else { "override" };
        let path = || format!("limit[{index}].{field}");
        if limit.mode == Mode::Observe {
            let reason = "the limit only observes, but what it guarantees is kept for its owners all the same";
            warn(path(), reason.to_owned(), "leave the guarantee out until the limit enforces");
        }
        let meets = |it: &Limit| it.service.is_none() || limit.service.is_none() || it.service == limit.service;
        let wider = |it: &&Limit| alike(it, limit) && it.reach() > limit.reach() && meets(it);
        let (unit, open) = (limit.unit.name(), limit.concurrent.is_some());
        if !document.limits.iter().any(|it| wider(&it)) {
            let what = if open { "open connections" } else { unit };
            let reason = format!("nobody else could take it: no wider limit is on {what}");
            warn(path(), reason, "add one with per = \"host\", or leave the guarantee out");
        }
        let slower =
            |it: &&Limit| it.per == Per::Service && it.service.as_deref().is_some_and(|at| unwell.contains(at));
        let mut refusing = document.limits.iter().filter(|it| wider(it) && slower(it));
        if !open
            && limit.service.is_none()
            && let Some(first) = refusing.next()
        {
            let others = match refusing.count() {
                0 => String::new(),
                count => format!(" (so do {count} more)"),
            };
            let service = first.service.as_deref().unwrap_or_default();
            let reason = format!(
                "where `{service}` is unwell, `{}` goes by a slower clock and refuses even what is guaranteed{others}",
                first.name
            );
            let remedy = format!("for one that slows down with it write service = \"{service}\"");
            warn(path(), reason, &remedy);
        }
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
