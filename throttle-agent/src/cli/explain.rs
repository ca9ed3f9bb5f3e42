//! `throttle explain`: what would become of a source's next packet, why, and when that changes.

use std::{fmt::Write as _, net::IpAddr};

use clap::Args;
use jiff::Timestamp;
use throttle_agent::{
    api::wire::{
        BlockedBy, BreakerWalk, Envelope, ExplainQuery, Explanation, LimitWalk, PastRefusal, SentenceView, TenantOf,
        Walk, paths,
    },
    penalties::ordinal,
    policy::{Mode, Protocol},
};
use throttle_common::words::{Outcome, Reason};

use super::{
    Context,
    client::query,
    events,
    failure::Failure,
    output::{self, Paint},
    walk::{NO_PLACE, instant, plain, released, room, seconds, steps, whose},
    words::{address, whole, word},
};

/// Which packet to ask about.
#[derive(Debug, Args)]
#[command(after_help = "\
Asks the kernel's maps, and charges nothing. Without --port a packet to each service is asked about; without --to, of
each service one address, and each backend's whose breaker is not closed.

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
        _ = writeln!(
            text,
            "({more} more, none of which fares worse; name a port, or with --to an address, to see one)"
        );
    }
    if let Some(remedy) = explanation.walks.first().and_then(|walk| remedy(explanation.source, walk)) {
        _ = writeln!(text, "{remedy}");
    }
    _ = write!(text, "\n{}", standing(explanation));
    for walk in &explanation.walks {
        _ = write!(text, "\n{}", steps(walk, explanation.mode, paint));
    }
    text.push('\n');
    if explanation.refusals.is_empty() {
        text += "no refusal of it is remembered; what is, is sampled\n";
    } else {
        _ = writeln!(text, "its last refusals, of those that were sampled:");
    }
    for PastRefusal { event, limit_is_gone } in &explanation.refusals {
        let gone = if *limit_is_gone { paint.faint("  (this limit is gone)") } else { String::new() };
        _ = writeln!(text, "  {}{gone}", events::render(event, paint));
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
            format!("{source}: {packet} {}{}{}", paint.good("passes"), tightest(walk), unenforced(walk))
        }
        (Some(Outcome::Observe), _) => {
            let cause = cause(explanation, walk);
            format!("{source}: {packet} {}, though {cause} would refuse it", paint.warning("passes, and is observed"))
        }
        (outcome, _) => {
            let told = match outcome {
                _ if walk.page => ", and its sender told so with 429",
                Some(Outcome::Reject) => ", and its sender told so",
                _ => "",
            };
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
    // Which address it goes to makes a difference where a backend has a breaker there.
    let backend = walk.breakers.iter().find_map(|breaker| breaker.address);
    let at = backend.map_or_else(String::new, |address| format!(" at {}", address.ip()));
    match (&walk.service, packet.port) {
        (Some(service), Some(port)) => _ = write!(text, " to {service}{at} (port {port})"),
        (Some(service), None) => _ = write!(text, " to {service}{at}"),
        (None, Some(port)) => _ = write!(text, " to port {port}{at}, which is no service's,"),
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
        (None, _) if walk.reason == Reason::BreakerOpen.name() => breaker(walk),
        (None, Some(block)) => format!("the block of {}", plain(block.prefix)),
        (None, None) => walk.reason.clone(),
    }
}

/// Which breaker refuses, and how it stands.
fn breaker(walk: &Walk) -> String {
    let Some(breaker) = refusing(walk) else { return "a breaker that has changed since".to_owned() };
    let of = match (whose(breaker), breaker.address) {
        (Some(whose), Some(address)) => format!("{whose} ({address})"),
        (Some(whose), None) => whose,
        (None, address) => address.map_or_else(String::new, |address| format!("the backend at {address}")),
    };
    match (breaker.state.as_str(), &breaker.held_by, &breaker.service) {
        ("held-open", Some(author), _) => format!("the breaker of {of}, which {author} holds open"),
        (state, _, service) => {
            let why = service.as_ref().map_or_else(String::new, |service| format!(" {service}"));
            format!("the breaker of {of}, which is {} (`throttle health{why}` says why)", state.replace('-', " "))
        }
    }
}

fn refusing(walk: &Walk) -> Option<&BreakerWalk> {
    walk.breakers.iter().find(|breaker| breaker.refuses)
}

/// Until when that is so.
fn end(walk: &Walk) -> String {
    match (walk.passes_at, walk.passes_in_seconds) {
        (Some(at), Some(rest)) => format!("until {}, in {}", instant(at), seconds(rest)),
        _ if walk.reason == Reason::ConnectionLimit.name() => "until one of its connections closes".to_owned(),
        _ if walk.limits.iter().any(|limit| Some(&limit.limit) == walk.limit.as_ref() && limit.open.is_some()) => {
            NO_PLACE.to_owned()
        }
        _ if walk.reason == Reason::BreakerOpen.name() => match refusing(walk) {
            Some(breaker) if breaker.state == "held-open" => format!("until {}", released(breaker)),
            _ => "until that lets connections pass".to_owned(),
        },
        _ => "for ever".to_owned(),
    }
}

/// What lets the packet pass sooner, where a breaker or a limit refuses it.
fn remedy(source: IpAddr, walk: &Walk) -> Option<String> {
    let refused = matches!(Outcome::from_name(&walk.outcome)?, Outcome::Drop | Outcome::Reject);
    if let Some(whose) = refusing(walk).filter(|_| refused && walk.reason == Reason::BreakerOpen.name()).and_then(whose)
    {
        return Some(format!("to let all connections pass whatever fails: `throttle breaker close {whose}`"));
    }
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

/// Which limit is not asked though it should be, if any.
fn unenforced(walk: &Walk) -> String {
    let limit = walk.limits.iter().find(|limit| limit.unenforced.is_some());
    limit.map_or_else(String::new, |limit| format!("; limit {} is not enforced", limit.limit))
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
    said.extend(standing.sentences.iter().map(|it| sentenced(it, explanation.at)));
    if said.is_empty() {
        said.push("not allowed, not blocked, not known, no handshake within the hour".to_owned());
    }
    for (index, said) in said.into_iter().enumerate() {
        line(if index == 0 { "source" } else { "" }, said);
    }
    text
}

/// A sentence in words: served, or not any more.
fn sentenced(sentence: &SentenceView, at: Timestamp) -> String {
    let SentenceView { limit, prefix, times, until, forgotten, observed, .. } = sentence;
    let (moment, did) = (super::quantity::moment, if *observed { "would be sentenced" } else { "sentenced" });
    let ends = if *until > at { "until" } else { "which ended at" };
    format!(
        "{did} as {} by limit {limit}, for the {} time, {ends} {}; forgotten at {}",
        plain(*prefix),
        ordinal(*times),
        moment(*until),
        moment(*forgotten)
    )
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
    match &block.author {
        Some(_) => _ = write!(text, " (`throttle block delete {}` ends it)", block.prefix),
        None => text += " (take it out there)",
    }
    text
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
