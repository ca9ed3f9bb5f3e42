//! What several tests of what is shown begin from.

use throttle_agent::{
    api::wire::{Forecast, HealthLine, RegionLoad, WindowView, WorstBackend},
    policy::Mode,
};

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

/// The health of a service of two backends, one of which is suspect.
pub(super) fn health_line() -> HealthLine {
    HealthLine {
        service: "web".to_owned(),
        mode: Mode::Enforce,
        actuator: "window".to_owned(),
        signal: "latency".to_owned(),
        cause: "requests wait too long: it shrinks".to_owned(),
        window: Some(WindowView { decided: 38, in_force: Some(38), policy: 200, least: 2, most: 200, open: Some(37) }),
        speed: 0.5,
        breaker: Some("half-open".to_owned()),
        backends: 2,
        backends_well: 1,
        worst: Some(WorstBackend {
            backend: "web-2".to_owned(),
            address: "10.0.0.6:80".parse().expect("an address"),
            level: "suspect".to_owned(),
            suspicion: 2.14,
            breaker: Some("closed".to_owned()),
        }),
    }
}
