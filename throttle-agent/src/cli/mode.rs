//! `throttle mode`: whether this host refuses, or only counts what it would refuse.

use clap::Args;
use throttle_agent::{
    api::wire::{ModeRequest, paths},
    policy::Mode,
};

use super::{Context, failure::Failure, words::word, writing, writing::Writing};

/// Which mode.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  throttle mode enforce --confirm-within 60s\n  throttle mode observe")]
pub(crate) struct ModeArgs {
    /// `enforce` refuses; `observe` counts what would be refused, and lets it pass
    #[arg(value_parser = word::<Mode>())]
    mode: Mode,
    #[command(flatten)]
    writing: Writing,
}

impl ModeArgs {
    /// Does it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        let request = ModeRequest { mode: self.mode, write: self.writing.wire() };
        writing::tell(context, &context.client()?.put(paths::MODE, &request)?)
    }
}
