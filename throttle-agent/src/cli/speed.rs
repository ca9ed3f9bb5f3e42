//! `throttle speed`: how fast the time of limits runs.

use std::{fmt::Write as _, time::Duration};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use throttle_agent::{
    api::wire::{Envelope, LONGEST_SPEED, SpeedRequest, SpeedReset, SpeedView, Speeds, paths},
    policy::units::Span,
};

use super::{
    Context,
    failure::Failure,
    output::{self, Paint},
    quantity::{moment, span, until},
    table::{Cell, Table, Tone},
    words::at_most,
};

/// How fast limits' clocks may run.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.0625..=1.0;

/// What to show or do.
#[derive(Debug, Args)]
#[command(after_help = "\
At a speed of 0.5 every limit on a rate that goes by the clock admits half of it, of each source at once, and no bucket
is emptied or filled by that. Limits go by the clock of their service, those without one by the host's.

Examples:
  throttle speed
  throttle speed set 0.5 --service web --for 30s
  throttle speed reset --service web")]
pub(crate) struct SpeedArgs {
    #[command(subcommand)]
    command: Option<SpeedCommand>,
}

#[derive(Debug, Subcommand)]
enum SpeedCommand {
    /// List all clocks (default)
    List,
    /// Have a clock run slower: every limit that goes by it admits that share of its rate
    Set {
        /// A share of real time, 0.0625 to 1
        #[arg(value_parser = speed, allow_hyphen_values = true)]
        speed: f64,
        /// The service whose limits go by it; without it the host's clock
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        /// For how long, e.g. 30s or 10m, at most 30d; by default until it is reset
        #[arg(long = "for", value_name = "TIME", value_parser = at_most(LONGEST_SPEED), allow_hyphen_values = true)]
        span: Option<Span>,
    },
    /// Have a clock run as fast as real time again
    Reset {
        /// The service whose limits go by it; without it the host's clock
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
    },
}

impl SpeedArgs {
    /// Shows or does it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let answer = match self.command.unwrap_or(SpeedCommand::List) {
            SpeedCommand::List => {
                let answer = client.get(paths::SPEEDS)?;
                if context.output.json {
                    return output::data(&answer.text());
                }
                let speeds = answer.parse::<Envelope<Speeds>>()?.body.speeds;
                return output::data(&render(&speeds, Timestamp::now(), context.output.paint));
            }
            SpeedCommand::Set { speed, service, span } => {
                client.put(paths::SPEEDS, &SpeedRequest { service, speed, seconds: span.map(Span::seconds) })?
            }
            SpeedCommand::Reset { service } => client.post(paths::SPEEDS_RESET, &SpeedReset { service })?,
        };
        if context.output.json {
            return output::data(&answer.text());
        }
        let view = answer.parse::<Envelope<SpeedView>>()?.body;
        output::data(&format!("{}\n", sentence(&view, Timestamp::now())))
    }
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: Option<f64> = text.parse().ok().filter(|speed| SPEEDS.contains(speed));
    speed.ok_or_else(|| {
        let wrong = if text.starts_with('-') { "it cannot be negative; " } else { "" };
        let (least, most) = (SPEEDS.start(), SPEEDS.end());
        format!("{wrong}write a share of real time from {least} to {most}; what must be refused altogether, block")
    })
}

/// How a clock runs and what that means, in a sentence.
pub(crate) fn sentence(view: &SpeedView, now: Timestamp) -> String {
    let whose = view.service.as_ref().map_or("the host's clock".to_owned(), |name| format!("the clock of {name}"));
    if view.speed >= 1.0 {
        return format!("{whose} runs as fast as real time: its limits admit their rates");
    }
    let mut text = format!("{whose} runs at {}", share(view.speed));
    match (view.until, &view.author) {
        (Some(end), _) => _ = write!(text, " until {}, in {}", moment(end), until(end, now)),
        (None, Some(_)) => text += " until `throttle speed reset`",
        (None, None) => {}
    }
    _ = write!(
        text,
        ": its limits admit {} % of their rates, and what was used of them takes {} times as long to come back",
        rounded(view.speed * 100.0),
        rounded(1.0 / view.speed)
    );
    text
}

/// A number as it was typed, or near to it.
pub(crate) fn share(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A number to three digits, as far as they say anything.
fn rounded(value: f64) -> String {
    let places = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    let text = format!("{value:.places$}");
    if places == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

fn render(speeds: &[SpeedView], now: Timestamp, paint: Paint) -> String {
    let mut table = Table::new(&["CLOCK", ">SPEED", "SET BY", ">FOR", ">LEASE", ">BEHIND", "LIMITS"]);
    for view in speeds {
        let tone = if view.speed < 1.0 { Tone::Warning } else { Tone::Plain };
        let spans = |seconds: f64| span(Duration::from_secs_f64((seconds * 10.0).round() / 10.0));
        table.row([
            view.service.as_deref().unwrap_or("the host").into(),
            Cell::new(share(view.speed), tone),
            view.author.as_deref().unwrap_or_default().into(),
            view.until.map_or(String::new(), |end| until(end, now)).into(),
            view.lease_seconds.map_or(String::new(), spans).into(),
            if view.behind_seconds == 0.0 { String::new() } else { spans(view.behind_seconds) }.into(),
            view.limits.join(", ").into(),
        ]);
    }
    table.render(paint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(speed: f64) -> SpeedView {
        SpeedView {
            service: Some("web".to_owned()),
            speed,
            author: Some("root".to_owned()),
            until: Some("2026-11-24T20:00:30Z".parse().unwrap()),
            lease_seconds: Some(4.2),
            behind_seconds: 12.0,
            limits: vec!["a".to_owned(), "b".to_owned()],
        }
    }

    fn now() -> Timestamp {
        "2026-11-24T20:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_speed_is_told_with_what_it_means() {
        let expected = "the clock of web runs at 0.25 until 2026-11-24 20:00:30Z, in 30 s: its limits admit 25 % of their \
                        rates, and what was used of them takes 4 times as long to come back";
        assert_eq!(sentence(&view(0.25), now()), expected);
        let host = SpeedView { service: None, until: None, ..view(0.5) };
        assert!(sentence(&host, now()).starts_with("the host's clock runs at 0.5 until `throttle speed reset`: "));
        assert!(sentence(&view(1.0), now()).ends_with("runs as fast as real time: its limits admit their rates"));
    }

    #[test]
    fn clocks_are_listed_one_a_line() {
        let host = SpeedView { speed: 1.0, limits: vec!["all".to_owned()], ..SpeedView::default() };
        let expected = "\
CLOCK     SPEED  SET BY   FOR  LEASE  BEHIND  LIMITS
the host      1                               all
web        0.25  root    30 s  4.2 s    12 s  a, b
";
        assert_eq!(render(&[host, view(0.25)], now(), Paint::PLAIN), expected);
    }

    #[test]
    fn what_is_no_speed_is_told_the_bounds() {
        for text in ["-0.5", "0", "0.06", "1.01", "half", "nan"] {
            assert!(speed(text).unwrap_err().contains("from 0.0625 to 1"), "{text}");
        }
        assert_eq!((speed("0.0625"), speed("1")), (Ok(0.0625), Ok(1.0)));
    }
}
