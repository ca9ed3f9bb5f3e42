//! What becomes of a source that a limit refuses again and again.

use super::default;
use crate::policy::units::Span;
use serde::Serialize;
use throttle_common::{penalties, records};
use utoipa::ToSchema;

/// A block that ends, of a source that the limit has refused too often, and longer each time. Only where each source is by
/// itself. What it does to whoever shares an address, and what it asks of one before it is blocked, see the manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Penalty {
    /// How many refusals trip it.
    pub after: u32,
    /// Within how long.
    pub within: Span,
    /// How long the first block lasts; each further one twice as long as the one before. At least `within`. Default `1m`.
    #[serde(default = "default::sentence")]
    pub block: Span,
    /// How long they last at most; and how long after the last has ended a source is one that was never blocked. Default
    /// `1h`.
    #[serde(default = "default::longest_sentence")]
    pub at_most: Span,
    /// Whether refusals count of whom nothing proves that its address is its own. Default `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unproven: bool,
}

impl Penalty {
    /// The bounds of [`Penalty::within`]: 1 s to a day.
    pub const WITHIN: [Span; 2] = [Span::of_seconds(1), Span::of_millis(penalties::LONGEST_MILLIS)];
    /// The longest block: 30 days.
    pub const LONGEST: Span = Span::of_seconds(30 * 86_400);

    /// One that says only what it must.
    pub const fn new(after: u32, within: Span) -> Self {
        Self { after, within, block: default::sentence(), at_most: default::longest_sentence(), unproven: false }
    }

    /// As the kernel reads it, where it is that of a limit of this name.
    pub(in crate::policy) fn record(&self, name: &str) -> records::Penalty {
        let (after, within) = (self.after, penalties::units(self.within.millis()));
        let salt = penalties::salt(&records::name_bytes(name), after, within);
        records::Penalty { salt, after, within, unproven: self.unproven.into(), padding: [0; 7] }
    }

    /// What it says, for people.
    pub fn sentence(&self) -> String {
        let Self { after, within, block, at_most, .. } = self;
        let grows = if block == at_most { String::new() } else { format!(", twice as long each time up to {at_most}") };
        let whom = if self.unproven { "a source" } else { "a proven source" };
        format!("{whom} that is refused {after} times in {within} is blocked for {block}{grows}")
    }
}
