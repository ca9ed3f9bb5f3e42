//! `throttle top`: who talks, which limits act, why packets are refused, and what the health of services decides, as it
//! changes.
//!
//! The agent is asked for one look after the other ([`Top`]); two of them give rates ([`sheet`], pure). They are drawn on
//! the terminal ([`screen`]) as its state has it, which keys change ([`keys`], pure), or printed as text one after the
//! other (`--batch`).

mod keys;
mod screen;
mod sheet;

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use throttle_agent::{
    api::wire::{Envelope, Top, TopQuery, paths},
    policy::{Fault, units::Span},
};

use self::{
    keys::{Act, State},
    sheet::{Looks, Sheet, View},
};
use super::{
    Context,
    client::{Client, query},
    failure::Failure,
    output,
    table::Table,
    words::whole,
};

/// How often to look, and how to show it.
#[derive(Debug, Args)]
#[command(after_help = "\
Keys: 1-6 or Tab choose what is shown, s the column to sort by, r turns the order round, / filters, Esc takes the filter
back, p pauses, + and - change the interval, arrows scroll, q ends.

What is sorted and filtered is what the agent was asked for, the --most talkers that use their limits most, of rates and
of open connections each; so it is by keys and by --sort and --filter alike.

Examples:
  throttle top
  throttle top --batch --most 1000 --sort room --filter 203.0.113. --iterations 1
  throttle top --batch --iterations 3 --interval 5s
  throttle top --json --iterations 1 | jq '.talkers[0]'")]
pub(crate) struct TopArgs {
    /// Print text instead of drawing on the terminal
    #[arg(long, short)]
    batch: bool,
    /// End after so many prints, with --batch or --json
    #[arg(long, short = 'n', value_name = "N", value_parser = whole(1_u64, u64::MAX))]
    iterations: Option<u64>,
    /// How long between two looks
    #[arg(long, short, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Span,
    /// How many talkers, and sources that were refused, to ask for
    #[arg(long, short, value_name = "N", default_value_t = 50, value_parser = whole(1_u16, 1000))]
    most: u16,
    /// Sort by the column of this heading, or what it begins with, where a table has one; with --batch, without --json
    #[arg(long, value_name = "HEADING", requires = "batch", value_parser = heading)]
    sort: Option<String>,
    /// Turn the order round, with --batch, without --json
    #[arg(long, requires = "batch")]
    reverse: bool,
    /// Print only rows that contain these letters, in either case, with --batch, without --json
    #[arg(long, value_name = "LETTERS", requires = "batch")]
    filter: Option<String>,
}

impl TopArgs {
    /// Shows it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        let source =
            Source { client: context.client()?, path: query(paths::TOP, &TopQuery { most: Some(self.most) })? };
        if context.output.json && (self.sort.is_some() || self.filter.is_some() || self.reverse) {
            let remedy = "--sort, --reverse and --filter are for tables; of JSON, pick with jq: \
                          `jq '.talkers | map(select(.source | contains(\"203.0.113.\"))) | sort_by(.room)'`";
            return Err(Failure::Usage(remedy.to_owned()));
        }
        let interval = Duration::from(self.interval);
        let times = self.iterations.unwrap_or(u64::MAX);
        if context.output.json {
            return repeat(times, interval, || output::data(&source.answer()?));
        }
        if self.batch {
            let mut looks = Looks::of(source.look()?);
            return repeat(times, Duration::ZERO, || {
                // The first print has a rate as well.
                thread::sleep(interval);
                looks.add(source.look()?);
                output::data(&self.page(&looks, context))
            });
        }
        if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
            let remedy = "`throttle top` draws on a terminal, and this is none; use --batch, or --json for a program";
            return Err(Failure::Usage(remedy.to_owned()));
        }
        if self.iterations.is_some() {
            return Err(Failure::Usage("--iterations goes with --batch or --json; on a terminal, q ends".to_owned()));
        }
        live(&source, interval)
    }
}

impl TopArgs {
    /// All views as text, one below the other.
    fn page(&self, looks: &Looks, context: &Context) -> String {
        let paint = context.output.paint;
        let mut text = format!("{}\n", paint.strong(&looks.headline()));
        for view in View::ALL {
            let sheet = self.sheet(looks, view);
            _ = writeln!(text, "\n{}", paint.strong(sheet.title));
            if sheet.rows.is_empty() {
                _ = writeln!(text, "{}", sheet.empty);
                continue;
            }
            let mut table = Table::new(sheet.headings);
            for row in sheet.rows {
                table.push(row.into_iter().map(|field| field.text.into()).collect());
            }
            text += &table.render(paint);
        }
        text + "\n"
    }

    /// The rows of a view that are asked for, in the order that is.
    fn sheet(&self, looks: &Looks, view: View) -> Sheet {
        let mut sheet = looks.sheet(view);
        sheet.filter(self.filter.as_deref().unwrap_or_default());
        sheet.order(self.sort.as_deref().and_then(|heading| view.column(heading)), self.reverse);
        sheet
    }
}

/// A heading of a table.
fn heading(text: &str) -> Result<String, String> {
    if View::ALL.iter().any(|view| view.column(text).is_some()) {
        return Ok(text.to_owned());
    }
    Err("no table has such a column; write the beginning of a heading that --batch prints, e.g. used".to_owned())
}

/// Between two looks: with less the agent would do little else.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// Some time between two looks.
fn interval(text: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|fault: Fault| fault.to_string())?;
    if Duration::from(span) < SHORTEST_INTERVAL {
        Err("too little time lies between two looks; write 100ms or more".to_owned())
    } else {
        Ok(span)
    }
}

/// Where looks come from.
struct Source {
    client: Client,
    path: String,
}

impl Source {
    fn answer(&self) -> Result<String, Failure> {
        Ok(self.client.get(&self.path)?.text().into_owned())
    }

    fn look(&self) -> Result<Top, Failure> {
        Ok(self.client.get(&self.path)?.parse::<Envelope<Top>>()?.body)
    }
}

fn repeat(times: u64, pause: Duration, mut print: impl FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
    for turn in 0..times {
        if turn > 0 {
            thread::sleep(pause);
        }
        print()?;
    }
    Ok(())
}

/// Draws on the terminal until somebody ends it; the terminal is then as it was.
fn live(source: &Source, interval: Duration) -> Result<(), Failure> {
    let mut looks = Looks::of(source.look()?);
    let mut state = State::new(interval);
    let mut terminal = ratatui::try_init().context("take over the terminal")?;
    let ended = draw(&mut terminal, source, &mut looks, &mut state);
    ratatui::try_restore().context("give the terminal back")?;
    ended
}

fn draw(
    terminal: &mut ratatui::DefaultTerminal,
    source: &Source,
    looks: &mut Looks,
    state: &mut State,
) -> Result<(), Failure> {
    let mut due = Instant::now() + state.interval();
    loop {
        terminal.draw(|frame| screen::draw(frame, looks, state))?;
        let rest = if state.paused() { Duration::from_hours(1) } else { due.saturating_duration_since(Instant::now()) };
        if event::poll(rest)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match state.press(key) {
                    Act::End => return Ok(()),
                    Act::Look => due = Instant::now(),
                    Act::Nothing => {}
                },
                _ => {}
            }
            continue;
        }
        // An agent that restarts is waited for; what was seen last stays on the screen meanwhile.
        match source.look() {
            Ok(look) => {
                looks.add(look);
                state.trouble = None;
            }
            Err(failure) => state.trouble = Some(failure.to_string()),
        }
        due = Instant::now() + state.interval();
    }
}
