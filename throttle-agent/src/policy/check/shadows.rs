//! Limits that can refuse nothing: nobody meets them, or another refuses all that they would.

use super::enforces;
use crate::policy::{
    document::{Document, Limit},
    units::Rate,
};
use std::collections::HashMap;
use throttle_common::{
    records::MAX_CONNECTIONS,
    words::{Algorithm, Overflow, Per},
};

/// The limits that a packet for a service may meet together: by service, none for those of the host, in the order of the
/// document. There may be a thousand limits, of which a packet meets a few.
pub(super) struct Scopes<'d>(HashMap<Option<&'d str>, Vec<usize>>);

impl<'d> Scopes<'d> {
    pub(super) fn of(document: &'d Document) -> Self {
        let mut scopes = HashMap::<_, Vec<usize>>::new();
        for (index, limit) in document.limits.iter().enumerate() {
            scopes.entry(limit.service.as_deref()).or_default().push(index);
        }
        Self(scopes)
    }

    /// The places of those that meet all that a limit meets.
    fn around<'s>(&'s self, limit: &'s Limit) -> impl Iterator<Item = usize> {
        let of = |service: Option<&'s str>| self.0.get(&service).into_iter().flatten().copied();
        let own = limit.service.as_deref();
        of(None).chain(own.into_iter().flat_map(move |own| of(Some(own))))
    }
}

pub(super) fn never_binds(
    document: &Document,
    scopes: &Scopes<'_>,
    index: usize,
    warn: &mut impl FnMut(String, String, &str),
) {
    let limit = &document.limits[index];
    let path = |field: &str| format!("limit[{index}].{field}");
    if let Some(tighter) = tighter(document, scopes, index) {
        let reason = format!("it never refuses anything that `{}` would not refuse", tighter.name);
        let bound = if limit.rate.is_some() { "rate" } else { "concurrent" };
        warn(path(bound), reason, "remove one of the two");
    }
    if limit.per == Per::Tenant && document.tenants.is_empty() {
        warn(path("per"), "there are no tenants: it limits nobody".to_owned(), "add a [[tenant]]");
    }
    if limit.concurrent.is_some_and(|connections| connections >= MAX_CONNECTIONS) {
        let reason = format!("it never refuses anything: a host counts no more than {MAX_CONNECTIONS} connections");
        warn(path("concurrent"), reason, "write less, or leave the limit out");
    }
}

/// A limit that refuses whatever the one at `index` would: same unit, at least its scope and its sources, and no
/// larger rate or burst. Of two equal ones, the earlier. Where overrides say otherwise for some, none is said to.
fn tighter<'d>(document: &'d Document, scopes: &Scopes<'_>, index: usize) -> Option<&'d Limit> {
    let limit = &document.limits[index];
    // What is open at once does not come back with time.
    let rate = |limit: &Limit| limit.rate.map_or(0, Rate::a_day);
    let bounds = |limit: &Limit| (rate(limit), limit.burst_units());
    let refuses_all = |&place: &usize| {
        let other = &document.limits[place];
        let overridden = [limit, other].iter().any(|it| !it.overrides.is_empty());
        let alike = place != index && other.unit == limit.unit && comparable(limit, other) && !overridden;
        let covers = alike && reaches(limit, other);
        let same = (bounds(other), other.prefix, &other.service, other.per)
            == (bounds(limit), limit.prefix, &limit.service, limit.per);
        let refuses = rate(other) <= rate(limit) && other.burst_units() <= limit.burst_units();
        covers && refuses && enforces(document, other) && (!same || place < index)
    };
    scopes.around(limit).filter(refuses_all).min().map(|place| &document.limits[place])
}

/// Whether each bucket of a limit lies within one of another's: all that it is charged for the other is charged for too.
fn reaches(limit: &Limit, other: &Limit) -> bool {
    match (limit.per, other.per) {
        (Per::Source, Per::Source) => {
            // Whom the other has no room for it admits, though this one would not.
            let whole = other.overflow != Overflow::Admit || limit.overflow == Overflow::Admit;
            whole && other.prefix.ipv4 <= limit.prefix.ipv4 && other.prefix.ipv6 <= limit.prefix.ipv6
        }
        (_, Per::Host) | (Per::Source | Per::Tenant, Per::Service) => true,
        (one, other) => one == other,
    }
}

/// Whether of two limits the one with the smaller bounds refuses first: both are buckets, both count open connections, or
/// both count in the same windows.
fn comparable(one: &Limit, other: &Limit) -> bool {
    let kind = |limit: &Limit| match limit.algorithm {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => (Algorithm::TokenBucket, None),
        Algorithm::Concurrency => (Algorithm::Concurrency, None),
        windowed => (windowed, limit.rate.map(|rate| rate.per)),
    };
    kind(one) == kind(other)
}
