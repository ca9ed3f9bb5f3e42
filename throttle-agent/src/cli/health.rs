//! `throttle health`: what is seen of services and their backends, and what follows from it.

use std::{fmt::Write as _, time::Duration};

use clap::Args;
use throttle_agent::{
    api::wire::{BackendHealthView, BreakerView, Envelope, HealthReport, ServiceHealthView, TransitionView, paths},
    policy::Mode,
};

use super::{
    Context,
    client::under,
    failure::Failure,
    output::{self, Paint},
    quantity::{count, per_second, percent, span},
    table::{Cell, Table, Tone},
};

/// Changes that are shown without `--verbose`.
const LAST: usize = 10;

/// Whose health to show.
#[derive(Debug, Args)]
#[command(after_help = "\
Shows for each service that follows its health: what its limits follow and why, how many connections may be open, how fast
its clock is to run, its breaker, what is held of each backend, and what has changed last.

Examples:
  throttle health
  throttle health web
  throttle health web --json | jq '.services[0].window'")]
pub(crate) struct HealthArgs {
    /// The service; without it all that follow their health
    service: Option<String>,
    /// Show all changes that the agent remembers, up to 100
    #[arg(long, short)]
    verbose: bool,
}

impl HealthArgs {
    /// Shows it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        let path = self.service.as_ref().map_or(paths::HEALTH.to_owned(), |service| under(paths::HEALTH, service));
        let answer = context.client()?.get(&path)?;
        if context.output.json {
            return output::data(&answer.text());
        }
        let report = answer.parse::<Envelope<HealthReport>>()?.body;
        output::data(&render(&report, if self.verbose { usize::MAX } else { LAST }, context.output.paint))
    }
}

fn render(report: &HealthReport, last: usize, paint: Paint) -> String {
    if report.services.is_empty() {
        return "no service follows its health; `throttle service set NAME --health enforce` has one do so\n"
            .to_owned();
    }
    let mut text = String::new();
    for view in &report.services {
        text += &service(view, paint);
        text.push('\n');
    }
    if report.transitions.is_empty() {
        text += "nothing has changed since the agent was started\n";
    } else {
        _ = writeln!(text, "{}", paint.faint("last changes, the newest first"));
        for transition in report.transitions.iter().take(last) {
            _ = writeln!(text, "  {}", change(transition, paint));
        }
    }
    if report.notices_lost > 0 {
        _ = writeln!(text, "{} {} changes were not told to a webhook", paint.warning("*"), report.notices_lost);
    }
    text
}

/// One service: what is decided first, what stands behind it below.
fn service(view: &ServiceHealthView, paint: Paint) -> String {
    let mode = match view.mode {
        Mode::Enforce => paint.strong("enforced"),
        Mode::Observe => paint.warning("only shown"),
    };
    let mut text = format!("{}: {mode}, control {}\n", paint.strong(&view.service), view.control);
    _ = writeln!(text, "  {}", view.summary);
    let mut facts = Vec::new();
    if view.answered_per_second > 0.0 {
        facts.push(format!("{} answered", per_second(view.answered_per_second)));
    }
    if view.refused_per_second > 0.0 {
        facts.push(format!("{} refused for want of a place", per_second(view.refused_per_second)));
    }
    if view.closed > 0 {
        facts.push(format!("{} that were kept open are closed", count(view.closed)));
    }
    facts.extend(view.usual_seconds.map(|usual| format!("the first byte takes {} as a rule", seconds(usual))));
    if view.share < 1.0 {
        facts.push(format!("its backends leave {} of the load", percent(view.share)));
    }
    if !facts.is_empty() {
        _ = writeln!(text, "  {}", facts.join("; "));
    }
    if let Some(breaker) = &view.breaker {
        let (words, tone) = breaker_words(breaker, "", view.mode);
        let why = breaker.why.as_ref().filter(|_| breaker.state != "closed");
        let why = why.map_or_else(String::new, |why| format!(" for {}: {why}", seconds(breaker.since_seconds)));
        _ = writeln!(text, "  breaker {}{why}", tint(&words, tone, paint));
    }
    if view.needs_workers {
        _ = writeln!(text, "  {} it needs more workers: it is asked for more than it may bear", paint.fault("!"));
    }
    if view.doubts {
        _ = writeln!(text, "  {} many backends fell silent at once: no verdict for a moment", paint.warning("*"));
    }
    let mut signals = Table::new(&["SIGNAL", ">AGE", "SAYS"]);
    for signal in &view.signals {
        let live = if signal.name == view.signal { format!("{} (live)", signal.name) } else { signal.name.clone() };
        let tone = if signal.age_seconds < 3.0 { Tone::Plain } else { Tone::Warning };
        signals.row([live.into(), Cell::new(seconds(signal.age_seconds), tone), signal.value.as_str().into()]);
    }
    if !signals.is_empty() {
        text += &indented(&signals.render(paint));
    }
    if !view.backends.is_empty() {
        text += &indented(&backends(&view.backends, view.mode, paint));
        for backend in &view.backends {
            text += &reasons(backend, view.mode, paint);
        }
    }
    text
}

/// Why a backend is not well, or kept away, a line each.
fn reasons(view: &BackendHealthView, mode: Mode, paint: Paint) -> String {
    let mut text = String::new();
    let mut line = |what: String, is: String, why: &Option<String>| {
        if let Some(why) = why {
            _ = writeln!(text, "  {} {what} {}: {why}", paint.warning("*"), is.replace('-', " "));
        }
    };
    let name = format!("{} ({})", view.backend, view.address);
    if view.level != "healthy" {
        line(name.clone(), format!("is {}", view.level), &view.why);
    }
    if let Some(breaker) = view.breaker.as_ref().filter(|it| it.state != "closed") {
        let is = if would_be(breaker, mode) { "would be" } else { "is" };
        line(format!("the breaker of {name}"), format!("{is} {}", breaker.state), &breaker.why);
    }
    text
}

fn backends(views: &[BackendHealthView], mode: Mode, paint: Paint) -> String {
    let headings = ["BACKEND", "ADDRESS", "STATE", ">FOR", ">SUSPICION", ">SHARE", ">ANSWERED IN", "BREAKER"];
    let mut table = Table::new(&headings);
    for view in views {
        let tone = match view.level.as_str() {
            "healthy" => Tone::Good,
            "dead" => Tone::Fault,
            _ => Tone::Warning,
        };
        let words = |it| breaker_words(it, &view.level, mode);
        let (breaker, breaker_tone) = view.breaker.as_ref().map_or((String::new(), Tone::Plain), words);
        table.row([
            view.backend.as_str().into(),
            view.address.to_string().into(),
            Cell::new(view.level.as_str(), tone),
            seconds(view.since_seconds).into(),
            format!("{:.1}", view.suspicion).into(),
            percent(view.share).into(),
            view.latency_seconds.map(seconds).unwrap_or_default().into(),
            Cell::new(breaker, breaker_tone),
        ]);
    }
    table.render(paint)
}

/// A breaker in words, and how bad that is, with what is held of its backend where it has one. Of one that is shared also what
/// holds where it is not this one's word.
fn breaker_words(view: &BreakerView, level: &str, mode: Mode) -> (String, Tone) {
    let (mut words, mut tone) = match view.state.as_str() {
        "closed" => ("closed".to_owned(), Tone::Plain),
        "open" => {
            let until = match (view.tries_in_seconds, level) {
                (Some(rest), _) => format!(", a few try in {}", seconds(rest)),
                (None, "held") => " while it is held out".to_owned(),
                (None, _) => " until it answers again".to_owned(),
            };
            (format!("open{until}"), Tone::Fault)
        }
        "half-open" => {
            let left = match view.trials_left.unwrap_or_default() {
                0 => "all that may try do so".to_owned(),
                left => format!("{left} may yet try"),
            };
            (format!("half-open, {left}"), Tone::Warning)
        }
        state => (state.replace('-', " "), Tone::Warning),
    };
    if would_be(view, mode) {
        (words, tone) = (format!("would be {words}"), Tone::Warning);
    }
    if let Some(author) = &view.held_by {
        _ = write!(words, " by {author}");
    }
    if !view.shared_with.is_empty() {
        _ = write!(words, ", shared with {}", view.shared_with.join(", "));
    }
    if let Some(holds) = &view.in_force {
        _ = write!(words, ", and in force {}", holds.replace('-', " "));
        tone = Tone::Warning;
    }
    (words, tone)
}

/// Whether a breaker keeps nobody away, though it says so, because health only observes.
fn would_be(view: &BreakerView, mode: Mode) -> bool {
    mode == Mode::Observe && matches!(view.state.as_str(), "open" | "half-open")
}

fn change(transition: &TransitionView, paint: Paint) -> String {
    let at = transition.time.strftime("%H:%M:%S%.1fZ").to_string();
    format!("{} {}", paint.faint(&at), transition.message)
}

fn indented(table: &str) -> String {
    table.lines().fold(String::new(), |mut text, line| {
        _ = writeln!(text, "  {line}");
        text
    })
}

fn tint(text: &str, tone: Tone, paint: Paint) -> String {
    match tone {
        Tone::Plain => text.to_owned(),
        Tone::Good => paint.good(text),
        Tone::Warning => paint.warning(text),
        Tone::Fault => paint.fault(text),
    }
}

/// A span in seconds, at most to the millisecond.
fn seconds(value: f64) -> String {
    span(Duration::from_secs_f64((value.max(0.0) * 1_000.0).round() / 1_000.0))
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
