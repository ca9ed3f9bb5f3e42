//! The interfaces that are throttled: asked for at the start, followed afterwards.
//!
//! Which they are and how they stand is asked of the kernel when something changed, and remembered in between.

use std::time::Instant;

use anyhow::Context as _;

use super::{Control, kernel};
use crate::{
    api::wire::Problem,
    datapath::{self, Change, Mode},
};

impl Control {
    /// Attaches to the interfaces that are there and waits for the others, up to the first that is refused.
    pub fn attach(&mut self, interfaces: &[String], mode: Mode) -> anyhow::Result<()> {
        let present = datapath::interfaces().context("list the interfaces")?;
        for interface in interfaces {
            if !present.iter().any(|it| it.name == *interface) {
                tracing::warn!(interface, "the interface does not exist; waiting for it");
                self.datapath.expect(interface, mode);
                continue;
            }
            let attachment = self.datapath.attach(interface, mode)?;
            tracing::info!(interface, standing = %attachment.standing, "attached");
        }
        self.look();
        Ok(())
    }

    /// Attaches to interfaces that came, follows those that were renamed and forgets those that went.
    pub fn reattach(&mut self) -> Result<(), Problem> {
        let changes = self.datapath.reattach(Instant::now());
        // Whatever was done before it failed is to be seen.
        self.look();
        for change in changes.map_err(|error| kernel(&error))? {
            match change {
                Change::Attached(it) => {
                    tracing::info!(interface = it.interface, standing = %it.standing, "attached again");
                }
                Change::Gone(interface) => tracing::warn!(interface, "the interface is gone; waiting for it"),
                Change::Refused { interface, error } => tracing::error!(interface, "not attached: {error:#}"),
            }
        }
        Ok(())
    }

    /// Tries again to attach where it was refused, once that is due.
    pub(super) fn reattach_when_due(&mut self, now: Instant) {
        if self.datapath.retry_due(now)
            && let Err(problem) = self.reattach()
        {
            self.faults.note("interfaces", Err(format!("interfaces cannot be looked at: {problem}")));
        }
    }

    /// Asks the kernel how the interfaces stand.
    pub(super) fn look(&mut self) {
        let outcome = self.datapath.attachments().map(|attachments| self.attachments = attachments);
        self.faults.note("interfaces", outcome.map_err(|error| format!("interfaces cannot be looked at: {error:#}")));
        self.publish_names();
    }
}
