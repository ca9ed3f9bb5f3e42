//! From a policy document to what is in force.

use std::sync::Arc;

use throttle_common::records;

use super::{Control, kernel, refused};
use crate::{
    api::wire::Problem,
    events::Names,
    policy::{self, Document, Mode},
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

    /// Compiles a policy and puts it in force with its sources; on an error the policy and the sources from before are.
    pub(super) fn enforce(&mut self, document: &Document, revision: u64) -> Result<(), Problem> {
        let compiled = policy::compile(document, revision, &self.datapath.layout()).map_err(refused)?;
        let wanted = self.entries(document, &compiled.tenants);
        self.datapath.switch(&compiled, &wanted).map_err(|error| kernel(&error))?;
        self.stale = false;
        // Before another policy can give away the places of limits that have gone.
        self.count_connections();
        self.kept = None;
        self.end_speeds();
        self.faults.note("policy", Ok(()));
        self.publish_names();
        Ok(())
    }

    /// The same for a policy that was in force once and must be so again. What is in force may lie where it needs room:
    /// then as many limits as necessary go first, and with them what they remember of sources.
    pub(super) fn enforce_again(&mut self, document: &Document, revision: u64) -> Result<(), Problem> {
        let fits = |control: &Self| policy::compile(document, revision, &control.datapath.layout()).is_ok();
        for smaller in stepping_stones(self.in_force(), document) {
            if fits(self) {
                break;
            }
            // A limit that stays may still need another place, because its service has changed.
            if let Ok(compiled) = policy::compile(&smaller, revision, &self.datapath.layout()) {
                self.datapath.apply(&compiled).map_err(|error| kernel(&error))?;
            }
        }
        self.enforce(document, revision)
    }

    pub(super) fn publish_names(&self) {
        let name = |bytes| records::name_str(bytes).to_owned();
        self.published.names.send_replace(Arc::new(Names {
            limits: self.datapath.limits().iter().map(|held| (held.number, name(&held.record.name))).collect(),
            services: self.datapath.services().iter().map(|(number, held)| (*number, name(&held.name))).collect(),
            interfaces: self.attachments.iter().map(|it| (it.index, it.interface.clone())).collect(),
            clock: self.clock,
        }));
    }
}

/// Policies on the way to one that finds no room beside what is in force: without the limits that differ, and without
/// any, after which the table is empty.
fn stepping_stones(held: &Document, next: &Document) -> [Document; 2] {
    let common = next.limits.iter().filter(|limit| held.limits.contains(limit)).cloned().collect();
    [common, Vec::new()].map(|limits| Document { limits, ..next.clone() })
}
