//! Why a command did not do what was asked, and the exit code that says so.

use std::{io, path::PathBuf, process::ExitCode};

use throttle_agent::api::wire::Problem;

use super::{output::Paint, problem};

/// The exit codes, as `--help` shows them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   failed, and nothing was changed
  2   wrong usage: a flag, a rate, a prefix that cannot be meant
  3   the agent cannot be reached
  4   degraded: something is wrong that `throttle status` names
  78  the policy was refused, and nothing was changed";

/// What ends a command early. Whatever it is, what was in force before still is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Arguments that contradict each other or cannot be meant; nothing was sent.
    #[error("{0}")]
    Usage(String),
    /// No agent answered.
    #[error("no answer from the agent at {}: {cause}\n{remedy}", socket.display())]
    Unreachable {
        /// Where it was sought.
        socket: PathBuf,
        /// What the system said.
        cause: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A policy was refused before it was sent; the text names every place.
    #[error("{0}")]
    Policy(String),
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
    /// Whoever read our output has closed it: nothing is left to say.
    #[error("the reader of the output went away")]
    Closed,
    /// Anything else.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

impl Failure {
    /// A failure of a file or device, with the act and its object.
    pub(crate) fn of(act: impl std::fmt::Display, cause: impl std::fmt::Display) -> Self {
        Self::Failed(anyhow::anyhow!("{act}: {cause}"))
    }

    /// The same failure, its positions in a file of this name.
    pub(crate) fn in_file(self, name: &str) -> Self {
        match self {
            Self::Refused { problem, .. } => Self::Refused { problem, file: Some(name.to_owned()) },
            other => other,
        }
    }

    /// Says on stderr what is wrong and gives the code to exit with.
    pub(crate) fn report(&self, paint: Paint) -> ExitCode {
        if !matches!(self, Self::Degraded | Self::Closed) {
            eprintln!("{} {self}", paint.fault("error:"));
        }
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::Degraded => 4,
            Self::Policy(_) => 78,
            Self::Refused { problem, .. } => problem::code(problem),
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
