//! Overrides: for somebody, of something, and right where they are.

use super::limits::bounds;
use crate::policy::{
    classes::Classes,
    compile::overridings,
    document::{Document, Limit},
    fault::{Diagnostic, Fault},
    overrides::Override,
    prefix::Prefix,
    read::Unread,
    word::one_of,
};
use ipnet::IpNet;
use std::collections::HashSet;
use throttle_common::{records::MAX_OVERRIDES, words::Per};

pub(super) fn check(document: &Document, unread: &Unread, found: &mut Vec<Diagnostic>) {
    if document.limits.iter().all(|limit| limit.overrides.is_empty()) {
        return;
    }
    let tenants: HashSet<&str> = document.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    for (index, limit) in document.limits.iter().enumerate() {
        let (mut tenants_before, mut stated) = (HashSet::new(), HashSet::new());
        for (place, terms) in limit.overrides.iter().enumerate() {
            let path = format!("limit[{index}].override[{place}]");
            if !unread.spares(&path) || !unread.spares(&format!("limit[{index}]")) {
                continue;
            }
            let mut wrong = |field: &str, fault: Fault| found.push(fault.at(format!("{path}.{field}")));
            whose(limit, terms, &mut wrong);
            what(limit, terms, &mut wrong);
            if let Some(tenant) = &terms.tenant {
                if !tenants_before.insert(tenant) {
                    wrong("tenant", Fault::new(format!("`{tenant}` has an override already"), "make one of the two"));
                }
                if unread.spares("tenant") && !tenants.contains(tenant.as_str()) {
                    let names: Vec<_> = document.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
                    let remedy = if names.is_empty() { "add a [[tenant]]".to_owned() } else { one_of(tenant, &names) };
                    wrong("tenant", Fault::new(format!("there is no tenant `{tenant}`"), remedy));
                } else if limit.per == Per::Source {
                    let sources = document.tenants.iter().filter(|it| it.name == *tenant).flat_map(|it| &it.sources);
                    sources.for_each(|prefix| whole(limit, *prefix, "tenant", &mut wrong));
                }
            }
            for (number, prefix) in terms.sources.iter().enumerate() {
                let field = format!("sources[{number}]");
                if !stated.insert(*prefix) {
                    wrong(&field, Fault::new(format!("{prefix} has an override already"), "name it once"));
                }
                whole(limit, *prefix, &field, &mut wrong);
            }
        }
    }
}

/// For a tenant or for sources, as the limit tells them apart.
fn whose(limit: &Limit, terms: &Override, wrong: &mut impl FnMut(&str, Fault)) {
    let shared = || format!("a limit per {} has one bucket for all", limit.per.name());
    match (limit.per, &terms.tenant, terms.sources.is_empty()) {
        (Per::Service | Per::Host, ..) => wrong("tenant", Fault::new(shared(), "make it a limit of its own")),
        (_, None, true) => {
            wrong(
                "tenant",
                Fault::new("an override for nobody", "add tenant = \"NAME\" or sources = [\"192.0.2.0/24\"]"),
            );
        }
        (_, Some(_), false) => {
            wrong("sources", Fault::new("an override is for a tenant or for sources", "make two of it"));
        }
        (Per::Tenant, None, _) => {
            let reason = "all sources of a tenant share a bucket";
            wrong("sources", Fault::new(reason, "write tenant = \"NAME\", or per = \"source\""));
        }
        _ => {}
    }
}

/// What it says must be right together with what the limit says.
fn what(limit: &Limit, terms: &Override, wrong: &mut impl FnMut(&str, Fault)) {
    let bare = Override { tenant: terms.tenant.clone(), sources: terms.sources.clone(), ..Override::default() };
    if *terms == bare {
        return wrong("rate", Fault::new("an override that changes nothing", "add rate = \"1000/s\", or leave it out"));
    }
    let there = limit.with(terms);
    let periods = |limit: &Limit| limit.rate.map(|rate| rate.per);
    if limit.algorithm.is_windowed() && periods(&there) != periods(limit) {
        let remedy = "write the rate in the same period as the limit's";
        wrong("rate", Fault::new("all of a limit count in the same windows", remedy));
    }
    bounds(&there, true, wrong);
    super::guarantees::of_one(&there, limit.guarantees(), wrong);
}

/// A bucket has one price: whoever shares it has the same overrides.
fn whole(limit: &Limit, prefix: Prefix, field: &str, wrong: &mut impl FnMut(&str, Fault)) {
    let (length, source) = match prefix.net() {
        IpNet::V4(net) => (net.prefix_len(), limit.prefix.ipv4),
        IpNet::V6(net) => (net.prefix_len(), limit.prefix.ipv6),
    };
    if length > source {
        let reason = format!("a source is a /{source} here, of which {prefix} is only a part");
        wrong(field, Fault::new(reason, format!("write a /{source} or shorter, or a longer `prefix` of the limit")));
    }
}

/// As many as the kernel holds: of a document that is right otherwise.
pub(super) fn count(document: &Document, found: &mut Vec<Diagnostic>) {
    let kinds = Classes::of(document).wanted;
    let records: usize = document.limits.iter().map(|limit| 1 + usize::from(limit.guarantees())).sum();
    let most = MAX_OVERRIDES as usize;
    if kinds > u16::MAX.into() || kinds * records > most && overridings(document) > most {
        let terms = overridings(document);
        let reason = format!("overrides make {kinds} kinds of sources, which have {terms} terms of their own");
        let remedy = format!("name fewer: there may be {} kinds, with {most} terms of limits and guarantees", u16::MAX);
        found.push(Fault::new(reason, remedy).at("limit"));
    }
}
