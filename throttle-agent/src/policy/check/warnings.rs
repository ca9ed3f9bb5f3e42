//! What is allowed, and probably not meant.

use super::{
    Parts, compartments, guarantees, health, penalties,
    shadows::{Scopes, never_binds},
};
use crate::policy::{
    document::{Document, LARGEST_FRAME, Limit, Mode},
    fault::{Fault, Warning},
    prefix::Prefix,
};
use ipnet::IpNet;
use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashSet},
};
use throttle_common::words::{Algorithm, Fate, Per, Reason, Unit};

pub(in crate::policy) fn warnings(document: &Document) -> Vec<Warning> {
    of_parts(document, Parts::ALL)
}

/// The warnings of some parts of a document.
pub(super) fn of_parts(document: &Document, parts: Parts) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |path: String, reason: String, remedy: &str| found.push(Fault::new(reason, remedy).at(path));
    let scopes = Scopes::of(document);
    for (index, limit) in document.limits.iter().enumerate() {
        let path = |field: &str| format!("limit[{index}].{field}");
        if document.mode == Mode::Enforce && limit.mode == Mode::Observe {
            warn(path("mode"), "it only observes".to_owned(), "write mode = \"enforce\" to refuse");
        }
        never_binds(document, &scopes, index, &mut warn);
        if limit.unit == Unit::Bytes && limit.burst_units() < LARGEST_FRAME {
            let (field, what) =
                if limit.algorithm == Algorithm::TokenBucket { ("burst", "burst") } else { ("rate", "window") };
            let reason =
                format!("frames that a device joined to one may be larger than this {what}, and then never pass");
            warn(path(field), reason, "write at least \"64KiB\" unless large receive offload is off");
        }
    }
    guarantees::warn(document, &mut warn);
    compartments::warn(document, &mut warn);
    penalties::warn(document, &mut warn);
    edges(document, &mut warn);
    fragments(document, &mut warn);
    neighbours(document, &mut warn);
    health::warn(document, &mut warn);
    if parts.sources || parts.tenants {
        sources(document, &mut warn);
    }
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
    // One that refuses, and that everybody meets: those of tenants are asked of no others.
    let rests = document.tenants.iter().flat_map(|tenant| &tenant.sources).map(|prefix| prefix.net());
    let are_all_tenants = [true, false]
        .iter()
        .all(|is_v4| rests.clone().any(|net| net.prefix_len() == 0 && matches!(net, IpNet::V4(_)) == *is_v4));
    let meets_all = |limit: &&Limit| {
        limit.service.is_none() && limit.mode == Mode::Enforce && (limit.per != Per::Tenant || are_all_tenants)
    };
    let of_host: HashSet<u8> = document.limits.iter().filter(meets_all).map(|limit| limit.unit as u8).collect();
    let mut told = HashSet::new();
    for (index, limit) in document.limits.iter().enumerate() {
        let Some(service) = &limit.service else { continue };
        let covered = limit.unit == Unit::Connections || of_host.contains(&(limit.unit as u8));
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

fn sources(document: &Document, warn: &mut impl FnMut(String, String, &str)) {
    let sources = &document.sources;
    for (list, prefixes) in [("allow", &sources.allow), ("known", &sources.known), ("block", &sources.block)] {
        let mut seen = HashSet::new();
        for (index, prefix) in prefixes.iter().enumerate() {
            let path = || format!("sources.{list}[{index}]");
            if !seen.insert(prefix) {
                warn(path(), format!("{prefix} is already in the list"), "remove it");
            } else if prefix.is_everything() {
                let reason = match list {
                    "allow" => "this allows everyone: no block and no limit of that family does anything",
                    "known" => "this trusts every source not to be spoofed: a flood can take every place",
                    _ => "this blocks everyone who is not allowed, you included",
                };
                warn(path(), reason.to_owned(), "name the prefixes that you mean");
            }
        }
    }
    let (allowed, blocked) = (Covers::of(&sources.allow), Covers::of(&sources.block));
    for (index, tenant) in document.tenants.iter().enumerate() {
        for (place, prefix) in tenant.sources.iter().enumerate() {
            let path = || format!("tenant[{index}].sources[{place}]");
            if let Some(cover) = allowed.around(prefix.net()).next() {
                let reason = format!("no limit touches {prefix}: it lies within {cover}, which is allowed");
                warn(path(), reason, "remove one of the two");
            } else if let Some(cover) = blocked.around(prefix.net()).next() {
                warn(path(), format!("{prefix} is blocked: it lies within {cover}"), "remove one of the two");
            }
        }
    }
    for (index, prefix) in sources.block.iter().enumerate() {
        if let Some(cover) = allowed.around(prefix.net()).find(|cover| cover != prefix) {
            let reason = format!("{prefix} is never blocked: it lies within {cover}, which is allowed");
            warn(format!("sources.block[{index}]"), reason, "remove it, or allow less");
        }
    }
}

/// Prefixes that may lie around others. There may be a hundred thousand of either.
struct Covers {
    prefixes: HashSet<IpNet>,
    /// The lengths that they have, the longest first.
    lengths: BTreeSet<Reverse<u8>>,
}

impl Covers {
    fn of(list: &[Prefix]) -> Self {
        let prefixes: HashSet<_> = list.iter().map(|prefix| prefix.net()).collect();
        Self { lengths: prefixes.iter().map(|net| Reverse(net.prefix_len())).collect(), prefixes }
    }

    /// Those around a prefix, itself included, the longest first.
    fn around(&self, net: IpNet) -> impl Iterator<Item = Prefix> {
        let cover = move |&Reverse(length): &Reverse<u8>| {
            let cover = (length <= net.prefix_len()).then(|| IpNet::new(net.addr(), length).ok()).flatten()?.trunc();
            self.prefixes.contains(&cover).then(|| Prefix::from(cover))
        };
        self.lengths.iter().filter_map(cover)
    }
}
