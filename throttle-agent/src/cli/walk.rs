//! The breakers and the limits of a walk of `throttle explain`, in words: the state of each, and what it says to the packet.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use ipnet::IpNet;
use jiff::Timestamp;
use throttle_agent::{
    api::wire::{BreakerWalk, ConnectionsWalk, LimitWalk, OpenConnection, PenaltyWalk, Walk, WindowWalk},
    policy::Mode,
};
use throttle_common::words::{Reason, Unit};

use super::{
    health_line,
    output::Paint,
    quantity::{bytes, bytes_per_second, count, frequency, span},
};

/// Until when there is no connection for a source without a place.
pub(crate) const NO_PLACE: &str = "until connections of others close and leave it a place";

/// The breakers and the limits of a walk on a host of a mode, each with what it says and what stands behind that.
pub(crate) fn steps(walk: &Walk, host: Mode, paint: Paint) -> String {
    let service = walk.service.as_deref().map_or("no service".to_owned(), |service| format!("service {service}"));
    let mut text = format!("{}\n", paint.strong(&format!("{service}, {} B", walk.packet.length)));
    let decided_by = |reasons: &[Reason]| reasons.iter().any(|reason| reason.name() == walk.reason);
    let aside = |decided| if decided { paint.faint(" (not asked: it is decided before)") } else { String::new() };
    let mut decided = decided_by(&[Reason::Allowed, Reason::Blocked]);
    for (index, line) in walk.health.iter().flat_map(health_line::sentences).enumerate() {
        _ = writeln!(text, "  {:<20}{line}", if index == 0 { "health" } else { "" });
    }
    for breaker in walk.breakers.iter().filter(|it| it.refuses || it.state != "closed") {
        _ = writeln!(text, "  {:<20}{}", "breaker", standing(breaker));
        _ = writeln!(text, "  {:<20}{}{}", "", said(breaker, host, paint), aside(decided));
        decided |= breaker.refuses;
    }
    if walk.limits.is_empty() {
        text += "  no limit applies\n";
    }
    for limit in &walk.limits {
        _ = writeln!(text, "  {:<20}{}", limit.limit, bucket(limit));
        if let Some(speed) = limit.speed {
            let (speed, share) = (super::speed::share(speed), super::speed::share(speed * 100.0));
            _ = writeln!(text, "  {:<20}its clock runs at {speed}: it admits {share} % of that rate", "");
        }
        for connection in limit.connections.iter().flat_map(connections) {
            _ = writeln!(text, "  {:<20}{connection}", "");
        }
        if let Some(besides) = besides(limit) {
            _ = writeln!(text, "  {:<20}{besides}", "");
        }
        if let Some(penalty) = &limit.penalty {
            _ = writeln!(text, "  {:<20}{}", "", nearness(penalty));
        }
        let enforces = limit.mode == Mode::Enforce && host == Mode::Enforce;
        let verdict = match &limit.refusal {
            _ if limit.unenforced.is_some() => {
                let why = limit.unenforced.as_deref().unwrap_or_default();
                format!("{}: {why}", paint.warning("is not enforced"))
            }
            _ if !limit.asked => "has no say in such a packet".to_owned(),
            Some(_) => {
                let word = if enforces { paint.fault("refuses") } else { paint.warning("would refuse") };
                match (limit.passes_at, limit.passes_in_seconds) {
                    (Some(at), Some(rest)) => format!("{word} it until {}, in {}", instant(at), seconds(rest)),
                    _ if limit.open.is_some() && limit.refusal.as_deref() == Some(Reason::SourceOverflow.name()) => {
                        format!("{word} it {NO_PLACE}")
                    }
                    _ if limit.open.is_some() => format!("{word} it until one of its connections closes"),
                    _ if limit.window.is_some() => {
                        format!("{word} it for ever: the packet costs more than a window admits; raise the rate")
                    }
                    _ => format!("{word} it for ever: the packet costs more than the burst; raise the burst"),
                }
            }
            None if limit.open.is_some() && limit.bucket == "absent" => paint.good("admits it, uncounted"),
            None => paint.good("admits it"),
        };
        _ = writeln!(text, "  {:<20}{verdict}{}", "", aside(decided));
        // Those on open connections are all asked where the host observes.
        decided |= limit.refusal.is_some() && limit.mode == Mode::Enforce && (enforces || limit.open.is_none());
    }
    text
}

/// How near a source is to a penalty, in words.
fn nearness(penalty: &PenaltyWalk) -> String {
    let PenaltyWalk { after, within_seconds, refused, forgotten_in_seconds, unproven } = *penalty;
    let within = seconds(within_seconds);
    let mut text = format!("penalty: {refused} of {after} refusals in {within}");
    if refused > 0 {
        _ = write!(text, ", forgotten in {}", seconds(forgotten_in_seconds));
    }
    if unproven { text } else { text + "; only those of a proven or known source count" }
}

/// Whose a breaker is: `web`, or of a backend `web/web-1`.
pub(crate) fn whose(breaker: &BreakerWalk) -> Option<String> {
    let service = breaker.service.as_ref()?;
    Some(breaker.backend.as_ref().map_or(service.clone(), |backend| format!("{service}/{backend}")))
}

/// How a breaker stands, in words.
fn standing(breaker: &BreakerWalk) -> String {
    let at = |address: &SocketAddr| format!("the backend at {address}");
    let mut whose = whose(breaker).or_else(|| breaker.address.as_ref().map(at)).unwrap_or_default();
    if !breaker.shared_with.is_empty() {
        _ = write!(whose, " (shared with {})", breaker.shared_with.join(", "));
    }
    match (breaker.state.as_str(), &breaker.held_by, breaker.trials_left) {
        ("held-open", Some(author), _) => format!("{whose}: held open by {author}"),
        ("half-open", _, Some(0)) => format!("{whose}: half open, with all trials of this round under way"),
        ("half-open", _, Some(left)) => format!("{whose}: half open, with {left} trials left in this round"),
        (state, ..) => format!("{whose}: {}", state.replace('-', " ")),
    }
}

/// What a breaker says of the connection.
fn said(breaker: &BreakerWalk, host: Mode, paint: Paint) -> String {
    if !breaker.refuses {
        return paint.good("admits it, as a trial");
    }
    let word = if host == Mode::Enforce { paint.fault("refuses") } else { paint.warning("would refuse") };
    match (breaker.tries_at, breaker.tries_in_seconds) {
        (Some(at), Some(rest)) => {
            format!("{word} it until {}, in {}; then it tries again", instant(at), seconds(rest))
        }
        _ => format!("{word} it until {}", released(breaker)),
    }
}

/// What ends the hold of a breaker.
pub(crate) fn released(breaker: &BreakerWalk) -> String {
    whose(breaker).map_or("somebody lets go of it".to_owned(), |whose| format!("`throttle breaker auto {whose}`"))
}

/// What a limit guarantees, and whose override it is, in words.
pub(crate) fn besides(limit: &LimitWalk) -> Option<String> {
    let guarantee = limit.guarantee.as_ref().map(|guarantee| {
        let (burst, room) = (amount(limit, guarantee.burst), amount(limit, guarantee.room));
        let what = match guarantee.rate_per_second {
            None => format!("{burst} connections are reserved, {room} of them free"),
            Some(rate) if limit.unit == Unit::Bytes.name() => {
                format!("{} guaranteed: room for {room} of {burst}", bytes_per_second(rate))
            }
            Some(rate) => format!("{} guaranteed: room for {room} of {burst}", frequency(rate)),
        };
        if guarantee.within { what + ", and so for this one, whatever others take" } else { what }
    });
    let overridden = limit.overridden_for.as_ref().map(|whose| format!("by the override for {whose}"));
    let said: Vec<_> = guarantee.into_iter().chain(overridden).collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// A limit's bucket in words.
pub(crate) fn bucket(limit: &LimitWalk) -> String {
    let source = limit.shared_by.clone().unwrap_or_else(|| plain(limit.source));
    if let Some(open) = limit.open {
        return places(limit, open, &source);
    }
    let rate = limit.rate_per_second.unwrap_or_default();
    let rate = if limit.unit == Unit::Bytes.name() { bytes_per_second(rate) } else { frequency(rate) };
    let whose = match limit.bucket.as_str() {
        "own" => format!("the bucket of {source}"),
        "new" => format!("{source} owes nothing and has no bucket yet"),
        "shared" => format!("no place for {source}, it shares the bucket of {}", plain(limit.aggregate)),
        _ => format!("no place for {source}"),
    };
    let debt = match limit.debt_seconds {
        0.0 => "it is full".to_owned(),
        debt => format!("it is full again in {}", seconds(debt)),
    };
    let burst = amount(limit, limit.burst);
    if let Some(window) = &limit.window {
        return in_window(limit, window, &whose);
    }
    let burst = match limit.algorithm.as_str() {
        "leaky-bucket" => "no burst".to_owned(),
        _ => format!("burst {burst}"),
    };
    match limit.bucket.as_str() {
        _ if !limit.asked => format!("{rate}, {burst}"),
        "own" | "shared" => format!("{rate}, {burst}; {whose}: room for {}, {debt}", room(limit)),
        _ => format!("{rate}, {burst}; {whose}"),
    }
}

/// The places of a limit on open connections in words.
fn places(limit: &LimitWalk, open: u64, source: &str) -> String {
    let mut text = match limit.bucket.as_str() {
        "shared" => format!("no place for {source}, it shares those of {}", plain(limit.aggregate)),
        "absent" => return format!("no place for {source}, {} open at most", count(limit.burst)),
        _ => format!("connections of {source}"),
    };
    _ = write!(text, ": {} of {} open", count(open), count(limit.burst));
    if let Some(policy) = limit.narrowed_from {
        _ = write!(text, " (so few by the service's health, {} by policy; `throttle health` says why)", count(policy));
    }
    if let Some(ConnectionsWalk { under_way: under_way @ 1.., doubted, .. }) = &limit.connections {
        let handshakes = if *under_way == 1 { "handshake" } else { "handshakes" };
        _ = write!(text, ", {} {handshakes} under way", count(*under_way));
        if *doubted {
            text += ", not counted because some are never completed";
        }
    }
    text
}

/// The source's connections, a line each.
fn connections(walk: &ConnectionsWalk) -> Vec<String> {
    let line = |it: &OpenConnection| {
        let shared = if it.shared { ", in its aggregate" } else { "" };
        format!("from {} to port {}, counted for {}{shared}", it.peer, it.port, seconds(it.counted_seconds))
    };
    let mut lines: Vec<_> = walk.listed.iter().map(line).collect();
    if walk.left_out > 0 {
        lines.push(format!("and {} more", count(walk.left_out)));
    }
    lines
}

/// A limit's window in words.
fn in_window(limit: &LimitWalk, window: &WindowWalk, whose: &str) -> String {
    let kind = if window.used_before.is_some() { "a sliding window" } else { "each window" };
    let most = amount(limit, limit.burst);
    let due = format!("{most} in {kind} of {}", seconds(window.seconds));
    let used = amount(limit, window.used);
    let ends = seconds(window.ends_in_seconds);
    match (limit.bucket.as_str(), window.used_before) {
        _ if !limit.asked => due,
        ("own" | "shared", None) => format!("{due}; {whose}: {used} of {most} used, the window ends in {ends}"),
        ("own" | "shared", Some(before)) => {
            let before = amount(limit, before);
            format!(
                "{due}; {whose}: {used} used in the window that ends in {ends}, {before} in the one before; room for {}",
                room(limit)
            )
        }
        _ => format!("{due}; {whose}"),
    }
}

pub(crate) fn room(limit: &LimitWalk) -> String {
    let room = format!("{} of {}", amount(limit, limit.room), amount(limit, limit.burst));
    match limit.leased {
        None | Some(0) => room,
        Some(leased) => format!("{room} and for {} that CPUs have taken ahead", amount(limit, leased)),
    }
}

fn amount(limit: &LimitWalk, units: u64) -> String {
    match Unit::from_name(&limit.unit) {
        Some(Unit::Bytes) => bytes(units),
        _ => count(units),
    }
}

/// A prefix, or the address where it is one.
pub(crate) fn plain(prefix: IpNet) -> String {
    match prefix.prefix_len() {
        0 => "everybody".to_owned(),
        length if length == prefix.max_prefix_len() => prefix.addr().to_string(),
        _ => prefix.to_string(),
    }
}

pub(crate) fn instant(at: Timestamp) -> String {
    at.strftime("%H:%M:%S%.3fZ").to_string()
}

/// A rest, rounded up: who waits that long does not come too early.
pub(crate) fn seconds(rest: f64) -> String {
    let rest = if rest < 10.0 { (rest * 1000.0).ceil() / 1000.0 } else { rest.ceil() };
    span(Duration::from_secs_f64(rest))
}
