//! The numbers of tenants.

use crate::policy::{
    document::Document,
    fault::{Diagnostics, Fault},
    layout::{Layout, Tenants},
};
use std::collections::BTreeSet;
use throttle_common::records::{MAX_TENANTS, NONE};

/// A tenant keeps its number as long as its name lives; the numbers of those that go are free for the policy after this.
pub(super) fn tenants(document: &Document, held: &Layout) -> Result<Tenants, Diagnostics> {
    let taken: BTreeSet<u16> = held.tenants.values().copied().collect();
    let mut free = (NONE + 1..MAX_TENANTS as u16).filter(|number| !taken.contains(number));
    let mut numbers = Tenants::new();
    for (index, tenant) in document.tenants.iter().enumerate() {
        let Some(number) = held.tenants.get(&tenant.name).copied().or_else(|| free.next()) else {
            let reason = "the kernel still holds the numbers of tenants that this policy removes";
            let fault = Fault::new(reason, "remove them first, and add new ones with the next change");
            return Err(Diagnostics(vec![fault.at(format!("tenant[{index}]"))]));
        };
        numbers.insert(tenant.name.clone(), number);
    }
    Ok(numbers)
}
