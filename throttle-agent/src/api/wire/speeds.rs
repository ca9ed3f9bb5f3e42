//! Health clocks: how fast the time of limits runs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::policy::units::Span;

/// The longest that a speed with an end may last.
pub const LONGEST_SPEED: Span = Span::of_seconds(30 * 86_400);

/// All health clocks: the host's, and those of services in the policy's order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Speeds {
    /// One for each.
    pub speeds: Vec<SpeedView>,
}

/// A health clock, which the limits of a service go by, or those of the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SpeedView {
    /// Whose; absent for the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// How fast it runs now, as a share of real time: 0.0625 to 1. At 0.5 its limits admit half of their rates, and a
    /// bucket in debt stays busy twice as long.
    pub speed: f64,
    /// Who set it by hand; absent where nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Until when that holds; absent where it has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// After how many seconds without the agent it runs as fast as real time again; absent where it does already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<f64>,
    /// By how many seconds it is behind real time, for all that it ran slower.
    pub behind_seconds: f64,
    /// The limits that go by it.
    pub limits: Vec<String>,
}

/// Has a health clock run at another speed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SpeedRequest {
    /// Whose; absent for the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// As a share of real time: 0.0625 to 1.
    pub speed: f64,
    /// For how long, 1 to 2 592 000 seconds (30 days); absent for as long as nobody sets another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// Has a health clock run as fast as real time again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SpeedReset {
    /// Whose; absent for the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}
