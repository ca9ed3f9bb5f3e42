//! What a document may not say although every field of it can be read, and what it should think twice about.

mod backends;
mod compartments;
mod guarantees;
mod health;
mod http;
mod limits;
mod names;
mod overrides;
mod penalties;
mod services;
mod shadows;
mod sources;
mod tenants;
mod warnings;

use super::{
    document::Document,
    fault::{Diagnostic, Diagnostics, Fault, Warning},
    read::Unread,
    units::{Rate, Scale},
};
use std::collections::HashSet;

pub(super) use limits::rate_and_concurrent;
pub(super) use warnings::warnings;

/// Checks the meaning of a document that came as JSON or was edited.
pub fn check(document: &Document) -> Result<Vec<Warning>, Diagnostics> {
    refuse(document, Parts::ALL)?;
    Ok(named(document, warnings(document)))
}

/// What a document is warned of and the one before it is not, in words: who changes one thing is not told of all others
/// again.
pub fn new_warnings(before: &Document, after: &Document) -> Vec<String> {
    let parts = Parts::differing(before, after);
    let texts = |document| named(document, warnings::of_parts(document, parts)).into_iter().map(|it| it.text());
    let known: HashSet<String> = texts(before).collect();
    texts(after).filter(|warning| !known.contains(warning)).collect()
}

/// Refuses a document for what some of its parts say, by themselves or together with others.
pub(super) fn refuse(document: &Document, parts: Parts) -> Result<(), Diagnostics> {
    let faults = faults(document, &Unread::default(), parts);
    if faults.is_empty() { Ok(()) } else { Err(Diagnostics(named(document, faults))) }
}

/// The parts of a document of which there may be very much. What the others say is always looked at.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "a set of parts, each looked at or not")]
pub(super) struct Parts {
    services: bool,
    backends: bool,
    tenants: bool,
    sources: bool,
}

impl Parts {
    /// Everything.
    pub(super) const ALL: Self = Self { services: true, backends: true, tenants: true, sources: true };

    /// What is not as it was in the document before.
    pub(super) fn differing(before: &Document, after: &Document) -> Self {
        let services = before.services != after.services;
        Self {
            services,
            // They are theirs.
            backends: services || before.backends != after.backends,
            tenants: before.tenants != after.tenants,
            sources: before.sources != after.sources,
        }
    }
}

fn named(document: &Document, mut found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    for diagnostic in &mut found {
        diagnostic.name = name(document, &diagnostic.path);
    }
    found
}

/// What some parts of a document may not say, as far as it was read: nothing is said of what stands in for the rest.
pub(super) fn faults(document: &Document, unread: &Unread, parts: Parts) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if parts.services {
        names::services(document, unread, &mut found);
    }
    if parts.backends {
        names::backends(document, unread, &mut found);
    }
    if parts.tenants {
        names::tenants(document, unread, &mut found);
    }
    names::limits(document, unread, &mut found);
    if parts.services {
        services::check(document, unread, &mut found);
        http::check(document, unread, &mut found);
    }
    if parts.backends {
        backends::check(document, unread, &mut found);
    }
    if parts.tenants {
        tenants::check(document, unread, &mut found);
    }
    health::check(document, unread, &mut found);
    limits::check(document, unread, &mut found);
    overrides::check(document, unread, &mut found);
    guarantees::check(document, unread, &mut found);
    penalties::check(document, unread, &mut found);
    if parts.sources {
        sources::check(document, unread, &mut found);
    }
    for (path, rate) in [("answers.rate", document.answers.rate), ("events.rate", document.events.rate)] {
        if unread.spares(path) {
            budget(path, rate, &mut found);
        }
    }
    if found.is_empty() && unread.is_empty() {
        overrides::count(document, &mut found);
    }
    found
}

/// The name of the limit, service, backend or tenant that a path leads into.
fn name(document: &Document, path: &str) -> Option<String> {
    let (list, rest) = path.split_once('[')?;
    let index: usize = rest.split_once(']')?.0.parse().ok()?;
    let name = match list {
        "limit" => &document.limits.get(index)?.name,
        "service" => &document.services.get(index)?.name,
        "backend" => &document.backends.get(index)?.name,
        "tenant" => &document.tenants.get(index)?.name,
        _ => return None,
    };
    (!name.is_empty()).then(|| name.clone())
}

fn budget(path: &str, rate: Rate, found: &mut Vec<Diagnostic>) {
    if rate.quantity.scale() != Scale::One {
        found.push(Fault::new(format!("`{rate}` counts no messages"), "write a bare number, such as 100/s").at(path));
    } else if rate.quantity.amount() > 10_000_000 {
        let remedy = "write at most 10000000 in each period; 0/s for none";
        found.push(Fault::new(format!("`{rate}` is more than a host can send"), remedy).at(path));
    }
}

#[cfg(test)]
mod tests;
