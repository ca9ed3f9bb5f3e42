//! `throttle events`: what was refused, or is as it happens; the stream is sampled and says what it left out.

use std::fmt::Write as _;

use clap::Args;
use throttle_agent::{
    api::wire::{Envelope, Event, EventFilter, Gap, StreamItem, paths},
    policy::{Fault, Prefix},
};
use throttle_common::words::{Outcome, Reason};

use super::{Context, client::query, failure::Failure, output, output::Paint};

/// Which events to show.
#[derive(Debug, Args)]
#[command(after_help = "\
An item after `!` is left out; several items of one filter are alternatives, several filters must all agree.

Examples:
  throttle events --follow --source 192.0.2.0/24 --source '!192.0.2.7'
  throttle events --last 10 --limit new-connections
  throttle events --follow --reason source-limit --outcome reject --json | jq .event.source")]
pub(crate) struct EventsArgs {
    /// Show them as they come, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// Begin with so many of the past; by default 20, with --follow none. The agent keeps 1024
    #[arg(long, short = 'n', value_name = "N")]
    last: Option<usize>,
    /// Only from these addresses or prefixes
    #[arg(long, value_name = "[!]PREFIX", value_delimiter = ',', value_parser = prefix)]
    source: Vec<String>,
    /// Only what these limits refused
    #[arg(long, value_name = "[!]NAME", value_delimiter = ',')]
    limit: Vec<String>,
    /// Only what was for these services
    #[arg(long, value_name = "[!]NAME", value_delimiter = ',')]
    service: Vec<String>,
    /// Only for these reasons, e.g. blocked or source-limit
    #[arg(long, value_name = "[!]REASON", value_delimiter = ',', value_parser = reason)]
    reason: Vec<String>,
    /// Only with these outcomes: drop, reject, observe or pass
    #[arg(long, value_name = "[!]OUTCOME", value_delimiter = ',', value_parser = outcome)]
    outcome: Vec<String>,
}

impl EventsArgs {
    /// Shows them.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        let path = query(paths::EVENTS, &self.filter())?;
        let mut shown = false;
        context.client()?.lines(&path, |line| {
            shown = true;
            let item = serde_json::from_str::<Envelope<StreamItem>>(line).map_err(anyhow::Error::from)?.body;
            if context.output.json {
                output::data(line)?;
            }
            match &item {
                StreamItem::Event(event) if !context.output.json => {
                    output::data(&render(event, context.output.paint))?;
                }
                StreamItem::Gap(gap) if !context.output.json => output::say(&missed(*gap, self.follow)),
                _ => {}
            }
            Ok(())
        })?;
        if !shown {
            output::say("the agent has seen no such refusal; `throttle events --follow` waits for one");
        }
        Ok(())
    }

    fn filter(&self) -> EventFilter {
        let list = |items: &[String]| (!items.is_empty()).then(|| items.join(","));
        EventFilter {
            source: list(&self.source),
            limit: list(&self.limit),
            service: list(&self.service),
            reason: list(&self.reason),
            outcome: list(&self.outcome),
            last: self.last.unwrap_or(if self.follow { 0 } else { 20 }),
            past_only: !self.follow,
        }
    }
}

fn prefix(item: &str) -> Result<String, Fault> {
    item.strip_prefix('!').unwrap_or(item).parse::<Prefix>().map(|_| item.to_owned())
}

fn reason(item: &str) -> Result<String, String> {
    listed(item, Reason::ALL.iter().map(|reason| reason.name()))
}

fn outcome(item: &str) -> Result<String, String> {
    listed(item, Outcome::ALL.iter().map(|outcome| outcome.name()))
}

fn listed<'n>(item: &str, names: impl Iterator<Item = &'n str> + Clone) -> Result<String, String> {
    let word = item.strip_prefix('!').unwrap_or(item);
    if names.clone().any(|name| name == word) {
        return Ok(item.to_owned());
    }
    Err(format!("write one of {}", names.collect::<Vec<_>>().join(", ")))
}

/// One line: when, what, why, who, whither.
pub(crate) fn render(event: &Event, paint: Paint) -> String {
    let outcome = match Outcome::from_name(&event.outcome) {
        Some(Outcome::Drop | Outcome::Reject) => paint.fault(&event.outcome),
        Some(Outcome::Observe) => paint.warning(&event.outcome),
        _ => event.outcome.clone(),
    };
    let mut line = format!("{}  {outcome}  {}", event.time.strftime("%H:%M:%S%.3fZ"), event.reason);
    if let Some(limit) = &event.limit {
        _ = write!(line, " of {limit}");
    }
    line.push_str("  ");
    if let Some(source) = event.source {
        line += &end(source, event.source_port);
    }
    if let Some(destination) = event.destination {
        _ = write!(line, " -> {}", end(destination, event.destination_port));
    }
    for word in [&event.protocol, &event.service].into_iter().flatten() {
        _ = write!(line, "  {word}");
    }
    _ = write!(line, "  {} B on {}", event.length, event.interface);
    line
}

fn end(address: std::net::IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

/// How many refusals, of all sources and whatever the filter, are not shown: while following since the last line,
/// otherwise since the programs were loaded.
fn missed(gap: Gap, follow: bool) -> String {
    let since = if follow { "meanwhile" } else { "since the programs were loaded" };
    let mut parts = Vec::new();
    if gap.withheld > 0 {
        parts.push(format!("{} beyond the policy's rate of events", gap.withheld));
    }
    if gap.lost > 0 {
        parts.push(format!("{} lost, because this reader or the agent was too slow", gap.lost));
    }
    format!("(not shown, of all refusals {since}: {})", parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            time: "2026-11-23T19:00:00.123Z".parse().unwrap(),
            reason: "source-limit".to_owned(),
            outcome: "drop".to_owned(),
            source: Some("192.0.2.7".parse().unwrap()),
            destination: Some("2001:db8::1".parse().unwrap()),
            source_port: Some(50_022),
            destination_port: Some(80),
            protocol: Some("tcp".to_owned()),
            limit: Some("new-connections".to_owned()),
            service: Some("web".to_owned()),
            interface: "eth0".to_owned(),
            length: 74,
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let expected = "19:00:00.123Z  drop  source-limit of new-connections  \
                        192.0.2.7:50022 -> [2001:db8::1]:80  tcp  web  74 B on eth0";
        assert_eq!(render(&event(), Paint::PLAIN), expected);
        let shape = Event {
            source: None,
            destination: None,
            protocol: None,
            limit: None,
            service: None,
            reason: "too-many-vlans".to_owned(),
            ..event()
        };
        assert_eq!(render(&shape, Paint::PLAIN), "19:00:00.123Z  drop  too-many-vlans    74 B on eth0");
    }

    #[test]
    fn what_is_not_shown_is_counted() {
        let expected = "(not shown, of all refusals meanwhile: 30 beyond the policy's rate of events)";
        assert_eq!(missed(Gap { lost: 0, withheld: 30 }, true), expected);
        let text = missed(Gap { lost: 2, withheld: 30 }, false);
        assert!(text.contains("30 beyond") && text.contains("2 lost") && text.contains("since the programs"), "{text}");
    }

    #[test]
    fn filters_are_checked_before_they_are_sent() {
        assert_eq!(prefix("!192.0.2.0/24"), Ok("!192.0.2.0/24".to_owned()));
        assert!(prefix("192.0.2.1/24").is_err());
        assert!(reason("source-limits").unwrap_err().contains("source-limit"));
        assert_eq!(outcome("!pass"), Ok("!pass".to_owned()));
    }
}
