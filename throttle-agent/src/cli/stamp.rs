//! `throttle stamp`: the hosts that serve the same tenants as this one, and the keys that they share.

use std::{
    fmt::Write as _,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use throttle_agent::{
    api::wire::{Envelope, SkewView, StampHostView, StampView, paths},
    policy::Diagnostics,
    stamp::{self, Key, Keys},
    tls::FileFault,
};

use super::{
    Context,
    failure::Failure,
    output::{self, Paint},
    quantity::{per_second, percent, span},
    table::{Cell, Table, Tone},
};

/// Changes that are shown without `--verbose`.
const LAST: usize = 5;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum StampCommand {
    /// Show the hosts of the stamp, how each stands, and who differs from the others
    Status(StampStatus),
    /// Make and change the file of keys that the hosts of a stamp share; works without an agent
    #[command(subcommand)]
    Key(KeyCommand),
}

/// How much to show.
#[derive(Debug, Args)]
#[command(after_help = "\
It is what this host sees: ask another one and you see that one's view. A host is suspect once it is silent for four times
as long as is usual, and dead at eight times. Exits 0 also where hosts are dead: `throttle status` warns of them.

Examples:
  throttle stamp status
  throttle stamp status --json | jq -r '.hosts[] | select(.state == \"dead\") | .host'")]
pub(crate) struct StampStatus {
    /// Show all changes that the agent remembers, up to 100, and what came of datagrams
    #[arg(long, short)]
    verbose: bool,
}

/// What to do with a file of keys.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
The first key of the file seals what a host gossips, all of them open what others do, and a running agent reads the file
anew when it changes. So a key is replaced without a host being deaf to another for a moment, in three steps; after each
the file goes to every host, and `throttle stamp status` shows who has it:
  throttle stamp key add FILE       every host opens the new key
  throttle stamp key promote FILE   every host seals with it
  throttle stamp key retire FILE    no host opens the old one

Examples:
  throttle stamp key new /etc/throttle/blue.key
  throttle stamp key list /etc/throttle/blue.key")]
pub(crate) enum KeyCommand {
    /// Make a file with a new key
    New(KeyFile),
    /// Name the keys of a file, the one that seals first
    List(KeyFile),
    /// Add a new key, which opens but does not seal yet
    Add(KeyFile),
    /// Have the last key seal
    Promote(KeyFile),
    /// Drop all keys but the one that seals
    Retire(KeyFile),
}

/// Which file.
#[derive(Debug, Args)]
pub(crate) struct KeyFile {
    /// The file: of mode 0600, the same on every host of the stamp
    file: PathBuf,
}

impl StampCommand {
    /// Shows or does it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Status(status) => status.obey(context),
            Self::Key(command) => command.obey(context),
        }
    }
}

impl StampStatus {
    fn obey(self, context: &Context) -> Result<(), Failure> {
        let answer = context.client()?.get(paths::STAMP)?;
        if context.output.json {
            return output::data(&answer.text());
        }
        let view = answer.parse::<Envelope<StampView>>()?.body;
        output::data(&render(&view, self.verbose, context.output.paint))
    }
}

impl KeyCommand {
    fn obey(self, context: &Context) -> Result<(), Failure> {
        let (file, keys) = match &self {
            Self::New(KeyFile { file }) => (file, Keys::one(Key::random()?)),
            Self::List(KeyFile { file }) => (file, read(file)?),
            Self::Add(KeyFile { file }) => {
                let key = Key::random()?;
                (file, changed(file, |keys| keys.with(key))?)
            }
            Self::Promote(KeyFile { file }) => (file, changed(file, Keys::promoted)?),
            Self::Retire(KeyFile { file }) => (file, changed(file, Keys::retired)?),
        };
        if !matches!(self, Self::List(_)) {
            let is_new = matches!(self, Self::New(_));
            stamp::write(file, &keys, !is_new).map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists if is_new => Failure::Usage(format!(
                    "{} is there already, and what it holds would be lost; `throttle stamp key add` adds a key to it",
                    file.display()
                )),
                _ => Failure::Failed(anyhow::Error::new(error).context(format!("write {}", file.display()))),
            })?;
        }
        let names: Vec<String> = keys.all().iter().map(Key::name).collect();
        if context.output.json {
            return output::json(&Envelope::new(serde_json::json!({ "keys": names })));
        }
        output::data(&listed(&names, context.output.paint))
    }
}

fn read(file: &Path) -> Result<Keys, Failure> {
    stamp::read(file).map_err(|FileFault { file, fault }| Failure::File {
        title: "The file is refused",
        faults: Diagnostics(vec![fault.at("")]),
        file: file.display().to_string(),
    })
}

fn changed(file: &Path, change: impl FnOnce(&Keys) -> Result<Keys, String>) -> Result<Keys, Failure> {
    change(&read(file)?).map_err(|refusal| Failure::Usage(format!("{}: {refusal}", file.display())))
}

fn listed(names: &[String], paint: Paint) -> String {
    let mut table = Table::new(&["KEY", "USE"]);
    for (place, name) in names.iter().enumerate() {
        table.row([name.as_str().into(), if place == 0 { "seals and opens" } else { "opens" }.into()]);
    }
    table.render(paint)
}

fn render(view: &StampView, verbose: bool, paint: Paint) -> String {
    let mut text = headline(view, paint);
    for warning in &view.warnings {
        _ = writeln!(text, "  {} {warning}", paint.warning("*"));
    }
    text.push('\n');
    text += &hosts(view, paint);
    if !view.changes.is_empty() {
        _ = writeln!(text, "\n{}", paint.faint("last changes, the newest first"));
        for change in view.changes.iter().take(if verbose { usize::MAX } else { LAST }) {
            let at = change.time.strftime("%H:%M:%S%.1fZ").to_string();
            _ = writeln!(text, "  {} {} {}", paint.faint(&at), change.host, change.message);
        }
    }
    if verbose {
        text += &datagrams(view);
    }
    text
}

/// How a state is painted.
type Tint = fn(Paint, &str) -> String;

/// How many there are, and how they stand.
fn headline(view: &StampView, paint: Paint) -> String {
    let count = |state: &str| view.hosts.iter().filter(|it| it.state == state).count();
    let tones: [(&str, Tint); 5] = [
        ("alive", Paint::good),
        ("suspect", Paint::warning),
        ("dead", Paint::fault),
        ("left", Paint::faint),
        ("unheard", Paint::warning),
    ];
    let counts = tones.into_iter().filter_map(|(state, tint)| {
        let hosts = count(state);
        (hosts > 0).then(|| tint(paint, &format!("{hosts} {state}")))
    });
    let counts = counts.collect::<Vec<_>>().join(", ");
    format!("stamp {}, as {} sees it: {counts}\n", paint.strong(&view.stamp), view.host)
}

fn hosts(view: &StampView, paint: Paint) -> String {
    let headings = [
        "HOST",
        "ADDRESS",
        "STATE",
        ">FOR",
        ">SUSPICION",
        "BUILD",
        "PROGRAM",
        "POLICY",
        ">REVISION",
        "MODE",
        "KEY",
        ">LOAD",
        ">PACKETS",
        ">REFUSED",
    ];
    let mut table = Table::new(&headings);
    for host in &view.hosts {
        let tone = match host.state.as_str() {
            "alive" => Tone::Good,
            "dead" => Tone::Fault,
            "left" => Tone::Plain,
            _ => Tone::Warning,
        };
        let differs = |subject: &str| {
            let odd = |it: &&SkewView| it.subject == subject && it.host == host.host;
            if view.skew.iter().any(|it| odd(&it)) { Tone::Warning } else { Tone::Plain }
        };
        let lives = matches!(host.state.as_str(), "alive" | "suspect");
        let digest = |value: &Option<String>| value.as_deref().map_or("", |it| it.get(..8).unwrap_or(it)).to_owned();
        let now = |value: Option<f64>, show: fn(f64) -> String| value.filter(|_| lives).map(show).unwrap_or_default();
        table.row([
            if host.own { format!("{} (this)", host.host) } else { host.host.clone() }.into(),
            host.address.as_str().into(),
            Cell::new(host.state.as_str(), tone),
            age(host).into(),
            if lives && !host.own { format!("{:.1}", host.suspicion) } else { String::new() }.into(),
            Cell::new(host.build.clone().unwrap_or_default(), differs("build")),
            Cell::new(digest(&host.program), differs("program")),
            Cell::new(digest(&host.policy), differs("policy")),
            host.revision.map_or(String::new(), |it| it.to_string()).into(),
            host.mode.as_deref().unwrap_or_default().into(),
            Cell::new(host.keys.first().cloned().unwrap_or_default(), differs("key")),
            now(host.load, percent).into(),
            now(host.packets_per_second, per_second).into(),
            now(host.refused_per_second, per_second).into(),
        ]);
    }
    table.render(paint)
}

/// For how long it has been what it is.
fn age(host: &StampHostView) -> String {
    span(Duration::from_secs_f64(host.since_seconds.max(0.0).floor()))
}

fn datagrams(view: &StampView) -> String {
    let it = &view.datagrams;
    let mut text = format!("\ndatagrams: {} sent, {} received and counted", it.sent, it.received);
    if it.unsent > 0 {
        _ = write!(text, ", {} not taken by the system", it.unsent);
    }
    for refused in it.refused.iter().filter(|it| it.datagrams > 0) {
        _ = write!(text, ", {} {}", refused.datagrams, refused.reason);
    }
    text.push('\n');
    text
}

#[cfg(test)]
#[path = "stamp_tests.rs"]
mod tests;
