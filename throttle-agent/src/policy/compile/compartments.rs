//! How the tables of limits per source are divided, so that no flood of one tenant takes a place of another's sources.

use crate::policy::{
    document::{Document, Tenant},
    layout::Tenants,
};
use throttle_common::{
    records::{NONE, Region},
    table::OPEN_WAYS,
};

/// Sets of a compartment at least: in fewer, sources meet though most of the table is empty. Of 29 that are busy at once 1 in
/// 100 finds no place in so many.
const FEWEST_SETS: u32 = 64;
/// A division stays while it is finer than it needs to be by so many doublings at most.
const FINER: u8 = 2;

/// How tables are divided.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Division {
    /// `compartments` of a region that is large enough.
    needed: u8,
    /// The tenant of all the rest, or [`NONE`].
    pub(super) rest: u16,
}

impl Division {
    pub(in crate::policy) fn of(document: &Document, tenants: &Tenants) -> Self {
        let rest = rests(document).next().and_then(|(_, tenant)| tenants.get(&tenant.name)).copied().unwrap_or(NONE);
        let others: Vec<u16> = tenants.values().copied().filter(|&number| number != rest).collect();
        // In fewer parts than there are of them, some meet.
        let fewest = others.len().next_power_of_two().trailing_zeros() as u8;
        let differ = |shift: &u8| {
            let mut seen = vec![false; 1 << shift];
            let place = |number: u16| usize::from((number - 1) & ((1 << shift) - 1));
            others.iter().all(|&number| !std::mem::replace(&mut seen[place(number)], true))
        };
        let shift = (fewest..u16::BITS as u8).find(differ).unwrap_or_default();
        let needed = if others.is_empty() { 0 } else { Region::compartments_of(shift) };
        Self { needed, rest }
    }

    /// The same of a region of so many sets that has been divided as `held`.
    pub(super) fn compartments(&self, sets: u32, held: u8) -> u8 {
        if self.needed == 0 {
            return 0;
        }
        let needed = self.needed.min(finest(sets));
        let fine = needed.saturating_add(FINER).min(finest(sets));
        if (needed..=fine).contains(&held) { held } else { needed }
    }
}

/// The tenants of all the rest, with their places: whoever is no other's is the first one's.
pub(in crate::policy) fn rests(document: &Document) -> impl Iterator<Item = (usize, &Tenant)> {
    let is_everything = |(_, tenant): &(usize, &Tenant)| tenant.sources.iter().any(|prefix| prefix.is_everything());
    document.tenants.iter().enumerate().filter(is_everything)
}

/// Sets for a number of sources: three of four ways are open to any source, and a table that full turns a few away.
pub(in crate::policy) const fn sets(sources: u32) -> u32 {
    sources.div_ceil(OPEN_WAYS as u32)
}

/// Sources for which there are so many sets.
pub(in crate::policy) const fn sources_in(sets: u32) -> u32 {
    sets * OPEN_WAYS as u32
}

/// The finest division of so many sets, as `compartments` of a region has it.
fn finest(sets: u32) -> u8 {
    (sets / 2 / FEWEST_SETS).checked_ilog2().map_or(0, |shift| Region::compartments_of(shift as u8))
}

/// How many compartments a limit with so many sets can have for tenants; 0 where it has too few to be divided.
pub(in crate::policy) fn most(sets: u32) -> u32 {
    Region { compartments: finest(sets), ..Region::NONE }.tenants_compartments()
}

/// The sets that it takes for as many compartments as there are tenants.
pub(in crate::policy) const fn sets_for(tenants: u32) -> u32 {
    tenants.next_power_of_two() * FEWEST_SETS * 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Of tenants with these numbers, the last of them that of all the rest if `rest` says so.
    fn among(numbers: impl IntoIterator<Item = u16>, rest: bool) -> Division {
        let tenants: Tenants = numbers.into_iter().map(|number| (format!("{number:05}"), number)).collect();
        let tenant = |(name, is_last): (&String, bool)| Tenant {
            name: name.clone(),
            sources: if rest && is_last { vec!["::/0".parse().unwrap()] } else { Vec::new() },
        };
        let last = tenants.len();
        let all = tenants.keys().zip(1..).map(|(name, it)| tenant((name, it == last))).collect::<Vec<_>>();
        Division::of(&Document { tenants: all.into(), ..Document::default() }, &tenants)
    }

    #[test]
    fn every_tenant_has_a_compartment_where_there_is_room_for_so_many() {
        for tenants in [1, 2, 3, 5, 64, 1000, 10_000] {
            let sets = sets_for(tenants.into());
            assert!(most(sets) >= tenants.into() && most(sets - 1) < most(sets), "{tenants}");
            let compartments = among(1..=tenants, false).compartments(sets, 0);
            let region = Region { sets, compartments, ..Region::default() };
            let firsts: HashSet<u32> = (NONE..=tenants).map(|tenant| region.compartment(tenant).base).collect();
            assert_eq!(firsts.len(), usize::from(tenants) + 1);
            assert!((NONE..=tenants).all(|tenant| region.compartment(tenant).sets >= FEWEST_SETS));
        }
    }

    #[test]
    fn there_are_as_many_as_tell_their_numbers_apart_whatever_these_are() {
        let sets = 1 << 20;
        for (numbers, compartments) in [(vec![998, 999], 2), (vec![1, 9], 5), (vec![7], 1), (vec![2, 4, 6, 8], 4)] {
            assert_eq!(among(numbers.clone(), false).compartments(sets, 0), compartments, "{numbers:?}");
        }
        // The tenant of all the rest has the part of those of none.
        assert_eq!([1, 4, 5].map(|last| among(1..=last, true).compartments(sets, 0)), [0, 3, 3]);
    }

    #[test]
    fn where_there_are_no_tenants_or_too_few_sets_nothing_is_divided() {
        assert_eq!(among([], false).compartments(65_536, 3), 0);
        assert_eq!(among(1..=9, false).compartments(2 * FEWEST_SETS - 1, 0), 0);
        assert_eq!(most(2 * FEWEST_SETS - 1), 0);
    }

    #[test]
    fn a_division_stays_until_it_is_too_coarse_or_far_too_fine() {
        let sets = 65_536;
        let held = among(1..=5, false).compartments(sets, 0);
        for tenants in [2, 3, 5, 8] {
            assert_eq!(among(1..=tenants, false).compartments(sets, held), held, "{tenants}");
        }
        assert!(
            among(1..=9, false).compartments(sets, held) > held && among([1], false).compartments(sets, held) < held
        );
    }
}
