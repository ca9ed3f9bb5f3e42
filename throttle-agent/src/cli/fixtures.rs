//! What several tests of what is shown begin from.

use throttle_agent::api::wire::{Forecast, RegionLoad};

/// A region of the default size, a little of it in use.
pub(super) fn region(family: &str) -> RegionLoad {
    RegionLoad {
        family: family.to_owned(),
        prefix: 32,
        aggregate: 24,
        slots: 262_144,
        busy: 8_913,
        aggregates_busy: 0,
        occupancy: 0.034,
        compartments: 0,
        sharing_tenants: 0,
        fullest: None,
        forecast: Some(Forecast {
            busy_seconds: 1.2,
            places: 196_608,
            flood_per_second: 24_900.0,
            tenant_flood_per_second: None,
        }),
    }
}
