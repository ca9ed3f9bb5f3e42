//! Sources: nobody can be allowed and blocked at once.

use crate::policy::{
    document::Document,
    fault::{Diagnostic, Fault},
};
use std::collections::HashMap;

pub(super) fn check(document: &Document, found: &mut Vec<Diagnostic>) {
    let sources = &document.sources;
    let places = |list: &'static str| move |(index, prefix)| (prefix, format!("{list}[{index}]"));
    let mut trusted: HashMap<_, _> = sources.known.iter().enumerate().map(places("known")).collect();
    trusted.extend(sources.allow.iter().enumerate().map(places("allow")));
    for (index, prefix) in sources.block.iter().enumerate() {
        if let Some(place) = trusted.get(prefix) {
            let reason = format!("{prefix} is blocked here and trusted in sources.{place}");
            found.push(Fault::new(reason, "remove it from one of the two").at(format!("sources.block[{index}]")));
        }
    }
}
