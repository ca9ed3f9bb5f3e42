//! Names: short, plain and used once.

use crate::policy::{
    document::Document,
    fault::{Diagnostic, Fault},
    read::Unread,
};
use std::collections::HashSet;
use throttle_common::records::NAME;

pub(super) fn services(document: &Document, unread: &Unread, found: &mut Vec<Diagnostic>) {
    each("service", document.services.iter().map(|service| service.name.as_str()), unread, found);
}

pub(super) fn backends(document: &Document, unread: &Unread, found: &mut Vec<Diagnostic>) {
    each("backend", document.backends.iter().map(|backend| backend.name.as_str()), unread, found);
}

pub(super) fn tenants(document: &Document, unread: &Unread, found: &mut Vec<Diagnostic>) {
    each("tenant", document.tenants.iter().map(|tenant| tenant.name.as_str()), unread, found);
}

pub(super) fn limits(document: &Document, unread: &Unread, found: &mut Vec<Diagnostic>) {
    each("limit", document.limits.iter().map(|limit| limit.name.as_str()), unread, found);
}

fn each<'d>(list: &str, names: impl Iterator<Item = &'d str>, unread: &Unread, found: &mut Vec<Diagnostic>) {
    let mut taken = HashSet::new();
    for (index, name) in names.enumerate() {
        let path = || format!("{list}[{index}].name");
        if !unread.is_empty() && !unread.spares(&path()) {
            continue;
        }
        found.extend(fault_of(name).map(|fault| fault.at(path())));
        if !taken.insert(name) && !name.is_empty() {
            let reason = format!("an earlier {list} has this name already");
            found.push(Fault::new(reason, format!("give each {list} a name of its own")).at(path()));
        }
    }
}

fn fault_of(name: &str) -> Option<Fault> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let remedy = "use letters, digits, `.`, `_` and `-`, a letter or digit first";
    if name.is_empty() {
        return Some(Fault::new("the name is empty", remedy));
    }
    if name.len() > NAME {
        return Some(Fault::new(format!("the name has {} bytes", name.len()), format!("use at most {NAME}")));
    }
    let odd = name.chars().find(|&c| !allowed(c));
    let odd = odd.or_else(|| name.chars().next().filter(|c| !c.is_ascii_alphanumeric()))?;
    Some(Fault::new(format!("the name `{name}` has a {odd:?} where none may be"), remedy))
}
