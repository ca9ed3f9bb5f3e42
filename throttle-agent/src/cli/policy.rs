//! `throttle policy`: the document as a whole, its revisions, and the way back.

use std::{io::Read as _, path::PathBuf};

use clap::{Args, Subcommand};
use throttle_agent::{
    api::wire::{
        ApplyRequest, CheckRequest, DiffReport, Envelope, History, PolicyQuery, PolicyView, RollbackRequest, paths,
    },
    policy::{self, Diagnostics},
};

use super::{
    Context,
    check::Check,
    client::query,
    conflicts::{self, ConflictsCommand, LettersCommand},
    failure::Failure,
    output::{self, Paint},
    quantity::moment,
    session::{self, Session},
    table::{Cell, Table, Tone},
    writing,
    writing::{Writing, changes},
};

/// What to do with a policy.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say what is wrong with a policy, and which flood fills each limit; works without an agent
    Check(Check),
    /// Show how a policy differs from the one in force
    #[command(after_help = "Examples:\n  throttle policy diff policy.toml")]
    Diff {
        /// The policy; `-` reads stdin
        file: PathBuf,
    },
    /// Put a policy in force, as a whole or not at all
    #[command(
        after_help = "Examples:\n  throttle policy apply policy.toml --confirm-within 60s -m 'tighter web limit'\n  \
                            throttle policy confirm"
    )]
    Apply(Apply),
    /// Keep the policy that would otherwise go back by itself
    Confirm,
    /// Print a policy as TOML, as `apply` takes it
    #[command(after_help = "Examples:\n  throttle policy export > policy.toml\n  throttle policy export --revision 7")]
    Export {
        /// An earlier one; by default the one in force
        #[arg(long, value_name = "N")]
        revision: Option<u64>,
    },
    /// List the revisions, the newest first
    History,
    /// Put an earlier revision in force again, as a new one
    #[command(
        after_help = "Examples:\n  throttle policy rollback      # to what was in force before, and once more for what was before that\n  throttle policy rollback 7"
    )]
    Rollback {
        /// Which; by default what was in force before that in force now, never what has been taken back
        revision: Option<u64>,
        #[command(flatten)]
        writing: Writing,
    },
    /// Show what hosts of the stamp said differently at the same time, and settle it for all
    #[command(
        after_help = "Examples:\n  throttle policy conflicts\n  throttle policy conflicts resolve 'limit web: rate' --host b"
    )]
    Conflicts {
        #[command(subcommand)]
        command: Option<ConflictsCommand>,
    },
    /// Show what hosts of the stamp sent as changes and that are none, and take it in or forget it
    #[command(after_help = "Examples:\n  throttle policy dead-letters\n  throttle policy dead-letters drop --all")]
    DeadLetters {
        #[command(subcommand)]
        command: Option<LettersCommand>,
    },
}

/// A policy to apply.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The policy; `-` reads stdin
    file: PathBuf,
    /// Refuse unless this revision is in force, so as not to undo another's change
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    /// Take everything away where the file says nothing, instead of refusing it
    #[arg(long)]
    empty: bool,
    #[command(flatten)]
    writing: Writing,
}

impl PolicyCommand {
    /// Does it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Check(check) => check.obey(context),
            Self::Diff { file } => diff(context, &file),
            Self::Apply(apply) => {
                let source = Source::read(&apply.file)?;
                let (toml, write) = (Some(source.text), apply.writing.wire());
                let request = ApplyRequest { document: None, toml, empty: apply.empty, write };
                let client = context.client()?;
                let answer = client.post_if(paths::POLICY_APPLY, &request, apply.if_revision);
                writing::tell(context, &answer.map_err(|failure| failure.in_file(&source.name))?)
            }
            Self::Confirm => {
                let request = Session::writing(session::own());
                writing::tell(context, &context.client()?.post(paths::POLICY_CONFIRM, &request)?)
            }
            Self::Export { revision } => {
                let answer = context.client()?.get(&query(paths::POLICY, &PolicyQuery { revision })?)?;
                if context.output.json {
                    return output::data(&answer.text());
                }
                output::data(&answer.parse::<Envelope<PolicyView>>()?.body.toml)
            }
            Self::History => {
                let answer = context.client()?.get(paths::POLICY_HISTORY)?;
                if context.output.json {
                    return output::data(&answer.text());
                }
                let history = answer.parse::<Envelope<History>>()?.body;
                output::data(&render(&history, context.output.paint))
            }
            Self::Rollback { revision, writing } => {
                let request = RollbackRequest { revision, write: writing.wire() };
                writing::tell(context, &context.client()?.post(paths::POLICY_ROLLBACK, &request)?)
            }
            Self::Conflicts { command } => conflicts::conflicts(command, context),
            Self::DeadLetters { command } => conflicts::letters(command, context),
        }
    }
}

fn diff(context: &Context, file: &std::path::Path) -> Result<(), Failure> {
    let source = Source::read(file)?;
    let request = CheckRequest { document: None, toml: Some(source.text) };
    let answer = context.client()?.post(paths::POLICY_DIFF, &request);
    let answer = answer.map_err(|failure| failure.in_file(&source.name))?;
    if context.output.json {
        return output::data(&answer.text());
    }
    let report = answer.parse::<Envelope<DiffReport>>()?.body;
    if report.changes.is_empty() {
        output::say(&format!("nothing would change: revision {} is the same", report.revision));
    }
    let lines: Vec<_> = report.changes.iter().map(ToString::to_string).collect();
    output::data(&changes(&lines, context.output.paint))
}

/// What is said of a policy file that is wrong, before any agent has seen it.
pub(crate) const REFUSED: &str = "The policy is refused";

/// A file that the command line names, and what messages call it.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Source {
    /// Reads a file, which has to be text; `-` is stdin.
    pub(crate) fn read(file: &std::path::Path) -> Result<Self, Failure> {
        let name = if file.as_os_str() == "-" { "stdin".to_owned() } else { file.display().to_string() };
        let mut bytes = Vec::new();
        let outcome = match name.as_str() {
            "stdin" => std::io::stdin().read_to_end(&mut bytes),
            _ => std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut bytes)),
        };
        if let Err(error) = outcome {
            let faults = Diagnostics::unread(&error);
            return Err(Failure::File { title: "The file cannot be read", faults, file: name });
        }
        match policy::text(bytes) {
            Ok(text) => Ok(Self { name, text }),
            Err(faults) => Err(Failure::File { title: "The file is refused", faults, file: name }),
        }
    }
}

fn render(history: &History, paint: Paint) -> String {
    let mut table = Table::new(&[">REVISION", "AT", "BY", "WHY", "STATE"]);
    for line in &history.revisions {
        let pending = history.pending.as_ref().is_some_and(|pending| pending.revision == line.revision);
        let state = match (line.revision == history.current, pending) {
            (true, true) => Cell::new("in force until confirmed", Tone::Warning),
            (true, false) => Cell::new("in force", Tone::Good),
            _ => "".into(),
        };
        table.row([
            line.revision.to_string().into(),
            moment(line.at).into(),
            line.author.as_str().into(),
            line.message.as_str().into(),
            state,
        ]);
    }
    table.render(paint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use throttle_agent::api::wire::{Pending, RevisionView};

    #[test]
    fn the_history_marks_what_is_in_force_and_what_waits() {
        let revision = |revision, message: &str| RevisionView {
            revision,
            author: "root".to_owned(),
            message: message.to_owned(),
            at: "2026-11-23T19:00:00Z".parse().unwrap(),
        };
        let mut history =
            History { revisions: vec![revision(8, "limit set web"), revision(7, "")], current: 8, pending: None };
        let expected = "\
REVISION  AT                    BY    WHY            STATE
       8  2026-11-23 19:00:00Z  root  limit set web  in force
       7  2026-11-23 19:00:00Z  root
";
        assert_eq!(render(&history, Paint::PLAIN), expected);
        let deadline = "2026-11-23T19:01:00Z".parse().unwrap();
        history.pending = Some(Pending { revision: 8, back_to: 7, deadline });
        assert!(render(&history, Paint::PLAIN).contains("in force until confirmed"));
    }
}
