//! The numbers of tenants.

use crate::policy::{
    document::Document,
    fault::{Diagnostics, Fault},
    layout::{Layout, Tenants},
};
use std::collections::{BTreeMap, BTreeSet};
use throttle_common::records::{MAX_TENANTS, NONE};

/// A tenant keeps its number as long as its name lives; the numbers of those that go are free for the policy after this. A new
/// one gets a number that the coarsest division with a compartment for each tells apart from those of all others, if there is
/// one: tables are divided by the lowest bits of numbers.
pub(super) fn tenants(document: &Document, held: &Layout) -> Result<Tenants, Diagnostics> {
    let part = |number: u16| usize::from(number - 1) & (document.tenants.len().next_power_of_two() - 1);
    let kept = document.tenants.iter().filter_map(|tenant| held.tenants.get(&tenant.name));
    let mut had: BTreeSet<usize> = kept.map(|&number| part(number)).collect();
    let taken: BTreeSet<u16> = held.tenants.values().copied().collect();
    let mut free: BTreeSet<u16> = (NONE + 1..MAX_TENANTS as u16).filter(|number| !taken.contains(number)).collect();
    let mut numbers = BTreeMap::new();
    for (index, tenant) in document.tenants.iter().enumerate() {
        let next = || free.iter().find(|&&number| !had.contains(&part(number))).or_else(|| free.first()).copied();
        let Some(number) = held.tenants.get(&tenant.name).copied().or_else(next) else {
            let reason = "the kernel still holds the numbers of tenants that this policy removes";
            let fault = Fault::new(reason, "remove them first, and add new ones with the next change");
            return Err(Diagnostics(vec![fault.at(format!("tenant[{index}]"))]));
        };
        had.insert(part(number));
        free.remove(&number);
        numbers.insert(tenant.name.clone(), number);
    }
    Ok(numbers.into_iter().collect())
}
