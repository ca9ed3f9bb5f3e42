//! `throttle limit`: what one source may do.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use throttle_agent::{
    api::wire::{Envelope, LimitRequest, LimitView, Limits, RegionLoad, paths},
    policy::{
        Lengths, Limit, Mode, Word as _,
        units::{Quantity, Rate},
        word::one_of,
    },
};
use throttle_common::words::{Action, Overflow, Unit};

use super::{
    Context,
    client::{query, under},
    failure::Failure,
    output::{self, Paint},
    quantity::{bytes, count, per_second, percent},
    table::{Cell, Table, Tone},
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
    /// List limits with what they admitted and refused
    List,
    /// Show everything about one limit, defaults included
    Show {
        /// Its name
        name: String,
    },
    /// Delete a limit; what it remembers of sources is forgotten
    Delete {
        /// Its name
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
  throttle limit set packets --observe";

/// A limit as its flags say it. What no flag names stays as it is, or is the default in a new limit.
#[derive(Debug, Default, Args)]
pub(crate) struct Set {
    /// Its name: what it remembers of sources is kept by it
    name: String,
    /// What it counts; a new limit needs it
    #[arg(long, value_parser = word::<Unit>())]
    unit: Option<Unit>,
    /// What a source may do in the long run, e.g. 1000/s, 50/min, 10Mbit/s; a new limit needs it
    #[arg(long, value_name = "RATE", allow_hyphen_values = true)]
    rate: Option<Rate>,
    /// What it may do at once, e.g. 50 or 64KiB; by default what the rate names, for bytes at least 64KiB
    #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true)]
    burst: Option<Quantity>,
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
    writing: Writing,
}

impl LimitCommand {
    /// Does it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Set(set) => {
                let client = context.client()?;
                let held = client.get(paths::LIMITS)?.parse::<Envelope<Limits>>()?.body.limits;
                let held = held.into_iter().map(|view| view.limit).find(|limit| limit.name == set.name);
                let request = LimitRequest { limit: set.edit(held)?, write: set.writing.wire() };
                writing::tell(context, &client.put(&under(paths::LIMITS, &set.name), &request)?)
            }
            Self::List => {
                let answer = context.client()?.get(paths::LIMITS)?;
                if context.output.json {
                    return output::data(&answer.text());
                }
                let limits = answer.parse::<Envelope<Limits>>()?.body.limits;
                if limits.is_empty() {
                    output::say("no limit is set; `throttle limit set --help` shows how");
                    return Ok(());
                }
                output::data(&render(&limits, context.output.paint))
            }
            Self::Show { name } => {
                let answer = context.client()?.get(paths::LIMITS)?;
                let Envelope { schema_version, body } = answer.parse::<Envelope<Limits>>()?;
                let names: Vec<_> = body.limits.iter().map(|view| view.limit.name.as_str()).collect();
                let Some(view) = body.limits.iter().find(|view| view.limit.name == name) else {
                    let remedy = if names.is_empty() { "there are none".to_owned() } else { one_of(&name, &names) };
                    return Err(Failure::Failed(anyhow::anyhow!("there is no limit `{name}`; {remedy}")));
                };
                if context.output.json {
                    return output::json(&Envelope { schema_version, body: view });
                }
                output::data(&describe(view))
            }
            Self::Delete { name, writing } => {
                let path = query(&under(paths::LIMITS, &name), &writing.wire())?;
                writing::tell(context, &context.client()?.delete(&path)?)
            }
        }
    }
}

impl Set {
    /// The limit that the flags make of the one that is there.
    fn edit(&self, held: Option<Limit>) -> Result<Limit, Failure> {
        let mut limit = match (held, self.unit, self.rate) {
            (Some(held), ..) => held,
            (None, Some(unit), Some(rate)) => Limit::new(&self.name, unit, rate),
            (None, ..) => {
                let name = &self.name;
                let example = format!("throttle limit set {name} --unit packets --rate 1000/s");
                return Err(Failure::Usage(format!(
                    "there is no limit `{name}` yet, and a new one needs --unit and --rate; e.g. `{example}`"
                )));
            }
        };
        if self.unit.is_some_and(|unit| unit != limit.unit) && self.rate.is_none() {
            return Err(Failure::Usage(
                "--unit without --rate: a rate of another unit means nothing; name both".into(),
            ));
        }
        if self.unit.is_some_and(|unit| unit != limit.unit) {
            // A burst in the old unit means nothing in the new one.
            limit.burst = None;
        }
        replace(&mut limit.unit, self.unit);
        replace(&mut limit.rate, self.rate);
        replace(&mut limit.action, self.action);
        replace(&mut limit.overflow, self.overflow);
        replace(&mut limit.sources, self.sources);
        replace(&mut limit.mode, self.mode());
        replace(&mut limit.prefix.ipv4, self.prefix_v4);
        replace(&mut limit.prefix.ipv6, self.prefix_v6);
        limit.aggregate = shorter(limit.aggregate, limit.prefix);
        limit.burst = self.burst.or(limit.burst);
        limit.service = self.service.clone().or(limit.service);
        Ok(limit)
    }

    fn mode(&self) -> Option<Mode> {
        match (self.observe, self.enforce) {
            (true, _) => Some(Mode::Observe),
            (_, true) => Some(Mode::Enforce),
            _ => None,
        }
    }
}

fn replace<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// Aggregates that are larger than the sources, so that --prefix-v4 24 needs no second flag: 8 and 16 bits less.
fn shorter(aggregate: Lengths, prefix: Lengths) -> Lengths {
    let fit = |aggregate: u8, prefix: u8, step: u8| {
        if aggregate < prefix { aggregate } else { prefix.saturating_sub(step).max(1) }
    };
    Lengths { ipv4: fit(aggregate.ipv4, prefix.ipv4, 8), ipv6: fit(aggregate.ipv6, prefix.ipv6, 16) }
}

/// Limits, one a line, with what they did.
pub(crate) fn render(limits: &[LimitView], paint: Paint) -> String {
    let mut table = Table::new(&[
        "LIMIT",
        "SERVICE",
        "UNIT",
        ">RATE",
        ">BURST",
        "ACTION",
        "MODE",
        ">ADMITTED",
        ">REFUSED",
        ">OBSERVED",
        ">OVERFLOWED",
        ">BUSY V4",
        ">BUSY V6",
    ]);
    for view in limits {
        let LimitView { limit, tallies, .. } = view;
        let some = |tally: u64, tone| Cell::new(if tally == 0 { String::new() } else { count(tally) }, tone);
        let mode = if limit.mode == Mode::Observe { Tone::Warning } else { Tone::Plain };
        table.row([
            limit.name.as_str().into(),
            limit.service.as_deref().unwrap_or_default().into(),
            limit.unit.name().into(),
            limit.rate.to_string().into(),
            burst(view).into(),
            limit.action.name().into(),
            Cell::new(limit.mode.name(), mode),
            count(tallies.admitted.packets).into(),
            count(tallies.refused.packets).into(),
            some(tallies.observed.packets, Tone::Warning),
            some(tallies.overflowed.packets, Tone::Warning),
            busy(view, "ipv4"),
            busy(view, "ipv6"),
        ]);
    }
    table.render(paint)
}

/// What a source may do at once, whether the policy says it or not.
fn burst(view: &LimitView) -> String {
    match (view.limit.burst, view.limit.unit) {
        (Some(burst), _) => burst.to_string(),
        (None, Unit::Bytes) => bytes(view.burst),
        (None, _) => view.burst.to_string(),
    }
}

/// Everything about one limit, what the policy leaves to defaults included.
fn describe(view: &LimitView) -> String {
    let LimitView { limit, tallies, .. } = view;
    let mut text = String::new();
    let mut line = |name: &str, value: String| _ = writeln!(text, "{name:<11} {value}");
    let default = if limit.burst.is_none() { " (by default)" } else { "" };
    line("limit", limit.name.clone());
    line("counts", format!("{} {}", limit.unit.name(), whose(limit)));
    line("admits", format!("{} and {}{default} at once, for each source", limit.rate, burst(view)));
    line("refuses by", format!("{}, mode {}", limit.action.name(), limit.mode.name()));
    for region in &view.regions {
        let RegionLoad { family, prefix, aggregate, slots, busy, forecast, .. } = region;
        let (flood, share) = (per_second(forecast.flood_per_second), percent(region.occupancy));
        line(
            family,
            format!(
                "a source is a /{prefix}; {} of {} places busy ({share}); a flood of {flood} fills them",
                count(*busy),
                count(*slots)
            ),
        );
        line("", format!("a source without a place: {}", overflow(limit.overflow, *aggregate)));
    }
    for (name, tally) in [
        ("admitted", tallies.admitted),
        ("refused", tallies.refused),
        ("observed", tallies.observed),
        ("spared", tallies.spared),
        ("overflowed", tallies.overflowed),
    ] {
        line(name, format!("{} packets, {}", count(tally.packets), bytes(tally.bytes)));
    }
    text
}

fn whose(limit: &Limit) -> String {
    limit.service.as_ref().map_or("of the whole host".to_owned(), |service| format!("of service {service}"))
}

fn overflow(rule: Overflow, aggregate: u8) -> String {
    match rule {
        Overflow::Aggregate => format!("shares the bucket of its /{aggregate}"),
        Overflow::Refuse => "is refused".to_owned(),
        Overflow::Admit => "is admitted uncounted".to_owned(),
    }
}

/// How full a limit's part of the table is; above half it is worth a look, above 70 % newcomers find no place.
fn busy(view: &LimitView, family: &str) -> Cell {
    match view.regions.iter().find(|region| region.family == family) {
        None => "".into(),
        Some(region) => {
            let tone = match region.occupancy {
                o if o > 0.7 => Tone::Fault,
                o if o > 0.5 => Tone::Warning,
                _ => Tone::Plain,
            };
            Cell::new(percent(region.occupancy), tone)
        }
    }
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
