//! `throttle limit`: what sources, tenants, services and the host may take.

use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};
use throttle_agent::{
    api::wire::{LimitPatch, LimitView, Limits, paths},
    policy::{
        Guarantee, LimitChange, Mode,
        units::{Quantity, Rate},
    },
};
use throttle_common::{
    connections,
    words::{Action, Algorithm, Overflow, Per, Unit},
};

use super::{
    Context,
    client::under,
    entries,
    failure::Failure,
    limit_views::{describe, render},
    overriding,
    overriding::Overriding,
    penalising::Penalising,
    words::{whole, word},
    writing,
    writing::Writing,
};

/// What to do with limits.
#[derive(Debug, Subcommand)]
pub(crate) enum LimitCommand {
    /// Create a limit, or change what is named of it
    #[command(after_help = SET_EXAMPLES)]
    Set(Box<Set>),
    /// Give a tenant, or some sources, other terms of a limit than all have
    #[command(after_help = overriding::EXAMPLES)]
    Override(Box<Overriding>),
    /// List limits with what they admitted and refused
    List,
    /// Show everything about one limit, defaults included
    Show {
        /// Its name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
    },
    /// Delete a limit; what it remembers of sources is forgotten
    Delete {
        /// Its name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        #[command(flatten)]
        writing: Writing,
    },
}

const SET_EXAMPLES: &str = "\
Examples:
  throttle limit set new-connections --unit connections --rate 50/min --service web
  throttle limit set bandwidth --unit bytes --rate 10Mbit/s --burst 256KiB
  throttle limit set packets --unit packets --rate 1000/s --action reject --prefix-v4 24
  throttle limit set logins --unit connections --rate 100/hour --algorithm sliding-window --service web
  throttle limit set open --service web --concurrent 50 --action reject
  throttle limit set new-connections --penalty 100/10s --penalty-at-most 2h
  throttle limit set tenants --unit connections --rate 500/s --per tenant --guarantee 100/s
  throttle limit set packets --observe";

/// A limit as its flags say it. What no flag names stays as it is, or is the default in a new limit.
#[derive(Debug, Default, Args)]
pub(crate) struct Set {
    /// Its name: what it remembers of sources is kept by it
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// What it counts; a new limit on a rate needs it
    #[arg(long, value_parser = word::<Unit>())]
    unit: Option<Unit>,
    /// What a source may do in the long run, e.g. 1000/s, 50/min, 10Mbit/s; a new limit needs it or --concurrent
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, conflicts_with = "concurrent")]
    rate: Option<Rate>,
    /// How many connections may be open at once
    #[arg(long, value_name = "COUNT", value_parser = whole(1, connections::MOST), allow_hyphen_values = true)]
    concurrent: Option<u32>,
    /// How it decides: a token bucket, a leaky one without a burst, or windows as long as the rate's period; by default
    /// `token-bucket`, with --concurrent `concurrency`
    #[arg(long, value_parser = word::<Algorithm>())]
    algorithm: Option<Algorithm>,
    /// Who shares what it allows: each source by itself, a tenant's sources, all of the service, or all of the host; by
    /// default `source`
    #[arg(long, value_parser = word::<Per>())]
    per: Option<Per>,
    /// What it may do at once, e.g. 50 or 64KiB; by default what the rate names, for bytes at least 64KiB
    #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true)]
    burst: Option<Quantity>,
    /// What each tenant or the service always has of it, e.g. 100/s; of open connections a number
    #[arg(long, value_name = "RATE|COUNT", allow_hyphen_values = true)]
    guarantee: Option<Guarantee>,
    /// What of the guarantee may be used at once; by default what it names, but no more than the burst
    #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true)]
    guarantee_burst: Option<Quantity>,
    /// Guarantee nothing any more
    #[arg(long, conflicts_with_all = ["guarantee", "guarantee_burst"])]
    no_guarantee: bool,
    /// Only packets for this service count; by default every packet of the host
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Refuse without a word, or tell the sender
    #[arg(long, value_parser = word::<Action>())]
    action: Option<Action>,
    /// Count what it would refuse, and let it pass
    #[arg(long, conflicts_with = "enforce")]
    observe: bool,
    /// Refuse; the default, unless the whole host observes
    #[arg(long)]
    enforce: bool,
    /// What becomes of a source that the table has no room for
    #[arg(long, value_parser = word::<Overflow>())]
    overflow: Option<Overflow>,
    /// Bits of an IPv4 address that make a source; by default 32
    #[arg(long, value_name = "BITS", value_parser = whole(1, 32), allow_hyphen_values = true)]
    prefix_v4: Option<u8>,
    /// Bits of an IPv6 address that make a source; by default 64
    #[arg(long, value_name = "BITS", value_parser = whole(1, 128), allow_hyphen_values = true)]
    prefix_v6: Option<u8>,
    /// Sources of each family to have room for; by default 196608
    #[arg(long, value_name = "COUNT", value_parser = whole(1, u32::MAX), allow_hyphen_values = true)]
    sources: Option<u32>,
    #[command(flatten)]
    penalising: Penalising,
    #[command(flatten)]
    writing: Writing,
}

impl LimitCommand {
    /// Does it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Set(set) => {
                let request = LimitPatch { change: set.change(), write: set.writing.wire() };
                writing::tell(context, &context.client()?.patch(&under(paths::LIMITS, &set.name), &request)?)
            }
            Self::Override(overriding) => overriding.obey(context),
            Self::List => entries::list(
                context,
                paths::LIMITS,
                |all: Limits| all.limits,
                "no limit is set; `throttle limit set --help` shows how",
                render,
            ),
            Self::Show { name } => entries::show::<LimitView>(context, paths::LIMITS, &name, describe),
            Self::Delete { name, writing } => entries::remove(context, paths::LIMITS, &name, &writing),
        }
    }
}

impl Set {
    /// What the flags say.
    fn change(&self) -> LimitChange {
        LimitChange {
            unit: self.unit,
            rate: self.rate,
            concurrent: self.concurrent,
            algorithm: self.algorithm,
            per: self.per,
            burst: self.burst,
            guarantee: self.guarantee,
            guarantee_burst: self.guarantee_burst,
            no_guarantee: self.no_guarantee,
            service: self.service.clone(),
            action: self.action,
            mode: self.mode(),
            overflow: self.overflow,
            prefix_v4: self.prefix_v4,
            prefix_v6: self.prefix_v6,
            sources: self.sources,
            penalty: self.penalising.change(),
            no_penalty: self.penalising.ends(),
        }
    }

    fn mode(&self) -> Option<Mode> {
        match (self.observe, self.enforce) {
            (true, _) => Some(Mode::Observe),
            (_, true) => Some(Mode::Enforce),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
