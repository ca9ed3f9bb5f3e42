//! From a policy document to what is in force.

use std::sync::Arc;

use throttle_common::records;

use super::{Control, kernel, refused};
use crate::{
    api::wire::Problem,
    events::Names,
    heartbeat::Target,
    policy::{self, Compiled, Document, Mode, sources::state_the_same},
};

impl Control {
    /// The head of what is in force: the kernel's own word, whatever the store says.
    pub(super) fn head(&self) -> records::Policy {
        self.datapath.policy()
    }

    /// Whether the host enforces what is in force, or only observes.
    pub(super) fn mode(&self) -> Mode {
        if self.head().observe == 0 { Mode::Enforce } else { Mode::Observe }
    }

    /// The policy in force, as far as it is known.
    pub fn in_force(&self) -> &Document {
        self.kept.as_ref().unwrap_or(&self.document)
    }

    /// Whether that is the store's, which commands edit.
    pub(super) fn is_in_force(&self) -> bool {
        self.kept.is_none() && self.head().revision == self.revision
    }

    /// The policy in force, where the kernel has all that this agent makes of it.
    pub(super) fn known(&self) -> Option<&Document> {
        self.in_step.then(|| self.in_force())
    }

    /// Compiles a policy for the kernel as it is. Refuses one that is wrong, or has no room beside what is in force.
    pub(super) fn compile(&self, document: &Document, revision: u64) -> Result<Compiled, Problem> {
        policy::compile_after(self.known(), document, revision, &self.datapath.layout()).map_err(refused)
    }

    /// Puts a policy in force with its sources, after [`Control::compile`]; on an error the policy and the sources from
    /// before are.
    pub(super) fn enforce(&mut self, document: &Document, compiled: &Compiled) -> Result<(), Problem> {
        let sources_stand =
            !self.stale && !self.datapath.owes() && self.known().is_some_and(|known| state_the_same(known, document));
        let wanted = (!sources_stand).then(|| self.entries(document, &compiled.tenants));
        // Until all is written.
        (self.in_step, self.stale) = (false, true);
        let written = match &wanted {
            None => self.datapath.apply(compiled),
            Some(wanted) => self.datapath.switch(compiled, wanted),
        };
        written.map_err(|error| kernel(&error))?;
        (self.in_step, self.stale) = (true, false);
        // Before another policy can give away the places of limits that have gone.
        self.count_connections();
        (self.kept, self.digest) = (None, None);
        self.end_speeds();
        self.follow_health(document);
        self.faults.note("policy", Ok(()));
        self.publish(document);
        Ok(())
    }

    /// The same for a policy that was in force once and must be so again. What is in force may lie where it needs room:
    /// then as many limits as necessary go first, and with them what they remember of sources.
    pub(super) fn enforce_again(&mut self, document: &Document, revision: u64) -> Result<(), Problem> {
        let mut compiled = self.compile(document, revision);
        for smaller in stepping_stones(self.in_force(), document) {
            if compiled.is_ok() {
                break;
            }
            // A limit that stays may still need another place, because its service has changed.
            if let Ok(stone) = self.compile(&smaller, revision) {
                (self.in_step, self.stale) = (false, true);
                let wanted = self.entries(&smaller, &stone.tenants);
                self.datapath.switch(&stone, &wanted).map_err(|error| kernel(&error))?;
                // No connection holds a place where the next policy may put another limit.
                self.count_connections();
            }
            compiled = self.compile(document, revision);
        }
        self.enforce(document, &compiled?)
    }

    /// Tells of the policy in force.
    pub(super) fn publish_names(&self) {
        self.publish(self.in_force());
    }

    /// Tells what the kernel's numbers are called, and who is to be watched under the policy that is in force there.
    fn publish(&self, document: &Document) {
        let name = |bytes| records::name_str(bytes).to_owned();
        self.published.names.send_replace(Arc::new(Names {
            limits: self.datapath.limits().iter().map(|held| (held.number, name(&held.record.name))).collect(),
            services: self.datapath.services().iter().map(|(number, held)| (*number, name(&held.name))).collect(),
            interfaces: self.attachments.iter().map(|it| (it.index, it.interface.clone())).collect(),
            clock: self.clock,
        }));
        let targets = Target::all(document);
        self.published.targets.send_if_modified(|held| {
            let differs = **held != *targets;
            if differs {
                *held = targets.into();
            }
            differs
        });
    }
}

/// Policies on the way to one that finds no room beside what is in force: without the limits that differ, and without
/// any, after which the table is empty.
fn stepping_stones(held: &Document, next: &Document) -> [Document; 2] {
    let common = next.limits.iter().filter(|limit| held.limits.contains(limit)).cloned().collect();
    [common, Vec::new()].map(|limits| Document { limits, ..next.clone() })
}
