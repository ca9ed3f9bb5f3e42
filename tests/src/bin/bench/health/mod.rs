//! Health in simulation: what the agent's controller and detector make of an overload and of a day of heartbeats, and what
//! others make of the same. Only simulated time passes, by seeds, so that it is the same on every machine.

mod detection;
mod fleet;
mod overload;

use super::report::{Effort, Section};
use anyhow::Result;

/// Simulates, and gives the tables.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    let mut section = Section::default();
    overload::simulate(&mut section, effort)?;
    fleet::simulate(&mut section, effort)?;
    detection::simulate(&mut section, effort)?;
    Ok(section)
}
