//! How limits are shown: one a line for all, and everything about one.

use std::fmt::Write as _;

use throttle_agent::{
    api::wire::{LimitView, RegionLoad, SentenceCounts, Tally},
    policy::{Limit, Mode, Word as _},
};
use throttle_common::words::{Algorithm, Overflow, Per, Unit};

use super::{
    output::Paint,
    quantity::{bytes, count, per_second, percent},
    table::{Cell, Table, Tone},
};

/// Limits, one a line, with what they did.
pub(crate) fn render(limits: &[LimitView], paint: Paint) -> String {
    let mut table = Table::new(&[
        "LIMIT",
        "SERVICE",
        "PER",
        "UNIT",
        "ALGORITHM",
        ">RATE",
        ">BURST",
        ">GUARANTEE",
        ">OVERRIDES",
        "ACTION",
        "MODE",
        ">ADMITTED",
        ">REFUSED",
        ">OBSERVED",
        ">OVERFLOWED",
        ">SENTENCED",
        ">BUSY V4",
        ">BUSY V6",
        ">OPEN",
    ]);
    // Where all are as they are by default, their rates and numbers say enough.
    let plain =
        limits.iter().all(|view| matches!(view.limit.algorithm, Algorithm::TokenBucket | Algorithm::Concurrency));
    let own = limits.iter().all(|view| view.limit.per == Per::Source);
    for view in limits {
        let LimitView { limit, tallies, .. } = view;
        let some = |tally: u64, tone| Cell::new(if tally == 0 { String::new() } else { count(tally) }, tone);
        let mode = mode(limit.mode, view.host_observes);
        let tone = if mode == Mode::Enforce.name() { Tone::Plain } else { Tone::Warning };
        table.row([
            limit.name.as_str().into(),
            limit.service.as_deref().unwrap_or_default().into(),
            if own { "" } else { limit.per.name() }.into(),
            limit.unit.name().into(),
            if plain { "" } else { limit.algorithm.name() }.into(),
            limit.allowance().into(),
            burst(view).into(),
            limit.guarantee.map_or_else(String::new, |guarantee| guarantee.to_string()).into(),
            some(limit.overrides.len() as u64, Tone::Plain),
            limit.action.name().into(),
            Cell::new(mode, tone),
            count(tallies.admitted.packets).into(),
            count(tallies.refused.packets).into(),
            some(tallies.observed.packets, Tone::Warning),
            some(tallies.overflowed.packets, Tone::Warning),
            view.sentences.map(|it| count(it.sentenced + it.observed)).unwrap_or_default().into(),
            busy(view, "ipv4"),
            busy(view, "ipv6"),
            open(view).map(count).unwrap_or_default().into(),
        ]);
    }
    table.render(paint)
}

/// Whether a limit refuses, or only observes; because the whole host does, where it would not by itself.
pub(crate) fn mode(own: Mode, host_observes: bool) -> &'static str {
    if own == Mode::Enforce && host_observes { "observe (host)" } else { own.name() }
}

/// What a source may do at once, whether the policy says it or not.
fn burst(view: &LimitView) -> String {
    match (view.limit.burst, view.limit.unit) {
        (Some(burst), _) => burst.to_string(),
        (None, Unit::Bytes) => bytes(view.burst),
        (None, _) => view.burst.to_string(),
    }
}

/// How many connections are open under it, those that have places of its guarantee included.
fn open(view: &LimitView) -> Option<u64> {
    Some(view.open? + view.guarantee.as_ref().and_then(|guarantee| guarantee.open).unwrap_or(0))
}

/// Whom a limit is for.
const fn sharers(per: Per) -> &'static str {
    match per {
        Per::Source => "each source",
        Per::Tenant => "each tenant",
        Per::Service => "all of the service",
        Per::Host => "all of the host",
    }
}

/// Everything about one limit, what the policy leaves to defaults included.
pub(crate) fn describe(view: &LimitView) -> String {
    let LimitView { limit, tallies, .. } = view;
    let mut text = String::new();
    let mut line = |name: &str, value: String| _ = writeln!(text, "{name:<11} {value}");
    let default = if limit.burst.is_none() { " (by default)" } else { "" };
    line("limit", limit.name.clone());
    line("counts", format!("{} {}", limit.unit.name(), whose(limit)));
    line(
        "admits",
        match (limit.rate, limit.per) {
            (Some(rate), per) => match limit.algorithm {
                Algorithm::LeakyBucket => format!("{rate} and no burst, for {}", sharers(per)),
                Algorithm::FixedWindow => format!("{rate} in each window of that time, for {}", sharers(per)),
                Algorithm::SlidingWindow => format!("{rate} in a window that slides, for {}", sharers(per)),
                _ => format!("{rate} and {}{default} at once, for {}", burst(view), sharers(per)),
            },
            (None, per) => format!("{} connections open at once, for {}", burst(view), sharers(per)),
        },
    );
    if let Some(guarantee) = limit.guarantee {
        line("guarantees", guaranteed(view, &guarantee.to_string()));
    }
    for terms in &limit.overrides {
        line("override", format!("{}: {}", terms.whose(), limit.with(terms).allowance_with_guarantee()));
    }
    line("algorithm", limit.algorithm.name().to_owned());
    let idle = view.host_observes && limit.mode == Mode::Enforce;
    let but = if idle { "; but the whole host observes, and refuses nothing" } else { "" };
    line("refuses by", format!("{}, mode {}{but}", limit.action.name(), limit.mode.name()));
    if let Some(penalty) = &limit.penalty {
        let SentenceCounts { sentenced, observed } = view.sentences.unwrap_or_default();
        line("penalty", penalty.sentence());
        line("", format!("{} blocked by it, {} that would have been", count(sentenced), count(observed)));
    }
    for region in &view.regions {
        let RegionLoad { family, prefix, aggregate, slots, busy, fullest, forecast, .. } = region;
        let filled = forecast.map_or_else(String::new, |forecast| {
            let (open, flood) = (count(forecast.places), per_second(forecast.flood_per_second));
            match forecast.tenant_flood_per_second.map(per_second) {
                None => format!(", {open} of them open to any source; a flood of {flood} fills those"),
                Some(of_one) => format!(
                    ", {open} of them open to any source of no tenant; a flood of {flood} fills those, one of {of_one} a \
                     tenant's"
                ),
            }
        });
        let (busy, slots, share) = (count(*busy), count(*slots), percent(region.occupancy));
        line(family, format!("a source is a /{prefix}; {busy} of {slots} places busy ({share}){filled}"));
        if let Some(fullest) = fullest {
            let (busy, slots, share) = (count(fullest.busy), count(fullest.slots), percent(fullest.occupancy));
            let whose = fullest.whose();
            line("", format!("the fullest compartment: {busy} of {slots} places busy ({share}), of {whose}"));
        }
        line("", format!("a source without a place: {}", overflow(limit.overflow, *aggregate)));
    }
    if let Some(open) = view.open {
        let beside = view
            .reserved
            .map_or_else(String::new, |reserved| format!(" beside the {} that guarantees reserve", count(reserved)));
        line("open", format!("{} connections{beside}", count(open)));
    }
    if let Some(guarantee) = &view.guarantee {
        let held = guarantee.open.map_or_else(String::new, |open| format!(", {} of its places taken", count(open)));
        let Tally { packets, bytes: length } = guarantee.tallies.admitted;
        line("guaranteed", format!("{} packets, {}{held}", count(packets), bytes(length)));
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

/// What a guarantee means.
fn guaranteed(view: &LimitView, guarantee: &str) -> String {
    let whom = sharers(view.limit.per);
    if view.limit.concurrent.is_some() {
        return format!("{guarantee} of these, kept for {whom} and lent to nobody");
    }
    let burst = view.guarantee.as_ref().map_or(0, |guarantee| guarantee.burst);
    let burst = if view.limit.unit == Unit::Bytes { bytes(burst) } else { burst.to_string() };
    format!("{guarantee} and {burst} at once, for {whom}, whatever others take; what is not used is lent")
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
