//! Limits: their numbers, their prices and their parts of the table.

use super::{
    compartments::{Division, sets},
    leases::Leases,
    terms::{guaranteed, overdraft_shift, terms},
};
use crate::policy::{
    claims::Claims,
    document::{Document, Limit, Mode, Service},
    fault::{Diagnostic, Diagnostics, Fault},
    layout::{Clocks, HeldLimit, Layout},
    overrides::Override,
    units::Rate,
};
use ipnet::IpNet;
use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
};
use throttle_common::{
    packet::Family,
    records::{self, HOST_CLOCK, MAX_LIMITS, MAX_TENANTS, Region, Terms, name_bytes, name_str},
    table::WAYS,
    windows,
    words::{Algorithm, Per},
};

/// A limit as the kernel has it: one of the document, or the guarantee of one.
pub(super) struct Numbered {
    /// The place of the limit in the document.
    pub(super) index: usize,
    /// The number, and the rest.
    pub(super) record: records::Limit,
}

/// The records of all limits, in the order of the document, each with its guarantee behind it.
pub(super) fn limits(
    document: &Document,
    held: &Layout,
    clocks: &Clocks,
    division: &Division,
) -> Result<Vec<Numbered>, Diagnostics> {
    let by_name: HashMap<&str, &HeldLimit> =
        held.limits.iter().map(|held| (name_str(&held.record.name), held)).collect();
    let claims = Claims::of(document);
    let leases = Leases::of(document, held.cpus);
    let mut numbers = Numbers::of(held);
    let mut table = Table::of(held, division);
    let services: HashMap<&str, &Service> =
        document.services.iter().map(|service| (service.name.as_str(), service)).collect();
    let mut found = Vec::new();
    let mut compiled = Vec::with_capacity(document.limits.len());
    let guarantee = |limit: &Limit| limit.guarantees().then(|| limit.beside());
    let all = document.limits.iter().enumerate();
    let all = all.flat_map(|(index, limit)| {
        let own = (index, limit.with(&Override::default()), terms(limit, &claims, None), false);
        let guarantee = guarantee(limit).map(|beside| (index, beside, guaranteed(limit, &claims, None), true));
        [Some(own), guarantee].into_iter().flatten()
    });
    for (index, limit, terms, is_guarantee) in all {
        let before = by_name.get(limit.name.as_str()).copied();
        let number = before.map_or_else(|| numbers.next(), |held| Some(held.number));
        let Some(number) = number else {
            let reason = "the kernel still holds the numbers of limits that this policy removes";
            let fault = Fault::new(reason, "remove them first, and add new ones with the next change");
            found.push(fault.at(format!("limit[{index}]")));
            continue;
        };
        let clock = limit.service.as_ref().map_or(HOST_CLOCK, |service| clocks[service]);
        let missing = table.missing;
        let mut region =
            |family| table.region(&services, &limit, family, before.filter(|held| held.record.goes_by(clock)));
        let (v4, v6) = if limit.per == Per::Source {
            (region(Family::V4), region(Family::V6))
        } else {
            // One bucket, whatever the family.
            let shared = region(Family::V4);
            (shared, shared)
        };
        if table.missing > missing {
            table.largest = table.largest.max(Some((table.missing - missing, index)));
        }
        let batch = if is_guarantee { 0 } else { leases.batch(index, terms) };
        let kind = records::Limit {
            number,
            batch,
            guarantee: is_guarantee.into(),
            clock,
            rest: division.rest,
            ..record(&limit, terms)
        };
        let overdraft_shift = overdraft_shift(&document.limits[index], &claims, &kind);
        compiled.push(Numbered { index, record: records::Limit { v4, v6, overdraft_shift, ..kind } });
    }
    if let Some((index, fault)) = table.shortage() {
        let limit = &document.limits[index];
        let field = if limit.per == Per::Source { ".sources" } else { "" };
        found.push(Diagnostic { name: Some(limit.name.clone()), ..fault.at(format!("limit[{index}]{field}")) });
    }
    if found.is_empty() { Ok(compiled) } else { Err(Diagnostics(found)) }
}

fn record(limit: &Limit, Terms { price, depth }: Terms) -> records::Limit {
    let window = if limit.algorithm.is_windowed() { limit.rate.map_or(0, Rate::window) } else { 0 };
    records::Limit {
        price,
        depth,
        window,
        unit: limit.unit as u8,
        action: limit.action as u8,
        overflow: limit.overflow as u8,
        observe: u8::from(limit.mode == Mode::Observe),
        algorithm: limit.algorithm as u8,
        per: limit.per as u8,
        window_shift: windows::shift(window),
        clock: HOST_CLOCK,
        name: name_bytes(&limit.name),
        ..records::Limit::NONE
    }
}

/// Limit numbers that nobody holds, the lowest first.
struct Numbers {
    held: BTreeSet<u16>,
    next: u16,
}

impl Numbers {
    fn of(held: &Layout) -> Self {
        Self { held: held.limits.iter().map(|limit| limit.number).collect(), next: 0 }
    }

    fn next(&mut self) -> Option<u16> {
        while self.held.contains(&self.next) {
            self.next += 1;
        }
        let number = self.next;
        self.next += 1;
        (u32::from(number) < MAX_LIMITS).then_some(number)
    }
}

/// The table's free ranges, and what was asked of them in vain.
struct Table<'d> {
    sets: u32,
    division: &'d Division,
    /// Ranges that nobody holds, as base and length, by base.
    free: Vec<(u32, u32)>,
    /// Sets of the document's limits, whether they found room or not.
    asked: u64,
    /// Sets that found no room.
    missing: u64,
    /// The most of these that are one limit's, and its place in the document.
    largest: Option<(u64, usize)>,
    /// [`Layout::bearable`].
    bearable: u64,
}

impl<'d> Table<'d> {
    fn of(held: &Layout, division: &'d Division) -> Self {
        let mut taken: Vec<(u32, u32)> = held
            .limits
            .iter()
            .flat_map(|limit| [limit.record.v4, limit.record.v6])
            .filter(|region| region.sets > 0)
            .map(|region| (region.base, region.base + region.extent()))
            .collect();
        taken.sort_unstable();
        let mut free = Vec::new();
        let mut start = 0;
        for (base, end) in taken {
            if base > start {
                free.push((start, base - start));
            }
            start = start.max(end);
        }
        if held.sets > start {
            free.push((start, held.sets - start));
        }
        Self { sets: held.sets, division, free, asked: 0, missing: 0, largest: None, bearable: held.bearable }
    }

    /// The limit's region for a family: the one that it has, the first range that is large enough, or none where the
    /// limit never meets that family.
    fn region(
        &mut self,
        services: &HashMap<&str, &Service>,
        limit: &Limit,
        family: Family,
        before: Option<&HeldLimit>,
    ) -> Region {
        let shared = limit.per != Per::Source;
        if !shared && !meets(services, limit, family) {
            return Region::default();
        }
        let (prefix, aggregate) = match family {
            _ if shared => (0, 0),
            Family::V4 => (limit.prefix.ipv4, limit.aggregate.ipv4),
            Family::V6 => (limit.prefix.ipv6, limit.aggregate.ipv6),
        };
        let sets = match limit.per {
            Per::Source => sets(limit.sources),
            // Room for all that there may be: so a tenant's bucket stays where it is, whoever comes and goes.
            Per::Tenant => MAX_TENANTS / WAYS as u32,
            Per::Service | Per::Host => 1,
        };
        let doubled = u8::from(limit.algorithm == Algorithm::SlidingWindow);
        let mut wanted = Region { base: 0, sets, prefix, aggregate, doubled, compartments: 0 };
        let extent = wanted.extent();
        self.asked += u64::from(extent);
        let window = limit.rate.filter(|_| limit.algorithm.is_windowed()).map_or(0, Rate::window);
        let alike = |held: &&HeldLimit| {
            held.record.unit == limit.unit as u8
                && held.record.per == limit.per as u8
                && held.record.is_concurrency() == limit.concurrent.is_some()
                && held.record.window == window
        };
        let held = before.filter(alike).map(|held| *held.record.region(family));
        let fits =
            |held: &Region| Region { base: held.base, ..wanted }.lies_as(held) && held.base + extent <= self.sets;
        let kept = held.filter(fits);
        if !shared {
            wanted.compartments = self.division.compartments(sets, kept.map_or(0, |kept| kept.compartments));
        }
        if let Some(Region { base, .. }) = kept {
            return Region { base, ..wanted };
        }
        let Some(range) = self.free.iter_mut().find(|(_, length)| *length >= extent) else {
            self.missing += u64::from(extent);
            return wanted;
        };
        let base = range.0;
        *range = (range.0 + extent, range.1 - extent);
        Region { base, ..wanted }
    }

    /// The limit that misses most, and what that is.
    fn shortage(&self) -> Option<(usize, Fault)> {
        let (wanted, index) = self.largest?;
        let free: u64 = self.free.iter().map(|&(_, length)| u64::from(length)).sum();
        let fits = self.asked <= u64::from(self.sets);
        let mut reason = format!(
            "there is no room for {wanted} of its sets: all limits need {} of the table, which has {}",
            self.asked, self.sets
        );
        if fits {
            _ = write!(reason, "; {} of them have no place in one piece among the {free} that are free", self.missing);
        }
        let remedy = if fits {
            "remove or shrink limits in a change of its own, so that their sets are free for the next".to_owned()
        } else {
            let larger = self.asked.next_power_of_two();
            let mut remedy = "ask room for fewer `sources` (3 to a set and family)".to_owned();
            if larger <= self.bearable {
                _ = write!(
                    remedy,
                    "; or, because a table keeps its size, run `throttle detach` and start the agent with \
                     --table-sets {larger}: buckets and counters begin anew"
                );
            }
            remedy
        };
        Some((index, Fault::new(reason, remedy)))
    }
}

/// Whether packets of a family can come under the limit: not where its service is of one destination in the other.
fn meets(services: &HashMap<&str, &Service>, limit: &Limit, family: Family) -> bool {
    let service = limit.service.as_ref().and_then(|name| services.get(name.as_str()));
    match service.and_then(|service| service.destination).map(IpNet::from) {
        None => true,
        Some(IpNet::V4(_)) => family == Family::V4,
        Some(IpNet::V6(_)) => family == Family::V6,
    }
}
