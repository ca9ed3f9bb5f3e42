//! `throttle run`: the agent itself.
use super::{Context, failure::Failure};
use clap::Args;
/// How to run.
#[derive(Debug, Args)]
pub(crate) struct Run {}
impl Run {
    /// Runs until it is told to end.
    pub(crate) fn obey(self, _: &Context) -> Result<(), Failure> {
        Ok(())
    }
}
