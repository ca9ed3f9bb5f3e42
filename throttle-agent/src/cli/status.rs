//! `throttle status`: one screen, problems first, and an exit code that a monitor can trust.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use jiff::Timestamp;
use throttle_agent::{
    api::wire::{Envelope, Forecast, PageCounts, PenaltyCounts, Status, paths},
    datapath::PRIVATE_PINS,
    policy::{Mode, units::Span},
};
use throttle_common::words::{Action, Outcome, Reason};

use super::{
    Context,
    client::Answer,
    failure::Failure,
    health_line::overview,
    limit_views,
    output::{self, Paint},
    quantity::{bytes, count, per_second, span, until},
    speed::sentence,
    table::{Cell, Table, Tone},
    writing::waiting,
};

/// How often `--wait` looks.
const LOOK: Duration = Duration::from_millis(200);

/// What to show, and when.
#[derive(Debug, Args)]
#[command(after_help = "\
Exits 0 when nothing is wrong, 4 when something is (a missing interface, generic mode, a full table), 3 without an agent.

Examples:
  throttle status
  throttle status --wait --timeout 10s && echo ready
  throttle status --json | jq .problems")]
pub(crate) struct StatusArgs {
    /// Wait until an agent answers and nothing is wrong
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", default_value = "30s", requires = "wait")]
    timeout: Span,
    /// Also show forecasts, losses, privileges and the build
    #[arg(long, short)]
    verbose: bool,
}

impl StatusArgs {
    /// Shows it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        let (answer, status) = self.look(context)?;
        if context.output.json {
            output::data(&answer.text())?;
        } else {
            output::data(&render(&status, self.verbose, Timestamp::now(), context.output.paint))?;
        }
        if status.problems.is_empty() { Ok(()) } else { Err(Failure::Degraded) }
    }

    /// The first look, or with `--wait` the first one without problems, or the last one in time.
    fn look(&self, context: &Context) -> Result<(Answer, Status), Failure> {
        let client = context.client()?;
        let begin = Instant::now();
        loop {
            let look = client.get(paths::STATUS).and_then(|answer| {
                let status = answer.parse::<Envelope<Status>>()?.body;
                Ok((answer, status))
            });
            let well = look.as_ref().is_ok_and(|(_, status)| status.problems.is_empty());
            if well || !self.wait || begin.elapsed() >= Duration::from(self.timeout) {
                return look;
            }
            thread::sleep(LOOK);
        }
    }
}

fn render(status: &Status, verbose: bool, now: Timestamp, paint: Paint) -> String {
    let mut text = headline(status, now, paint);
    for problem in &status.problems {
        _ = writeln!(text, "  {} {problem}", paint.fault("!"));
    }
    for note in status.warnings.iter().cloned().chain(notes(status, now)) {
        _ = writeln!(text, "  {} {note}", paint.warning("*"));
    }
    let mut part = |part: String| {
        if !part.is_empty() {
            _ = write!(text, "\n{part}");
        }
    };
    part(attachments(status, paint));
    part(if status.limits.is_empty() { String::new() } else { limit_views::render(&status.limits, paint) });
    part(overview(&status.health, paint));
    part(traffic(status, paint));
    part(table(status) + &counting(status));
    if verbose {
        part(forecasts(status, paint));
        part(details(status));
    }
    text
}

fn headline(status: &Status, now: Timestamp, paint: Paint) -> String {
    let health = match status.problems.len() {
        0 => paint.good("healthy"),
        1 => paint.fault("1 problem"),
        more => paint.fault(&format!("{more} problems")),
    };
    let mode = match status.mode {
        Mode::Enforce => paint.strong("enforcing"),
        Mode::Observe => paint.warning("observing"),
    };
    let revision = match status.revision {
        0 => "no policy in force".to_owned(),
        revision => format!("revision {revision}"),
    };
    format!("throttle {}: {health}, {mode}, {revision}, up {}\n", status.build.version, until(now, status.started))
}

/// What is as it was asked to be, and still should not be forgotten.
fn notes(status: &Status, now: Timestamp) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(pending) = &status.pending {
        notes.push(waiting(pending, now));
    }
    if status.mode == Mode::Observe {
        notes.push("this host only observes: nothing is refused until `throttle mode enforce`".to_owned());
    }
    notes.extend(status.speeds.iter().map(|view| sentence(view, now)));
    let rejects = status.limits.iter().any(|view| view.limit.action == Action::Reject);
    for attachment in &status.attachments {
        if rejects && attachment.attached && attachment.driver.as_deref() == Some("veth") {
            let interface = &attachment.interface;
            notes.push(format!(
                "{interface} is a veth: answers of `reject` reach its other end only where that has an XDP program too; \
                 elsewhere `reject` is a `drop`"
            ));
        }
    }
    if let Some(why) = &status.sockets_unwatched {
        notes.push(format!(
            "a completed handshake proves nobody, so that only the known sources of the policy keep a place in a flood, and \
             how many connections are open is known only once a second: {why}"
        ));
    }
    let PenaltyCounts { full, room, .. } = status.penalties;
    if full > 0 {
        notes.push(format!(
            "{} sources were not sentenced by a penalty, because {} serve their time: as many as there is room for; make \
             sentences shorter (`at-most`), or block whole prefixes",
            count(full),
            count(room)
        ));
    }
    if status.ends_with_agent {
        notes.push(format!("throttling ends with the agent: {PRIVATE_PINS}"));
    }
    for session in &status.session_allows {
        let (source, end) = (session.prefix.addr(), until(session.until, now));
        notes.push(format!("the SSH session of {} from {source} stays allowed for {end}", session.author));
    }
    notes
}

fn attachments(status: &Status, paint: Paint) -> String {
    let mut table = Table::new(&["INTERFACE", "STATE", "XDP MODE", "NOTE"]);
    for attachment in &status.attachments {
        let mode = attachment.mode.as_deref().unwrap_or_default();
        // The agent's problems stand at the top already.
        let note = attachment.problem.as_deref().filter(|note| !status.problems.iter().any(|problem| problem == note));
        let state = if attachment.attached {
            Cell::new("attached", Tone::Good)
        } else {
            Cell::new("not attached", Tone::Fault)
        };
        table.row([
            attachment.interface.as_str().into(),
            state,
            Cell::new(mode, if mode == "native" { Tone::Plain } else { Tone::Warning }),
            note.unwrap_or_default().into(),
        ]);
    }
    if table.is_empty() {
        "no interface is throttled; see `throttle run --interface`\n".into()
    } else {
        table.render(paint)
    }
}

fn traffic(status: &Status, paint: Paint) -> String {
    let mut table = Table::new(&["REASON", "OUTCOME", ">PACKETS", ">BYTES"]);
    for line in &status.reasons {
        let tone = match (Outcome::from_name(&line.outcome), Reason::from_name(&line.reason)) {
            (Some(Outcome::Drop | Outcome::Reject), _) => Tone::Fault,
            (Some(Outcome::Observe), _) => Tone::Warning,
            _ => Tone::Plain,
        };
        table.row([
            line.reason.as_str().into(),
            Cell::new(&*line.outcome, tone),
            count(line.packets).into(),
            bytes(line.bytes).into(),
        ]);
    }
    if table.is_empty() { "no frame has been seen yet\n".to_owned() } else { table.render(paint) }
}

fn table(status: &Status) -> String {
    let table = &status.table;
    let mut text = format!(
        "table: {} of {} sets belong to limits, {} of memory; timed blocks: {}",
        count(table.sets_used),
        count(table.sets),
        bytes(table.bytes),
        count(status.blocks),
    );
    if status.penalties.serving > 0 {
        _ = write!(text, ", {} of them sentences", count(status.penalties.serving));
    }
    if status.losses.events_lost > 0 {
        _ = write!(text, "; events lost: {}", count(status.losses.events_lost));
    }
    text.push('\n');
    text
}

/// By what open connections are counted, where a limit counts them.
fn counting(status: &Status) -> String {
    let Some(connections) = &status.connections else { return String::new() };
    let mended = connections.mended_closed + connections.mended_open;
    let way = match connections.forwarded.as_slice() {
        [] => "this host's sockets".to_owned(),
        forwarded => format!(
            "their packets ({}) for {}, by this host's sockets for all others",
            egress(status),
            forwarded.join(", ")
        ),
    };
    let silent = match connections.forgotten_idle {
        0 => String::new(),
        idle => format!("; {} forgotten for their silence", count(idle)),
    };
    format!("open connections are counted by {way}; mended: {}{silent}\n", count(mended))
}

/// By what packets that leave are seen, where an interface differs from others by each.
fn egress(status: &Status) -> String {
    let ways: BTreeSet<&str> = status.attachments.iter().filter_map(|it| it.egress.as_deref()).collect();
    if ways.is_empty() { "unseen".to_owned() } else { ways.into_iter().collect::<Vec<_>>().join(", ") }
}

fn forecasts(status: &Status, paint: Paint) -> String {
    let mut table = Table::new(&[
        "LIMIT",
        "FAMILY",
        ">PREFIX",
        ">AGGREGATE",
        ">SLOTS",
        ">BUSY",
        ">AGGREGATES BUSY",
        ">BUSY FOR",
        ">FULL AT",
    ]);
    for view in &status.limits {
        for region in &view.regions {
            let filled = |show: fn(Forecast) -> String| region.forecast.map_or("".into(), |it| show(it).into());
            table.row([
                view.limit.name.as_str().into(),
                region.family.as_str().into(),
                format!("/{}", region.prefix).into(),
                format!("/{}", region.aggregate).into(),
                count(region.slots).into(),
                count(region.busy).into(),
                count(region.aggregates_busy).into(),
                filled(|forecast| span(Duration::from_secs_f64(forecast.busy_seconds))),
                filled(|forecast| per_second(forecast.flood_per_second)),
            ]);
        }
    }
    if table.is_empty() { String::new() } else { table.render(paint) }
}

/// What was sent in place of services, where anything was.
fn pages(pages: &PageCounts) -> String {
    let PageCounts { greeted, told, cut, acknowledged } = *pages;
    if *pages == PageCounts::default() {
        return String::new();
    }
    format!(
        "pages: {} SYN-ACKs, {} answers with 429 ({} cut short), {} acknowledgements\n",
        count(greeted),
        count(told),
        count(cut),
        count(acknowledged)
    )
}

/// What penalties came to, where a limit has one.
fn penalties(status: &Status) -> String {
    if status.limits.iter().all(|view| view.limit.penalty.is_none()) {
        return String::new();
    }
    let PenaltyCounts { serving, remembered, room, untold, unproven, uncounted, .. } = status.penalties;
    format!(
        "penalties: {} sentences served now, {} of {} remembered; {} offences told later, {} refusals of nobody proven, {} \
         without room to be counted\n",
        count(serving),
        count(remembered),
        count(room),
        count(untold),
        count(unproven),
        count(uncounted)
    )
}

fn details(status: &Status) -> String {
    let losses = &status.losses;
    let capabilities =
        if status.capabilities.is_empty() { "all that it was given".to_owned() } else { status.capabilities.join(" ") };
    format!(
        "events: {} withheld, {} lost; answers: {} withheld, {} undue\n{}{}\
         capabilities: {capabilities}\n\
         map layout {}, kernel object {}\n",
        count(losses.events_withheld),
        count(losses.events_lost),
        count(losses.answers_withheld),
        count(losses.answers_undue),
        pages(&status.pages),
        penalties(status),
        status.build.layout,
        status.build.object_digest,
    )
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
