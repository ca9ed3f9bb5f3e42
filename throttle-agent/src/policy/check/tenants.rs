//! Tenants: each of some sources, none of which is another's too.

use crate::policy::{
    document::Document,
    fault::{Diagnostic, Fault},
    prefix::Prefix,
    read::Unread,
};
use std::collections::HashMap;
use throttle_common::records::MAX_TENANTS;

/// Number 0 is no tenant's.
const MOST: usize = MAX_TENANTS as usize - 1;

pub(super) fn check(document: &Document, unread: &Unread, found: &mut Vec<Diagnostic>) {
    if document.tenants.len() > MOST {
        let reason = format!("there are {} tenants", document.tenants.len());
        found.push(Fault::new(reason, format!("keep at most {MOST}")).at(format!("tenant[{MOST}]")));
    }
    let mut owners: HashMap<Prefix, &str> = HashMap::new();
    for (index, tenant) in document.tenants.iter().enumerate() {
        let path = format!("tenant[{index}].sources");
        if tenant.sources.is_empty() && unread.spares(&path) {
            let remedy = "write whose packets are its, such as [\"192.0.2.0/24\"], or leave the tenant out";
            found.push(Fault::new("a tenant without sources", remedy).at(&path));
        }
        for (place, prefix) in tenant.sources.iter().enumerate() {
            let path = format!("{path}[{place}]");
            if !unread.spares(&path) {
                continue;
            }
            if let Some(owner) = owners.insert(*prefix, &tenant.name) {
                let reason = format!("{prefix} is a source of `{owner}` already");
                found.push(Fault::new(reason, "name it once").at(path));
            }
        }
    }
}
