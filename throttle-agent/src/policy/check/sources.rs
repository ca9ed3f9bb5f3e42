//! Sources: nobody can be allowed and blocked at once.

use crate::policy::{
    document::Document,
    fault::{Diagnostic, Fault},
    prefix::Prefix,
    read::Unread,
};
use std::collections::HashSet;

pub(super) fn check(document: &Document, unread: &Unread, found: &mut Vec<Diagnostic>) {
    let sources = &document.sources;
    let (known, allow) = (trusted("known", &sources.known, unread), trusted("allow", &sources.allow, unread));
    for (index, prefix) in sources.block.iter().enumerate() {
        let trusting = [("allow", &allow), ("known", &known)].into_iter().find(|(_, list)| list.contains(prefix));
        if let Some((list, _)) = trusting {
            let path = format!("sources.block[{index}]");
            if !unread.spares(&path) {
                continue;
            }
            let reason = format!("{prefix} is blocked here and trusted in sources.{list}");
            found.push(Fault::new(reason, "remove it from one of the two").at(path));
        }
    }
}

fn trusted<'d>(list: &str, prefixes: &'d [Prefix], unread: &Unread) -> HashSet<&'d Prefix> {
    let read = |(index, _): &(usize, &Prefix)| unread.spares(&format!("sources.{list}[{index}]"));
    prefixes.iter().enumerate().filter(read).map(|(_, prefix)| prefix).collect()
}
