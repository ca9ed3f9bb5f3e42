//! What policy compiles from and to: what the kernel holds, and what it shall hold.

use super::{compile::compartments::Division, document::Document};
use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, OnceLock},
};
use throttle_common::records;

/// What the kernel holds now.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Sets of the table of buckets.
    pub sets: u32,
    /// Sets that this machine has memory for; 0 where that is not known, and then no larger table is advised.
    pub bearable: u64,
    /// CPUs that judge packets; 0 where that is not known, and then every packet is charged by itself.
    pub cpus: u32,
    /// The limits of the policy in force.
    pub limits: Vec<HeldLimit>,
    /// Its tenants.
    pub tenants: Arc<Tenants>,
    /// Its services' health clocks.
    pub clocks: Clocks,
}

/// The numbers of tenants, by their names.
#[derive(Clone, Debug, Default)]
pub struct Tenants {
    numbers: BTreeMap<String, u16>,
    /// How they divide tables, once that was asked for: of many it takes long to say.
    division: OnceLock<Division>,
}

impl Tenants {
    /// How these, which are those of a document, divide tables.
    pub(super) fn division(&self, document: &Document) -> &Division {
        self.division.get_or_init(|| Division::of(document, self))
    }
}

impl Deref for Tenants {
    type Target = BTreeMap<String, u16>;

    fn deref(&self) -> &BTreeMap<String, u16> {
        &self.numbers
    }
}

impl FromIterator<(String, u16)> for Tenants {
    fn from_iter<I: IntoIterator<Item = (String, u16)>>(numbers: I) -> Self {
        Self { numbers: numbers.into_iter().collect(), division: OnceLock::new() }
    }
}

impl PartialEq for Tenants {
    fn eq(&self, other: &Self) -> bool {
        self.numbers == other.numbers
    }
}

impl Eq for Tenants {}

/// The numbers of services' health clocks, by the services' names.
pub type Clocks = BTreeMap<String, u16>;

/// What classes of sources have of limits, by the numbers of limit and class.
pub type Overridden = BTreeMap<(u16, u16), records::Terms>;

/// A limit in force.
#[derive(Clone, Debug)]
pub struct HeldLimit {
    /// Its number.
    pub number: u16,
    /// Its record, with its name and regions.
    pub record: records::Limit,
}

/// A policy as the kernel reads it. Whatever is not named here reads as zero in its generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// The head.
    pub policy: records::Policy,
    /// Limits by number.
    pub limits: Vec<(u16, records::Limit)>,
    /// What becomes of whom they refuse again and again, by number.
    pub penalties: Vec<(u16, records::Penalty)>,
    /// What some have of them instead.
    pub overridden: Overridden,
    /// Tenants by number.
    pub tenants: Arc<Tenants>,
    /// Services; the number of each is its index + 1.
    pub services: Vec<records::Service>,
    /// The pages of services, in the same order; none of those that have none.
    pub pages: Vec<Option<records::Page>>,
    /// Lists of service numbers, padded with [`records::NONE`]; the number of each is its index + 1.
    pub candidates: Vec<[u16; records::CANDIDATES]>,
    /// [`records::port_slot`]s with the number of their list.
    pub ports: Vec<(u32, u16)>,
}

impl Compiled {
    /// The same as another revision.
    #[must_use]
    pub fn as_revision(self, revision: u64) -> Self {
        Self { policy: records::Policy { revision, ..self.policy }, ..self }
    }
}
