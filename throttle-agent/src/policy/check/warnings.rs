//! What is allowed, and probably not meant.

use super::enforces;
use crate::policy::{
    document::{Document, Limit, Mode},
    fault::{Fault, Warning},
    prefix::Prefix,
    units::Rate,
};
use ipnet::IpNet;
use std::collections::HashSet;
use throttle_common::words::{Algorithm, Fate, Per, Reason, Unit};

/// What joined frames may measure; see [`warnings`].
const JOINED_FRAMES: u64 = 64 << 10;

pub(in crate::policy) fn warnings(document: &Document) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |path: String, reason: String, remedy: &str| found.push(Fault::new(reason, remedy).at(path));
    for (index, limit) in document.limits.iter().enumerate() {
        let path = |field: &str| format!("limit[{index}].{field}");
        if document.mode == Mode::Enforce && limit.mode == Mode::Observe {
            warn(path("mode"), "it only observes".to_owned(), "write mode = \"enforce\" to refuse");
        }
        if let Some(tighter) = tighter(document, index) {
            let reason = format!("it never refuses anything: `{}` always refuses first", tighter.name);
            warn(path("rate"), reason, "remove one of the two");
        }
        if limit.per == Per::Tenant && document.tenants.is_empty() {
            warn(path("per"), "there are no tenants: it limits nobody".to_owned(), "add a [[tenant]]");
        }
        if limit.unit == Unit::Bytes && limit.burst_units() < JOINED_FRAMES {
            let (field, what) =
                if limit.algorithm == Algorithm::TokenBucket { ("burst", "burst") } else { ("rate", "window") };
            let reason =
                format!("frames that a device joined to one may be larger than this {what}, and then never pass");
            warn(path(field), reason, "write at least \"64KiB\" unless large receive offload is off");
        }
    }
    edges(document, &mut warn);
    fragments(document, &mut warn);
    neighbours(document, &mut warn);
    sources(document, &mut warn);
    found
}

/// What fixed windows let through is said once, whatever their number: it is how they are.
fn edges(document: &Document, warn: &mut impl FnMut(String, String, &str)) {
    let mut fixed = document.limits.iter().enumerate().filter(|(_, limit)| limit.algorithm == Algorithm::FixedWindow);
    let Some((index, limit)) = fixed.next() else { return };
    let others = match fixed.count() {
        0 => String::new(),
        count => format!(" (so do {count} more)"),
    };
    let rate = limit.allowance();
    let reason = format!("for information: a fixed window of {rate} lets twice that through around its edge{others}");
    warn(
        format!("limit[{index}].algorithm"),
        reason,
        "write \"sliding-window\" or \"token-bucket\" if that is too much",
    );
}

/// Later fragments carry no ports, so that only the host's limits see them: who fragments slips around a service's.
fn fragments(document: &Document, warn: &mut impl FnMut(String, String, &str)) {
    let mut told = HashSet::new();
    for (index, limit) in document.limits.iter().enumerate() {
        let Some(service) = &limit.service else { continue };
        let covered = limit.unit == Unit::Connections
            || document.limits.iter().any(|other| other.service.is_none() && other.unit == limit.unit);
        if covered || !told.insert((service, limit.unit)) {
            continue;
        }
        let unit = limit.unit.name();
        let reason = format!("later fragments carry no ports: they slip around the limits of `{service}`");
        let remedy = format!("add a limit of {unit} without a service, which counts them");
        warn(format!("limit[{index}].service"), reason, &remedy);
    }
}

/// What a host needs to find its neighbours, and they it.
fn neighbours(document: &Document, warn: &mut impl FnMut(String, String, &str)) {
    for (shape, fate) in &document.shapes {
        let family = match shape {
            Reason::Arp => "IPv4",
            Reason::NeighbourDiscovery => "IPv6",
            _ => continue,
        };
        if *fate == Fate::Drop {
            let reason = format!("without it the host is soon unreachable over {family}, for you too");
            warn(format!("shapes.{}", shape.name()), reason, "write \"pass\", or leave it out");
        }
    }
}

/// A limit that refuses whatever the one at `index` would: same unit, at least its scope and its sources, and no
/// larger rate or burst. Of two equal ones, the earlier.
fn tighter(document: &Document, index: usize) -> Option<&Limit> {
    let limit = &document.limits[index];
    // What is open at once does not come back with time.
    let rate = |limit: &Limit| limit.rate.map_or(0, Rate::a_day);
    let bounds = |limit: &Limit| (rate(limit), limit.burst_units());
    document.limits.iter().enumerate().find_map(|(place, other)| {
        let covers = place != index
            && other.unit == limit.unit
            && comparable(limit, other)
            && other.per == limit.per
            && (other.service.is_none() || other.service == limit.service)
            && other.prefix.ipv4 <= limit.prefix.ipv4
            && other.prefix.ipv6 <= limit.prefix.ipv6;
        let same = bounds(other) == bounds(limit) && other.prefix == limit.prefix && other.service == limit.service;
        let refuses = rate(other) <= rate(limit) && other.burst_units() <= limit.burst_units();
        (covers && refuses && enforces(document, other) && (!same || place < index)).then_some(other)
    })
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

fn sources(document: &Document, warn: &mut impl FnMut(String, String, &str)) {
    let sources = &document.sources;
    for (list, prefixes) in [("allow", &sources.allow), ("known", &sources.known), ("block", &sources.block)] {
        let mut seen = HashSet::new();
        for (index, prefix) in prefixes.iter().enumerate() {
            let path = format!("sources.{list}[{index}]");
            if !seen.insert(prefix) {
                warn(path, format!("{prefix} is already in the list"), "remove it");
            } else if prefix.is_everything() {
                let reason = match list {
                    "allow" => "this allows everyone: no block and no limit of that family does anything",
                    "known" => "this trusts every source not to be spoofed: a flood can take every place",
                    _ => "this blocks everyone who is not allowed, you included",
                };
                warn(path, reason.to_owned(), "name the prefixes that you mean");
            }
        }
    }
    let allowed: HashSet<IpNet> = sources.allow.iter().map(|prefix| prefix.net()).collect();
    for (index, prefix) in sources.block.iter().enumerate() {
        if let Some(cover) = supernets(prefix.net()).find(|net| allowed.contains(net)) {
            let reason = format!("{prefix} is never blocked: it lies within {}, which is allowed", Prefix::from(cover));
            warn(format!("sources.block[{index}]"), reason, "remove it, or allow less");
        }
    }
}

/// The shorter prefixes around one.
fn supernets(net: IpNet) -> impl Iterator<Item = IpNet> {
    std::iter::successors(net.supernet(), IpNet::supernet)
}
