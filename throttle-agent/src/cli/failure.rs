//! Why a command did not do what was asked, and the exit code that says so.

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use serde::Serialize;
use throttle_agent::{
    api::wire::{Problem, ProblemKind},
    policy::{Diagnostic, Diagnostics},
};

use super::{output::Output, problem};

/// The exit codes, as `--help` shows them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   failed, and nothing was changed
  2   the command line is wrong: a flag, a value, or what it would make of the policy
  3   the agent cannot be reached, or did not answer in time
  4   degraded: something is wrong that `throttle status` names
  5   this build could not take over: `throttle upgrade --check` says why and what helps
  78  a file is wrong that the command line names: a policy, a list of blocks";

/// What ends a command early. Whatever it is, what was in force before still is, but after [`Failure::Silent`] to a
/// change: whether that was made is unknown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Arguments that contradict each other or cannot be meant; nothing was sent.
    #[error("{0}")]
    Usage(String),
    /// No agent is there.
    #[error("no agent at {}: {cause}\n{remedy}", socket.display())]
    Unreachable {
        /// Where it was sought.
        socket: PathBuf,
        /// What the system said.
        cause: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The agent took the request and did not answer it, or not wholly.
    #[error("{} at {}\n{}", cause, socket.display(), silent_remedy(*.wrote))]
    Silent {
        /// Where it was asked.
        socket: PathBuf,
        /// What happened instead.
        cause: Silence,
        /// Whether it was asked for a change.
        wrote: bool,
    },
    /// A file that the command line names is wrong; every place in it is named. Nothing was sent.
    #[error("{}", problem::list(title, faults, file))]
    File {
        /// What was refused.
        title: &'static str,
        /// Why.
        faults: Diagnostics,
        /// The file's name.
        file: String,
    },
    /// The agent refused.
    #[error("{}", problem::render(problem, file.as_deref()))]
    Refused {
        /// What it said.
        problem: Problem,
        /// The policy's file, if that is what was refused.
        file: Option<String>,
    },
    /// The command said on its one screen what is wrong; the exit code repeats it.
    #[error("degraded")]
    Degraded,
    /// The command said on its one screen what stands in the way; the exit code repeats it.
    #[error("this build cannot take over")]
    Incompatible,
    /// Whoever read our output has closed it: nothing is left to say.
    #[error("the reader of the output went away")]
    Closed,
    /// Anything else.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

/// How an agent does not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Silence {
    /// It took longer than a client waits.
    #[error("no answer within {} s from the agent", .0.as_secs_f64())]
    TooLong(Duration),
    /// It closed the connection first.
    #[error("the connection broke off before the whole answer came ({0}) from the agent")]
    BrokenOff(String),
}

fn silent_remedy(wrote: bool) -> &'static str {
    if wrote {
        "whether the change was made is unknown: once the agent answers again, `throttle policy history` and \
         `throttle block list` show what is in force; `journalctl -u throttle` says what holds it up"
    } else {
        "it is overloaded, stuck or ending: `journalctl -u throttle` says more. What is in force stays in force meanwhile"
    }
}

/// A failure as RFC 9457 has it, for a reader that asked for JSON.
#[derive(Debug, Serialize)]
struct Told<'f> {
    #[serde(rename = "type")]
    kind: ProblemType,
    title: &'f str,
    /// The HTTP status, where the agent gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'f str>,
    exit_code: u8,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    diagnostics: &'f [Diagnostic],
}

/// The agent's kinds of problems, and those that a command finds by itself.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ProblemType {
    Agents(ProblemKind),
    Own(&'static str),
}

impl Failure {
    /// The same failure, its positions in a file of this name.
    pub(crate) fn in_file(self, name: &str) -> Self {
        match self {
            Self::Refused { problem, .. } => Self::Refused { problem, file: Some(name.to_owned()) },
            other => other,
        }
    }

    /// Says on stderr what is wrong and gives the code to exit with.
    pub(crate) fn report(&self, output: Output) -> ExitCode {
        if !matches!(self, Self::Degraded | Self::Incompatible | Self::Closed) {
            output.fail(&self.to_string(), &self.told());
        }
        ExitCode::from(self.code())
    }

    /// The exit code. One rule for what is wrong with a policy: 78 where it stands in a file, 2 where it was typed.
    fn code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } | Self::Silent { .. } => 3,
            Self::Degraded => 4,
            Self::Incompatible => 5,
            Self::File { .. } => 78,
            Self::Refused { problem, file } => problem::code(problem, file.is_some()),
        }
    }

    fn told(&self) -> impl Serialize {
        let own = |kind, title, detail| Told {
            kind: ProblemType::Own(kind),
            title,
            status: None,
            detail,
            remedy: None,
            exit_code: self.code(),
            diagnostics: &[],
        };
        match self {
            Self::Usage(text) => own("/problems/usage", "The command line is wrong", text.clone()),
            Self::Unreachable { socket, cause, remedy } => {
                let detail = format!("no agent at {}: {cause}", socket.display());
                Told { remedy: Some(remedy), ..own("/problems/unreachable", "The agent cannot be reached", detail) }
            }
            Self::Silent { socket, cause, wrote } => {
                let detail = format!("{cause} at {}", socket.display());
                let remedy = Some(silent_remedy(*wrote));
                Told { remedy, ..own("/problems/no-answer", "The agent did not answer", detail) }
            }
            Self::File { title, faults, .. } => {
                Told { diagnostics: &faults.0, ..own("/problems/file-refused", title, self.to_string()) }
            }
            Self::Refused { problem, .. } => Told {
                kind: ProblemType::Agents(problem.kind),
                status: Some(problem.status),
                diagnostics: &problem.diagnostics,
                ..own("", &problem.title, problem.detail.clone())
            },
            other => own("/problems/failed", "The command failed", other.to_string()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Failed(error.into()) }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
