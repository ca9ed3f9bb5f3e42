//! From a document to the records that the kernel programs read.
//!
//! Pure: the same document and layout give the same records, and a document that cannot be compiled changes nothing.

mod clocks;
pub(super) mod compartments;
mod leases;
mod limits;
mod services;
mod tenants;
mod terms;

use super::{
    check::{Parts, refuse},
    classify,
    document::{Document, Http, Mode, Service},
    fault::Diagnostics,
    layout::{Compiled, Layout},
    units::Rate,
};
use services::Scopes;
use std::sync::Arc;
pub(super) use terms::overridings;
use throttle_common::{
    records::{Budget, FATES, Policy},
    words::{Reason, Unit},
};

/// Compiles a document for a kernel that holds `held`.
///
/// A limit keeps its number as long as its name lives, and a region as long as its unit, prefix lengths and room stay:
/// what is remembered of sources outlives every other change. Numbers and regions of limits that go are not given to
/// others here, because packets in flight still use them; the next compilation may.
pub fn compile(document: &Document, revision: u64, held: &Layout) -> Result<Compiled, Diagnostics> {
    compile_after(None, document, revision, held)
}

/// The same after a document that was compiled before, of which `held` is what came of it: those of its parts that are as
/// they were are not looked at again.
pub fn compile_after(
    before: Option<&Document>,
    document: &Document,
    revision: u64,
    held: &Layout,
) -> Result<Compiled, Diagnostics> {
    refuse(document, before.map_or(Parts::ALL, |before| Parts::differing(before, document)))?;
    let clocks = clocks::clocks(document, held);
    let tenants = match before {
        Some(before) if before.tenants == document.tenants => Arc::clone(&held.tenants),
        _ => Arc::new(tenants::tenants(document, held)?),
    };
    let mut limits = limits::limits(document, held, &clocks, tenants.division(document))?;
    let overridden = terms::overridden(document, &mut limits);
    let counts_connections = document.limits.iter().any(|limit| limit.concurrent.is_some());
    let forwards = document.services.iter().any(|service| service.forwarded);
    let (lists, _) = classify::lists(&document.services);
    let scopes = Scopes::new(document, &limits);
    let policy = Policy {
        revision,
        answers: budget(document.answers.rate),
        events: budget(document.events.rate),
        scope: scopes.of(None),
        observe: u8::from(document.mode == Mode::Observe),
        has_services: u8::from(!document.services.is_empty()),
        fates: fates(document),
        clock_first: u8::from(document.limits.iter().any(meets_every_packet)),
        counts_connections: u8::from(counts_connections),
        counts_forwarded: u8::from(counts_connections && forwards),
        has_breakers: u8::from(document.services.iter().any(Service::has_breaker)),
        measures: u8::from(document.services.iter().any(Service::is_measured)),
        sample_shift: 0,
    };
    let services = services::services(document, &scopes, &clocks);
    let pages = document.services.iter().map(|it| it.http.as_ref().and_then(Http::page)).collect();
    let penalties = limits.iter().filter(|limit| !limit.record.is_guarantee()).filter_map(|numbered| {
        let limit = &document.limits[numbered.index];
        Some((numbered.record.number, limit.penalty?.record(&limit.name)))
    });
    let penalties = penalties.collect();
    let limits = limits.into_iter().map(|limit| (limit.record.number, limit.record)).collect();
    Ok(Compiled {
        policy,
        limits,
        penalties,
        overridden,
        tenants,
        services,
        pages,
        candidates: lists.lists,
        ports: lists.ports,
    })
}

fn meets_every_packet(limit: &super::document::Limit) -> bool {
    limit.service.is_none() && limit.unit != Unit::Connections
}

/// A bucket of messages that holds what is due in one period, or none at all.
fn budget(rate: Rate) -> Budget {
    const NEVER: Budget = Budget { cost: 1, depth: 0 };
    let amount = rate.units(Unit::Packets);
    let Some(price) = rate.price(Unit::Packets) else { return NEVER };
    Budget { cost: price.cost(1), depth: rate.depth(Unit::Packets, amount).unwrap_or(0) }
}

fn fates(document: &Document) -> [u8; FATES] {
    let mut fates = [0; FATES];
    for &reason in Reason::ALL {
        let fate = document.shapes.get(&reason).copied().unwrap_or_else(|| reason.default_fate());
        fates[reason as usize] = fate as u8;
    }
    fates
}

#[cfg(test)]
mod tests;
