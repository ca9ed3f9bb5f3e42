//! A limit's part of the table.

use super::{Address, NONE};
use crate::{
    hash::{self, Secret},
    packet::Family,
};

/// A limit's part of the table for one family.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Its first set, and its first aggregate.
    pub base: u32,
    /// Its sets, and its aggregates; 0 where the limit does not touch this family; 1 where all sources share a bucket.
    pub sets: u32,
    /// Bits of an address that make a source: 1 to 32, or 1 to 128; 0 where sources share a bucket.
    pub prefix: u8,
    /// Bits of an address that make an aggregate: 1 to 32, or 1 to 64.
    pub aggregate: u8,
    /// 1 where buckets have two words: then as many sets follow, and as many aggregates, with the second words of all.
    pub doubled: u8,
    /// 0 where its sets are all sources'; else one more than the logarithm to base 2 of how many compartments they have
    /// beside that of no tenant's. Builds before compartments wrote 0, so that their tables mean here what they meant there.
    pub compartments: u8,
}

impl Region {
    /// No sets.
    pub const NONE: Self = Self { base: 0, sets: 0, prefix: 0, aggregate: 0, doubled: 0, compartments: 0 };

    /// [`Region::compartments`] where tenants have as many of them as 2 to the power of `shift`.
    pub const fn compartments_of(shift: u8) -> u8 {
        1 + shift
    }

    /// How many compartments tenants have; 0 where its sets are all sources'.
    pub const fn tenants_compartments(&self) -> u32 {
        if self.compartments == 0 { 0 } else { 1 << (self.compartments - 1) }
    }

    /// Which of these a tenant has, by its number; `None` where its sets are all sources'.
    pub const fn place_of(&self, tenant: u16) -> Option<u32> {
        if self.compartments == 0 { None } else { Some((tenant as u32 - 1) & (self.tenants_compartments() - 1)) }
    }

    /// The part of it that sources of a tenant have to themselves: those of none half of it, and tenants as many equal parts
    /// of the other half. Tenants whose numbers agree in their last bits share one.
    #[inline(always)]
    #[must_use]
    pub const fn compartment(&self, tenant: u16) -> Self {
        if self.compartments == 0 {
            return *self;
        }
        let shift = (self.compartments as u32 - 1) & 15;
        let each = self.sets >> (shift + 1);
        let (first, sets) = if tenant == NONE {
            (each << shift, self.sets - (each << shift))
        } else {
            let place = (tenant as u32 - 1) & ((1 << shift) - 1);
            (each * place, each)
        };
        Self { base: self.base + first, sets, ..*self }
    }

    /// All its compartments, each with the lowest number of a tenant that has it: [`NONE`] where it is no tenant's, or all.
    pub fn divided(&self) -> impl Iterator<Item = (u16, Self)> + use<> {
        let region = *self;
        (NONE..=self.tenants_compartments() as u16).map(move |tenant| (tenant, region.compartment(tenant)))
    }

    /// Whether another has the same sets for the same sources, however they are divided.
    pub fn lies_as(&self, other: &Self) -> bool {
        Self { compartments: 0, ..*self } == Self { compartments: 0, ..*other }
    }

    /// All its sets, those with second words included, and all its aggregates.
    #[inline(always)]
    pub const fn extent(&self) -> u32 {
        self.sets << self.doubled
    }

    /// The key of a source in this region.
    #[inline(always)]
    pub const fn key(&self, source: Address, family: Family, secret: Secret) -> u64 {
        source.key(family, self.prefix, secret)
    }

    /// The set in which a key lives. The region must have sets.
    #[inline(always)]
    pub const fn set(&self, key: u64, secret: Secret) -> u32 {
        self.base + hash::place(key, self.sets, secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn every_set_is_in_one_compartment_and_no_tenants_have_half_of_them(
            base in 0_u32..1 << 20,
            (compartments, sets) in (0_u8..12).prop_flat_map(|it| (Just(it), (1_u32 << it)..(1 << 16))),
        ) {
            let region = Region { base, sets, compartments, ..Region::default() };
            let mut free: HashSet<u32> = (base..base + sets).collect();
            for (tenant, part) in region.divided() {
                prop_assert!(part.sets > 0 && part == region.compartment(tenant));
                prop_assert!((part.base..part.base + part.sets).all(|set| free.remove(&set)));
            }
            prop_assert!(free.is_empty());
            prop_assert!(compartments == 0 || 2 * region.compartment(NONE).sets >= sets);
        }

        #[test]
        fn tenants_share_a_compartment_where_their_numbers_agree_in_their_last_bits(
            compartments in 1_u8..12,
            one in 1_u16..,
            other in 1_u16..,
        ) {
            let region = Region { sets: 1 << 16, compartments, ..Region::default() };
            let agree = (one - 1) % (1 << (compartments - 1)) == (other - 1) % (1 << (compartments - 1));
            prop_assert_eq!(region.compartment(one) == region.compartment(other), agree);
        }
    }
}
