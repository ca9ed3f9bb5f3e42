//! A change of a limit's penalty.

use super::replace;
use crate::policy::{document::Penalty, fault::Fault, units::Span};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What becomes of a penalty. One that is not there yet needs `after` and `within`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct PenaltyChange {
    /// How many refusals trip it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u32>,
    /// Within how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
    /// How long the first block lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<Span>,
    /// How long they last at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<Span>,
    /// Whether refusals count of whom nothing proves that its address is its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unproven: Option<bool>,
}

impl PenaltyChange {
    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The penalty of the limit of that name, changed, or made where there is none.
    pub(super) fn of(self, name: &str, held: Option<Penalty>) -> Result<Penalty, Fault> {
        let mut penalty = match (held, self.after, self.within) {
            (Some(held), ..) => held,
            (None, Some(after), Some(within)) => Penalty::new(after, within),
            (None, ..) => {
                let reason = "it has no penalty yet, and a new one needs so many refusals in so long a time";
                return Err(Fault::new(reason, format!("e.g. `throttle limit set {name} --penalty 100/10s`")));
            }
        };
        replace(&mut penalty.after, self.after);
        replace(&mut penalty.within, self.within);
        replace(&mut penalty.block, self.block);
        replace(&mut penalty.at_most, self.at_most);
        replace(&mut penalty.unproven, self.unproven);
        Ok(penalty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays_and_a_new_one_needs_to_know_how_often() {
        let change = PenaltyChange { block: Some(Span::of_seconds(120)), ..PenaltyChange::default() };
        assert!(change.of("web", None).unwrap_err().remedy.contains("throttle limit set web --penalty"));
        let held = Penalty { unproven: true, ..Penalty::new(5, Span::of_seconds(10)) };
        let changed = change.of("web", Some(held)).unwrap();
        assert_eq!(changed, Penalty { block: Span::of_seconds(120), ..held });
    }
}
