//! The numbers of health clocks.

use crate::policy::{
    document::Document,
    layout::{Clocks, Layout},
};
use std::collections::BTreeSet;
use throttle_common::records::{HOST_CLOCK, MAX_CLOCKS};

/// A service keeps its clock as long as its name lives. The numbers of those that go are free for the policy after this;
/// there are as many as two policies can have.
pub(super) fn clocks(document: &Document, held: &Layout) -> Clocks {
    let taken: BTreeSet<u16> = held.clocks.values().copied().collect();
    let mut free = (HOST_CLOCK + 1..MAX_CLOCKS as u16).filter(|number| !taken.contains(number));
    let mut number = |name: &String| {
        let held = held.clocks.get(name).copied();
        held.unwrap_or_else(|| free.next().expect("more numbers than services of two policies"))
    };
    document.services.iter().map(|service| (service.name.clone(), number(&service.name))).collect()
}
