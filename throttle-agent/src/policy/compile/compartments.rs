//! How the tables of limits per source are divided, so that no flood of one tenant takes a place of another's sources.

use crate::policy::{document::Document, layout::Tenants};
use throttle_common::{records::NONE, table::OPEN_WAYS};

/// Sets of a compartment at least, room for some fifty sources: in fewer, sources meet though most of the table is empty.
const FEWEST_SETS: u32 = 16;
/// A division stays while it is finer than it needs to be by so many doublings at most: what sources owe stays with it.
const FINER: u8 = 2;

/// Who divides tables.
pub(super) struct Division {
    /// The highest number of a tenant.
    tenants: u16,
    /// The tenant of all the rest, or [`NONE`].
    pub(super) rest: u16,
}

impl Division {
    pub(super) fn of(document: &Document, tenants: &Tenants) -> Self {
        let rest = document.tenants.iter().find(|tenant| tenant.sources.iter().any(|prefix| prefix.is_everything()));
        Self {
            tenants: tenants.values().copied().max().unwrap_or(NONE),
            rest: rest.and_then(|tenant| tenants.get(&tenant.name)).copied().unwrap_or(NONE),
        }
    }

    /// [`Region::compartments`] of a region of so many sets that has been divided as `held`.
    pub(super) fn compartments(&self, sets: u32, held: u8) -> u8 {
        if self.tenants == NONE {
            return 0;
        }
        let needed = finest(sets).min(1 + self.tenants.next_power_of_two().ilog2() as u8);
        if (needed..=needed + FINER).contains(&held) && held <= finest(sets) { held } else { needed }
    }
}

/// Sets for a number of sources: three of four ways are open to any source, and a table that full turns a few away.
pub(in crate::policy) const fn sets(sources: u32) -> u32 {
    sources.div_ceil(OPEN_WAYS as u32)
}

/// Sources for which there are so many sets.
pub(in crate::policy) const fn sources_in(sets: u32) -> u32 {
    sets * OPEN_WAYS as u32
}

/// The finest division of so many sets, as [`Region::compartments`] has it.
fn finest(sets: u32) -> u8 {
    (sets / 2 / FEWEST_SETS).checked_ilog2().map_or(0, |shift| 1 + shift as u8)
}

/// How many compartments a limit with so many sets can have for tenants; 0 where it has too few to be divided.
pub(in crate::policy) fn most(sets: u32) -> u32 {
    match finest(sets) {
        0 => 0,
        finest => 1 << (finest - 1),
    }
}

/// The sets that it takes for as many compartments as there are tenants.
pub(in crate::policy) const fn sets_for(tenants: u32) -> u32 {
    tenants.next_power_of_two() * FEWEST_SETS * 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use throttle_common::records::Region;

    fn among(tenants: u16) -> Division {
        Division { tenants, rest: NONE }
    }

    #[test]
    fn every_tenant_has_a_compartment_where_there_is_room_for_so_many() {
        for tenants in [1, 2, 3, 5, 64, 1000, 10_000] {
            let sets = sets_for(tenants.into());
            assert!(most(sets) >= tenants.into() && most(sets - 1) < most(sets), "{tenants}");
            let region = Region { sets, compartments: among(tenants).compartments(sets, 0), ..Region::default() };
            let firsts: std::collections::HashSet<u32> =
                (NONE..=tenants).map(|tenant| region.compartment(tenant).base).collect();
            assert_eq!(firsts.len(), usize::from(tenants) + 1);
            assert!((NONE..=tenants).all(|tenant| region.compartment(tenant).sets >= FEWEST_SETS));
        }
    }

    #[test]
    fn where_there_are_no_tenants_or_too_few_sets_nothing_is_divided() {
        assert_eq!(among(NONE).compartments(65_536, 3), 0);
        assert_eq!(among(9).compartments(2 * FEWEST_SETS - 1, 0), 0);
        assert_eq!(most(2 * FEWEST_SETS - 1), 0);
    }

    #[test]
    fn a_division_stays_until_it_is_too_coarse_or_far_too_fine() {
        let sets = 65_536;
        let held = among(5).compartments(sets, 0);
        for tenants in [2, 3, 5, 8] {
            assert_eq!(among(tenants).compartments(sets, held), held, "{tenants}");
        }
        assert!(among(9).compartments(sets, held) > held && among(1).compartments(sets, held) < held);
    }
}
