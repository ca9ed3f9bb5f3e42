//! In what hosts of the stamp disagree, and how an operator settles it for all of them.

use automerge::AutomergeError;
use jiff::Timestamp;

use super::{
    Author, Control,
    replica::{Unput, alone, unshared},
    stored,
};
use crate::{
    api::wire::{
        ConflictValue, ConflictView, Conflicts, Problem, ProblemKind, RemoveRequest, ResolveRequest, SetAsideView,
        Settled,
    },
    policy::{self, SetAside},
    replica::{Conflict, Merged, Replica, Said},
    store::Changes,
};

impl Control {
    /// In what hosts disagree.
    pub fn conflicts(&self) -> Result<Conflicts, Problem> {
        let shared = self.shared.as_ref().ok_or_else(alone)?;
        let value = |Said { value, host, author, at }| ConflictValue { value, host, author, at };
        let conflict = |Conflict { place, said }| {
            let values = said.into_iter().map(value).collect();
            ConflictView { place, values }
        };
        let set_aside =
            shared.set_aside().iter().cloned().map(|SetAside { entry, part, why }| SetAsideView { entry, part, why });
        Ok(Conflicts {
            conflicts: shared.replica.conflicts().into_iter().map(conflict).collect(),
            set_aside: set_aside.collect(),
        })
    }

    /// Settles a conflict for all hosts of the stamp.
    pub fn resolve(&mut self, request: &ResolveRequest, author: &Author) -> Result<Settled, Problem> {
        let ResolveRequest { place, host } = request;
        let act = |replica: &mut Replica| replica.resolve(place, host, author.name(), Timestamp::now());
        let none = || {
            let detail =
                format!("there is no conflict at `{place}` with a value of host {host}; `throttle policy conflicts`");
            Problem::new(ProblemKind::NotFound, detail)
        };
        self.settle(act, none, author, &format!("conflict at {place}: as {host} has it"))
    }

    /// Removes an entry for all hosts of the stamp.
    pub fn remove_entry(&mut self, request: &RemoveRequest, author: &Author) -> Result<Settled, Problem> {
        let RemoveRequest { entry } = request;
        let act = |replica: &mut Replica| replica.remove(entry, author.name(), Timestamp::now());
        let none = || {
            let detail =
                format!("there is no entry `{entry}`; `throttle policy conflicts` lists those that are not in force");
            Problem::new(ProblemKind::NotFound, detail)
        };
        self.settle(act, none, author, &format!("{entry} removed"))
    }

    /// Settles a conflict for all hosts of the stamp, or removes an entry that is set aside.
    fn settle(
        &mut self,
        act: impl FnOnce(&mut Replica) -> Result<Option<Vec<u8>>, AutomergeError>,
        none: impl FnOnce() -> Problem,
        author: &Author,
        message: &str,
    ) -> Result<Settled, Problem> {
        if self.waiting.is_some() {
            let detail =
                "a policy waits for its confirmation: `throttle policy confirm` or `throttle policy rollback` first";
            return Err(Problem::new(ProblemKind::Conflict, detail));
        }
        let before = self.in_force().clone();
        let shared = self.shared.as_mut().filter(|shared| shared.belongs).ok_or_else(alone)?;
        let change = act(&mut shared.replica).map_err(|error| unshared(&error))?.ok_or_else(none)?;
        let changes = [change.clone()];
        let kept = Changes { stamp: &shared.stamp.clone(), changes: &changes, own: false };
        let put = match shared.replica.merged() {
            Ok(Merged { document, .. }) if *document != self.document => {
                let document = document.clone();
                self.put_shared(&document, kept, &format!("{}: {message}", author.name()))
            }
            Ok(_) => self.store.keep_changes(kept).map_err(|error| Unput { kept: false, problem: stored(&error) }),
            Err(fault) => Err(Unput { kept: false, problem: Problem::new(ProblemKind::PolicyRefused, fault) }),
        };
        if let Err(Unput { kept, problem }) = put {
            if kept {
                self.tell_shared(1, 0);
            } else {
                self.unshare(Some(&change));
            }
            return Err(problem);
        }
        self.tell_shared(1, 0);
        let changes = policy::diff(&before, self.in_force());
        Ok(Settled { changes: changes.iter().map(ToString::to_string).collect() })
    }
}
