//! How a service's limits follow its health, as flags say it.

use clap::Args;
use throttle_agent::policy::{ControlKind, HealthChange, HealthMode, Speaks, units::Span};
use throttle_common::connections;

use super::words::{whole, word};

/// What no flag names stays as it is. Any of them has the limits follow, and only shows it until it is told to enforce.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Health")]
pub(crate) struct Following {
    /// Have its limits follow its health, or only show what they would do
    #[arg(long, value_name = "MODE", value_parser = word::<HealthMode>())]
    health: Option<HealthMode>,
    /// Have its limits follow its health no more
    #[arg(long, conflicts_with_all = ["health", "control", "objective", "speaks", "no_speaks", "least", "most", "no_most", "breaker", "no_breaker", "close_oldest", "no_close_oldest"])]
    no_health: bool,
    /// What follows: the connections that may be open, by latency or by heartbeats (aimd), or only the rates' clock
    #[arg(long, value_parser = word::<ControlKind>())]
    control: Option<ControlKind>,
    /// How long clients may wait for the first byte, e.g. 200ms; by default 250ms
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    objective: Option<Span>,
    /// What its connections carry, which says where the time to the first byte is measured
    #[arg(long, value_parser = word::<Speaks>())]
    speaks: Option<Speaks>,
    #[command(flatten)]
    again: Again,
    /// The least connections that stay allowed; by default 2
    #[arg(long, value_name = "COUNT", value_parser = whole(2, connections::MOST), allow_hyphen_values = true)]
    least: Option<u32>,
    /// The most; by default what its limit on open connections allows
    #[arg(long, value_name = "COUNT", value_parser = whole(2, connections::MOST), allow_hyphen_values = true)]
    most: Option<u32>,
    /// Keep new connections from it, and from its backends, while it fails; the default
    #[arg(long, conflicts_with = "no_breaker")]
    breaker: bool,
    /// Never keep connections from it because it fails
    #[arg(long)]
    no_breaker: bool,
    #[command(flatten)]
    kept: Kept,
}

/// What becomes of connections that are kept.
#[derive(Debug, Default, Args)]
struct Kept {
    /// Close connections that are kept, the oldest first, while more are open than its health allows
    #[arg(long, conflicts_with = "no_close_oldest")]
    close_oldest: bool,
    /// Close nothing that is open; the default
    #[arg(long)]
    no_close_oldest: bool,
}

/// What is the default again.
#[derive(Debug, Default, Args)]
struct Again {
    /// What its protocol carries by default again: http on tcp, on udp opaque
    #[arg(long, conflicts_with = "speaks")]
    no_speaks: bool,
    /// At most what its limit on open connections allows again
    #[arg(long, conflicts_with = "most")]
    no_most: bool,
}

impl Following {
    /// What the flags say.
    pub(crate) fn change(&self) -> HealthChange {
        HealthChange {
            mode: self.health,
            control: self.control,
            objective: self.objective,
            speaks: self.speaks,
            no_speaks: self.again.no_speaks,
            least: self.least,
            most: self.most,
            no_most: self.again.no_most,
            breaker: either(self.breaker, self.no_breaker),
            close_oldest: either(self.kept.close_oldest, self.kept.no_close_oldest),
        }
    }

    /// Whether they follow no more.
    pub(crate) fn ends(&self) -> bool {
        self.no_health
    }
}

/// What two flags say of which one at most is given.
fn either(yes: bool, no: bool) -> Option<bool> {
    (yes || no).then_some(yes)
}
