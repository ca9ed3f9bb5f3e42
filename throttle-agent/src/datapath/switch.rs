//! Changing over to another policy together with its sources.
//!
//! The two lie in different maps and cannot change in one store. So the sources change in two steps around the flip of
//! the policy (see [`super::apply`]):
//!
//! 1. Entries under which everybody gets the better of the old and the new: allowed by either, blocked only by both. Of
//!    tenants they say both, each to the packets under its own policy.
//! 2. The flip: limits, services, fates and mode change for every packet at once.
//! 3. The new entries alone.
//!
//! At no instant is a packet refused that both policies would let through. Where the flip is refused, the old entries
//! are put back. What cannot be written after the flip is owed: see [`Datapath::settle`].

use anyhow::Result;

use super::{Datapath, between::between, sources::Entries};
use crate::policy::Compiled;

impl Datapath {
    /// Puts a policy in force together with what it says of sources. On an error the policy and the sources from before
    /// are in force.
    pub fn switch(&mut self, policy: &Compiled, wanted: &Entries) -> Result<()> {
        self.switch_in_steps(policy, wanted, |_| {})
    }

    /// The same, with somebody who looks between the steps.
    pub fn switch_in_steps(&mut self, policy: &Compiled, wanted: &Entries, mut look: impl FnMut(&Self)) -> Result<()> {
        if self.sources.held() == wanted {
            self.apply(policy)?;
            self.owed.sources = None;
            return Ok(());
        }
        let before = self.owed.sources.clone().unwrap_or_else(|| self.sources.held().clone());
        let both = between(&before, wanted, self.tables.in_force());
        if self.sources.fit(&both) {
            self.set_sources(&both)?;
        } else {
            tracing::warn!("the allowed sources of two policies do not fit side by side; the new ones come first");
            self.set_sources(wanted)?;
        }
        look(self);
        if let Err(error) = self.apply(policy) {
            if let Err(stuck) = self.set_sources(&before) {
                tracing::error!("the sources of the policy in force are put back later: {stuck:#}");
                self.owed.sources = Some(before);
            }
            return Err(error);
        }
        look(self);
        // Packets that may still be under the policy before would meet the new tenants.
        if self.may_be_under_another() {
            self.owed.sources = Some(wanted.clone());
        } else if let Err(error) = self.set_sources(wanted) {
            tracing::warn!("the policy is in force; its sources are written later: {error:#}");
            self.owed.sources = Some(wanted.clone());
        }
        Ok(())
    }
}
