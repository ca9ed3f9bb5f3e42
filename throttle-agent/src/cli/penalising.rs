//! What becomes of a source that a limit refuses again and again, as flags say it.

use std::str::FromStr;

use clap::Args;
use throttle_agent::policy::{PenaltyChange, units::Span};

/// What no flag names stays as it is.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Penalty")]
pub(crate) struct Penalising {
    /// Block a source for a while that it refuses so often in so long a time, e.g. 100/10s, and longer each time
    #[arg(long, value_name = "COUNT/TIME", allow_hyphen_values = true)]
    penalty: Option<Often>,
    /// How long the first block lasts, e.g. 5m; by default 1m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    penalty_block: Option<Span>,
    /// How long blocks get at most, e.g. 1d, and how long after the last has ended it is forgotten; by default 1h
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    penalty_at_most: Option<Span>,
    /// Also count refusals of whom nothing proves that its address is its own, as of UDP: whoever forges it can have it blocked
    #[arg(long, conflicts_with = "penalty_proven")]
    penalty_unproven: bool,
    /// Count only refusals of TCP from sources that completed a handshake within the hour, or are known; the default
    #[arg(long)]
    penalty_proven: bool,
    /// Block nobody by itself any more; who is blocked stays so until that ends
    #[arg(
        long,
        conflicts_with_all = ["penalty", "penalty_block", "penalty_at_most", "penalty_unproven", "penalty_proven"]
    )]
    no_penalty: bool,
}

/// So many in so long a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Often {
    count: u32,
    time: Span,
}

impl FromStr for Often {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write how many refusals in how long a time, such as 100/10s".to_owned();
        let (count, time) = text.split_once('/').ok_or_else(wrong)?;
        Ok(Self { count: count.parse().map_err(|_| wrong())?, time: time.parse().map_err(|_| wrong())? })
    }
}

impl Penalising {
    /// What the flags say; `None` where there is none.
    pub(crate) fn change(&self) -> Option<PenaltyChange> {
        let change = PenaltyChange {
            after: self.penalty.map(|often| often.count),
            within: self.penalty.map(|often| often.time),
            block: self.penalty_block,
            at_most: self.penalty_at_most,
            unproven: (self.penalty_unproven || self.penalty_proven).then_some(self.penalty_unproven),
        };
        (!change.is_empty()).then_some(change)
    }

    /// Whether it has none any more.
    pub(crate) fn ends(&self) -> bool {
        self.no_penalty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flag_changes_a_penalty_and_none_changes_nothing() {
        assert_eq!(Penalising::default().change(), None);
        let often = Penalising { penalty: Some("100/10s".parse().unwrap()), ..Penalising::default() };
        let (after, within) = (Some(100), Some(Span::of_seconds(10)));
        assert_eq!(often.change(), Some(PenaltyChange { after, within, ..PenaltyChange::default() }));
        let proven = Penalising { penalty_proven: true, ..Penalising::default() };
        assert_eq!(proven.change(), Some(PenaltyChange { unproven: Some(false), ..PenaltyChange::default() }));
        for text in ["100", "/10s", "100/", "-1/10s", "100/10", "many/10s"] {
            assert!(text.parse::<Often>().is_err(), "{text}");
        }
    }
}
