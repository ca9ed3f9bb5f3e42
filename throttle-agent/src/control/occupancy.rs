//! How full the parts of the table are that limits per source have.

use throttle_common::{
    packet::Family,
    records::{self, NONE, Region},
    table::WAYS,
};

use super::Control;
use crate::{
    api::wire::{CompartmentLoad, Forecast, LimitView, RegionLoad},
    datapath::{Compartment, Use},
    policy::{self, sharing::Sharing},
};

/// The share of a region's slots in debt that is worth a word: four of five that are open to any source.
pub(super) const CROWDED: f64 = 0.6;
/// Tenants of a compartment that are named.
const NAMED: usize = 3;

impl Control {
    /// The parts of the table that a limit has, with how much of each is in use, and what fills it at a speed of its clock.
    pub(super) fn regions(
        &self,
        record: &records::Limit,
        uses: [Use; 2],
        speed: f64,
        sharing: &Sharing<'_>,
    ) -> Vec<RegionLoad> {
        if record.is_shared() {
            return Vec::new();
        }
        let families = [(Family::V4, "ipv4"), (Family::V6, "ipv6")];
        let of = |((family, name), usage): ((Family, &str), Use)| {
            let region = record.region(family);
            if region.sets == 0 {
                return None;
            }
            let slots = u64::from(region.sets) * WAYS as u64;
            let forecast = policy::forecast::Forecast::of(record, family);
            Some(RegionLoad {
                family: name.to_owned(),
                prefix: region.prefix,
                aggregate: region.aggregate,
                slots,
                busy: usage.busy,
                aggregates_busy: usage.aggregates_busy,
                occupancy: usage.busy as f64 / slots as f64,
                compartments: region.tenants_compartments(),
                sharing_tenants: sharing.tenants(record, region).len() as u64,
                fullest: usage.fullest.map(|fullest| self.compartment(record, region, fullest)),
                forecast: forecast.map(|forecast| Forecast::of(&forecast, speed)),
            })
        };
        families.into_iter().zip(uses).filter_map(of).collect()
    }

    pub(super) fn compartment(
        &self,
        record: &records::Limit,
        region: &Region,
        fullest: Compartment,
    ) -> CompartmentLoad {
        let last = self.datapath.tenants().values().copied().max().unwrap_or(NONE);
        let alike = (fullest.tenant..=last).step_by(region.tenants_compartments().max(1) as usize);
        let sharing = alike.filter(|&number| fullest.tenant != NONE && number != record.rest);
        let mut names = sharing.map(|number| self.datapath.tenant(number)).filter(|name| !name.is_empty());
        let tenants = names.by_ref().take(NAMED).collect();
        let Compartment { slots, busy, .. } = fullest;
        CompartmentLoad { tenants, others: names.next().is_some(), slots, busy, occupancy: fullest.occupancy() }
    }
}

/// What makes a slot of a region busy.
pub(super) const fn in_use(is_concurrency: bool) -> &'static str {
    if is_concurrency { "slots count open connections" } else { "buckets are in debt" }
}

/// Of which part of a region this is said.
pub(super) fn in_part(whose: &str) -> String {
    format!(" in the part of {whose}")
}

/// What deserves a word: regions in which sources will soon find no place.
pub(super) fn crowded(view: &LimitView) -> impl Iterator<Item = String> {
    let is_concurrency = view.limit.concurrent.is_some();
    let or = if is_concurrency { "" } else { ", or shorten what a packet costs (rate)" };
    let limit = &view.limit.name;
    view.regions.iter().filter_map(move |region| {
        let (whose, used) = match &region.fullest {
            Some(fullest) => (in_part(&fullest.whose()), fullest.occupancy),
            None => (String::new(), region.occupancy),
        };
        (used >= CROWDED).then(|| {
            format!(
                "limit `{limit}`: {:.0} % of its {} {}{whose}, above {:.0} % new sources find no place; raise `sources`{or}",
                used * 100.0,
                region.family,
                in_use(is_concurrency),
                CROWDED * 100.0,
            )
        })
    })
}
