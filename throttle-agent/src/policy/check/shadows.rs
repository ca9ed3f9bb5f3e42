//! Limits that can refuse nothing: nobody meets them, or another refuses all that they would.

use super::health::slowed;
use crate::policy::{
    document::{Document, Limit, Mode},
    units::Rate,
};
use std::collections::{BTreeSet, HashMap, HashSet};
use throttle_common::{
    records::MAX_CONNECTIONS,
    words::{Algorithm, Overflow, Per, Unit},
};

/// The limits that a packet for a service may meet together: by service, none for those of the host, in the order of the
/// document. There may be a thousand limits, of which a packet meets a few.
pub(super) struct Scopes<'d> {
    limits: HashMap<Option<&'d str>, Vec<usize>>,
    /// The services whose limits follow their health.
    slowed: HashSet<&'d str>,
    /// How wide those are that guarantee something, by what they count.
    guarantees: BTreeSet<(u8, bool, u8)>,
}

impl<'d> Scopes<'d> {
    pub(super) fn of(document: &'d Document) -> Self {
        let mut limits = HashMap::<_, Vec<usize>>::new();
        for (index, limit) in document.limits.iter().enumerate() {
            limits.entry(limit.service.as_deref()).or_default().push(index);
        }
        let guarantees = document.limits.iter().filter(|limit| limit.guarantees());
        Self {
            limits,
            slowed: slowed(document),
            guarantees: guarantees.map(|it| (it.unit as u8, it.concurrent.is_some(), it.reach())).collect(),
        }
    }

    /// The places of those that meet all that a limit meets.
    fn around<'s>(&'s self, limit: &'s Limit) -> impl Iterator<Item = usize> {
        let of = |service: Option<&'s str>| self.limits.get(&service).into_iter().flatten().copied();
        let own = limit.service.as_deref();
        of(None).chain(own.into_iter().flat_map(move |own| of(Some(own))))
    }

    /// Whether a limit refuses less than the other where its service is unwell.
    fn follows_health(&self, limit: &Limit, other: &Limit) -> bool {
        limit.service != other.service && limit.service.as_deref().is_some_and(|it| self.slowed.contains(it))
    }

    /// Whether somebody may be within a guarantee that the other limit cannot refuse, and the narrower one can.
    fn guarantees_between(&self, limit: &Limit, other: &Limit) -> bool {
        let of = |reach: u8| (limit.unit as u8, limit.concurrent.is_some(), reach);
        let (narrow, wide) = (limit.reach(), other.reach());
        narrow < wide && self.guarantees.range(of(narrow + 1)..=of(wide)).next().is_some()
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
        warn(path(bound), reason, if tighter.guarantees() { "remove it" } else { "remove one of the two" });
    }
    if limit.per == Per::Tenant && document.tenants.is_empty() {
        warn(path("per"), "there are no tenants: it limits nobody".to_owned(), "add a [[tenant]]");
    }
    if limit.concurrent.is_some_and(|connections| connections >= MAX_CONNECTIONS) {
        let reason = format!("it never refuses anything: a host counts no more than {MAX_CONNECTIONS} connections");
        warn(path("concurrent"), reason, "write less, or leave the limit out");
    }
}

/// A limit that refuses whatever the one at `index` would, and whatever its overrides would: same unit, or packets of which each
/// new connection is one, at least its scope and its sources, and no larger rate or burst. Of two equal ones, the earlier. One
/// that has overrides itself is not said to; nor where the limit is there for more than to refuse, because it guarantees
/// something, or for the health of its service.
fn tighter<'d>(document: &'d Document, scopes: &Scopes<'_>, index: usize) -> Option<&'d Limit> {
    let limit = &document.limits[index];
    if limit.guarantees() {
        return None;
    }
    // What is open at once does not come back with time.
    let bounds = |limit: &Limit| (limit.rate.map_or(0, Rate::a_day), limit.burst_units());
    let own = bounds(limit);
    let overridden = limit.overrides.iter().map(|terms| bounds(&limit.with(terms)));
    let least = overridden.fold(own, |(rate, burst), terms| (rate.min(terms.0), burst.min(terms.1)));
    let refuses_all = |&place: &usize| {
        let other = &document.limits[place];
        let counts = other.unit == limit.unit || (other.unit, limit.unit) == (Unit::Packets, Unit::Connections);
        let alike = place != index && counts && comparable(limit, other) && other.overrides.is_empty();
        let covers = alike && reaches(limit, other);
        let same = limit.overrides.is_empty()
            && (bounds(other), other.unit, other.prefix, &other.service, other.per)
                == (own, limit.unit, limit.prefix, &limit.service, limit.per);
        let (rate, burst) = bounds(other);
        let refuses = rate <= least.0 && burst <= least.1;
        let besides = scopes.follows_health(limit, other) || scopes.guarantees_between(limit, other);
        covers && refuses && !besides && other.mode == Mode::Enforce && (!same || place < index)
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
