//! `throttle explain`: what would become of a source's next packet, why, and when that changes.

use std::{fmt::Write as _, net::IpAddr, time::Duration};

use clap::Args;
use ipnet::IpNet;
use jiff::Timestamp;
use throttle_agent::{
    api::wire::{
        BlockedBy, ConnectionsWalk, Envelope, ExplainQuery, Explanation, LimitWalk, OpenConnection, TenantOf, Walk,
        WindowWalk, paths,
    },
    policy::{Mode, Protocol},
};
use throttle_common::words::{Outcome, Reason, Unit};

use super::{
    Context,
    client::query,
    events,
    failure::Failure,
    output::{self, Paint},
    quantity::{bytes, bytes_per_second, count, frequency, span},
    words::{address, whole, word},
};

/// Which packet to ask about.
#[derive(Debug, Args)]
#[command(after_help = "\
Asks the kernel's maps, and charges nothing. Without --port a packet to each service is asked about.

Examples:
  throttle explain 203.0.113.7
  throttle explain 203.0.113.7 --port 443
  throttle explain 2001:db8::7 --port 53 --protocol udp --to 2001:db8::1
  throttle explain 203.0.113.7 --port 443 --json | jq .walks[0].passes_in_seconds")]
pub(crate) struct ExplainArgs {
    /// Who would send it
    #[arg(value_parser = address)]
    address: IpAddr,
    /// The port that it would go to
    #[arg(long, short, value_name = "PORT", value_parser = whole(1_u16, 65_535))]
    port: Option<u16>,
    /// What it would speak; without it, all that have a service there
    #[arg(long, value_name = "PROTOCOL", value_parser = word::<Protocol>())]
    protocol: Option<Protocol>,
    /// The address of this host that it would go to
    #[arg(long, value_name = "DESTINATION", value_parser = address)]
    to: Option<IpAddr>,
    /// Bytes of its whole frame, which limits on bytes count; by default 74, as a SYN of Linux
    #[arg(long, value_name = "BYTES", value_parser = whole(60_u32, 65_535))]
    length: Option<u32>,
    /// Ask about a packet of an open TCP connection, not about one that opens a connection
    #[arg(long)]
    established: bool,
}

impl ExplainArgs {
    /// Shows it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        let Self { address, port, protocol, to, length, established } = self;
        let asked = ExplainQuery { address, port, protocol, to, length, established };
        let answer = context.client()?.get(&query(paths::EXPLAIN, &asked)?)?;
        if context.output.json {
            return output::data(&answer.text());
        }
        let explanation = answer.parse::<Envelope<Explanation>>()?.body;
        output::data(&render(&explanation, context.output.paint))
    }
}

fn render(explanation: &Explanation, paint: Paint) -> String {
    let mut text = String::new();
    for walk in &explanation.walks {
        _ = writeln!(text, "{}", headline(explanation, walk, paint));
    }
    if explanation.walks_left_out > 0 {
        let more = explanation.walks_left_out;
        _ = writeln!(text, "({more} more services, none of which fares worse; name a port to see one)");
    }
    if let Some(remedy) = explanation.walks.first().and_then(|walk| remedy(explanation.source, walk)) {
        _ = writeln!(text, "{remedy}");
    }
    _ = write!(text, "\n{}", standing(explanation));
    for walk in &explanation.walks {
        _ = write!(text, "\n{}", steps(walk, paint));
    }
    text.push('\n');
    if explanation.refusals.is_empty() {
        text += "no refusal of it is remembered; what is, is sampled\n";
    } else {
        _ = writeln!(text, "its last refusals, of those that were sampled:");
    }
    for event in &explanation.refusals {
        _ = writeln!(text, "  {}", events::render(event, paint));
    }
    text
}

/// The answer in one line.
fn headline(explanation: &Explanation, walk: &Walk, paint: Paint) -> String {
    let (source, packet) = (explanation.source, describe(walk));
    match (Outcome::from_name(&walk.outcome), Reason::from_name(&walk.reason)) {
        (Some(Outcome::Pass), Some(Reason::Allowed)) => {
            format!("{source}: {packet} {}: the source is allowed, no limit is asked", paint.good("passes"))
        }
        (Some(Outcome::Pass), _) => {
            format!("{source}: {packet} {}{}", paint.good("passes"), tightest(walk))
        }
        (Some(Outcome::Observe), _) => {
            let cause = cause(explanation, walk);
            format!("{source}: {packet} {}, though {cause} would refuse it", paint.warning("passes, and is observed"))
        }
        (outcome, _) => {
            let told = if outcome == Some(Outcome::Reject) { ", and its sender told so" } else { "" };
            let refused = paint.fault("is refused");
            format!("{source}: {packet} {refused} by {}{told}, {}", cause(explanation, walk), end(walk))
        }
    }
}

/// The packet: what it is, and to whom.
fn describe(walk: &Walk) -> String {
    let packet = &walk.packet;
    let mut text = match packet.protocol {
        Protocol::Tcp if packet.opens_connection => "the next TCP connection".to_owned(),
        Protocol::Tcp => "the next packet of an open TCP connection".to_owned(),
        Protocol::Udp => "the next UDP packet".to_owned(),
        Protocol::Icmp => "the next ICMP echo".to_owned(),
    };
    match (&walk.service, packet.port) {
        (Some(service), Some(port)) => _ = write!(text, " to {service} (port {port})"),
        (Some(service), None) => _ = write!(text, " to {service}"),
        (None, Some(port)) => _ = write!(text, " to port {port}, which is no service's,"),
        (None, None) => text += " to no service",
    }
    text
}

/// Who refuses.
fn cause(explanation: &Explanation, walk: &Walk) -> String {
    match (&walk.limit, &explanation.standing.blocked) {
        (Some(limit), _) if walk.reason == Reason::SourceOverflow.name() => {
            format!("limit {limit}, which has no place left for this source")
        }
        (Some(limit), _) => format!("limit {limit}"),
        (None, _) if walk.reason == Reason::BreakerOpen.name() => {
            "the breaker of what it is for, which fails (`throttle health` says why)".to_owned()
        }
        (None, Some(block)) => format!("the block of {}", plain(block.prefix)),
        (None, None) => walk.reason.clone(),
    }
}

/// Until when there is no connection for a source without a place.
const NO_PLACE: &str = "until connections of others close and leave it a place";

/// Until when that is so.
fn end(walk: &Walk) -> String {
    match (walk.passes_at, walk.passes_in_seconds) {
        (Some(at), Some(rest)) => format!("until {}, in {}", instant(at), seconds(rest)),
        _ if walk.reason == Reason::ConnectionLimit.name() => "until one of its connections closes".to_owned(),
        _ if walk.limits.iter().any(|limit| Some(&limit.limit) == walk.limit.as_ref() && limit.open.is_some()) => {
            NO_PLACE.to_owned()
        }
        _ => "for ever".to_owned(),
    }
}

/// What lets the packet pass sooner, where a limit refuses it.
fn remedy(source: IpAddr, walk: &Walk) -> Option<String> {
    let refused = matches!(Outcome::from_name(&walk.outcome)?, Outcome::Drop | Outcome::Reject);
    let limit = walk.limit.as_ref().filter(|_| refused)?;
    Some(format!("to let it pass now: `throttle allow add {source}`; to see the limit: `throttle limit show {limit}`"))
}

/// Which limit has the least room, if any is asked.
fn tightest(walk: &Walk) -> String {
    let (absent, placed): (Vec<_>, Vec<_>) =
        walk.limits.iter().filter(|limit| limit.asked && limit.burst > 0).partition(|limit| limit.bucket == "absent");
    let share = |limit: &LimitWalk| limit.room as f64 / limit.burst as f64;
    match placed.into_iter().min_by(|one, other| share(one).total_cmp(&share(other))) {
        Some(limit) => format!("; limit {} has room for {}", limit.limit, room(limit)),
        None if absent.is_empty() => "; no limit has a say in it".to_owned(),
        None => format!("; limit {} has no place for it, and lets it pass uncounted", absent[0].limit),
    }
}

fn standing(explanation: &Explanation) -> String {
    let standing = &explanation.standing;
    let mut text = String::new();
    let mut line = |name: &str, value: String| _ = writeln!(text, "{name:<10}{value}");
    line(
        "asked at",
        format!(
            "{}, revision {}{}",
            instant(explanation.at),
            explanation.revision,
            match explanation.mode {
                Mode::Enforce => "",
                Mode::Observe => "; this host only observes: nothing is refused",
            }
        ),
    );
    let mut said = Vec::new();
    if let Some(prefix) = standing.allowed {
        said.push(format!("allowed by {}: no block and no limit touches it", plain(prefix)));
    }
    if let Some(block) = &standing.blocked {
        said.push(blocked(block));
    }
    if let Some(TenantOf { name, prefix }) = &standing.tenant {
        said.push(format!("of tenant {name}, by {}", plain(*prefix)));
    }
    if let Some(prefix) = standing.known {
        said.push(format!("known by {}: it keeps a place in a flood", plain(prefix)));
    }
    if standing.proven {
        said.push("it completed a TCP handshake within the hour: it keeps a place in a flood".to_owned());
    }
    if said.is_empty() {
        said.push("not allowed, not blocked, not known, no handshake within the hour".to_owned());
    }
    for (index, said) in said.into_iter().enumerate() {
        line(if index == 0 { "source" } else { "" }, said);
    }
    text
}

fn blocked(block: &BlockedBy) -> String {
    let mut text = format!("blocked by {}", plain(block.prefix));
    match block.until {
        Some(until) => _ = write!(text, " until {}", super::quantity::moment(until)),
        None => text += " for ever",
    }
    match &block.author {
        Some(author) => _ = write!(text, ", added by {author}"),
        None => text += ", as the policy says",
    }
    if let Some(reason) = &block.reason {
        _ = write!(text, ": {reason}");
    }
    let remedy = if block.author.is_some() { "`throttle block delete ...` ends it" } else { "take it out there" };
    _ = write!(text, " ({remedy})");
    text
}

/// The limits of a walk, a line each, with what stands behind the answer.
fn steps(walk: &Walk, paint: Paint) -> String {
    let service = walk.service.as_deref().map_or("no service".to_owned(), |service| format!("service {service}"));
    let mut text = format!("{}\n", paint.strong(&format!("{service}, {} B", walk.packet.length)));
    if walk.limits.is_empty() {
        text += "  no limit applies\n";
    }
    let unasked = [Reason::Allowed.name(), Reason::Blocked.name()].contains(&walk.reason.as_str());
    let mut decided = unasked;
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
        let verdict = match (&limit.refusal, limit.mode) {
            _ if !limit.asked => "has no say in such a packet".to_owned(),
            (Some(_), mode) => {
                let word = if mode == Mode::Enforce { paint.fault("refuses") } else { paint.warning("would refuse") };
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
            (None, _) if limit.open.is_some() && limit.bucket == "absent" => paint.good("admits it, uncounted"),
            (None, _) => paint.good("admits it"),
        };
        let aside = if decided { paint.faint(" (not asked: it is decided before)") } else { String::new() };
        _ = writeln!(text, "  {:<20}{verdict}{aside}", "");
        decided |= limit.refusal.is_some() && limit.mode == Mode::Enforce;
    }
    text
}

/// What a limit guarantees, and whose override it is, in words.
fn besides(limit: &LimitWalk) -> Option<String> {
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
fn bucket(limit: &LimitWalk) -> String {
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

fn room(limit: &LimitWalk) -> String {
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
fn plain(prefix: IpNet) -> String {
    match prefix.prefix_len() {
        0 => "everybody".to_owned(),
        length if length == prefix.max_prefix_len() => prefix.addr().to_string(),
        _ => prefix.to_string(),
    }
}

fn instant(at: Timestamp) -> String {
    at.strftime("%H:%M:%S%.3fZ").to_string()
}

/// A rest, rounded up: who waits that long does not come too early.
fn seconds(rest: f64) -> String {
    let rest = if rest < 10.0 { (rest * 1000.0).ceil() / 1000.0 } else { rest.ceil() };
    span(Duration::from_secs_f64(rest))
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
