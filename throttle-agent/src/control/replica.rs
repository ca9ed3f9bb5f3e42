//! The policy of the stamp: what is written here becomes a change for all, and what others change is put in force here.
//!
//! A host *belongs* once it has the stamp's policy, or had none of its own when it joined. Until then what is written on it is
//! its own alone. What cannot be in force here, because there is no room or a policy waits for its confirmation, is kept, and
//! tried again ([`Control::catch_up`]).

use std::{fmt::Write as _, sync::Arc, time::Instant};

use automerge::AutomergeError;
use jiff::Timestamp;

use super::{AGENT, Author, Control, stored};
use crate::{
    api::wire::{Problem, ProblemKind, Write},
    policy::{self, Compiled, Document, SetAside},
    replica::{Label, Merged, Replica, Standing, Taken, Versions},
    run::retry::Retry,
    store::{self, Changes},
};

/// This host's part in the policy of its stamp.
pub(super) struct Shared {
    pub(super) stamp: String,
    pub(super) replica: Replica,
    /// Whether this host has the stamp's policy.
    pub(super) belongs: bool,
    /// Fields that hosts gave different values, of which one is in force.
    conflicts: u64,
    /// Where it could not be put in force.
    retry: Retry,
    pub(super) figures: Figures,
}

/// What others may know of it at any time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// How this host stands: nothing before it belongs.
    pub standing: Option<Standing>,
    /// How it stands with the changes that it knows, whether or not it belongs.
    pub knows: Standing,
    /// Fields that have several values.
    pub conflicts: u64,
    /// Entries that are not in force, because together they are no policy.
    pub set_aside: u64,
    /// What came and is no change.
    pub dead_letters: u64,
    /// What happened since the agent was started.
    pub figures: Figures,
}

/// Counted since the agent was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Changes of this host's own.
    pub made: u64,
    /// Changes of others that were taken in.
    pub taken: u64,
    /// Conflicts that came up.
    pub conflicts: u64,
    /// What came and is no change, by [`crate::replica::envelope::Refusal::ALL`].
    pub refused: [u64; 5],
}

/// A policy as the stamp has it, and the change that makes it so.
pub(super) struct Shareable {
    pub(super) document: Document,
    pub(super) compiled: Compiled,
    pub(super) change: Option<Vec<u8>>,
}

/// Why what the stamp's policy is could not be put in force.
pub(super) struct Unput {
    /// Whether the changes that make it so are kept all the same.
    pub(super) kept: bool,
    pub(super) problem: Problem,
}

impl Shared {
    /// What of the stamp's policy is not in force, because it does not fit together.
    pub(super) fn set_aside(&self) -> &[SetAside] {
        self.replica.merged().map_or(&[], |merged| &merged.set_aside)
    }
}

impl Control {
    /// Takes part in the policy of a stamp, as a host of this name: with what the store has kept of it. The random `actor` names
    /// this run of the agent.
    pub fn share(&mut self, stamp: &str, host: &str, actor: [u8; 16]) -> Result<(), Problem> {
        let kept = self.store.changes(stamp).map_err(|error| stored(&error))?;
        let belongs = kept.is_some() || (self.revision == 0 && self.head().revision == 0);
        let replica = Replica::open(host, actor, kept.unwrap_or_default()).map_err(|error| unshared(&error))?;
        self.dead_letters = self.store.dead_letters().map_err(|error| stored(&error))?;
        let conflicts = replica.conflicts().len() as u64;
        let (stamp, retry, figures) = (stamp.to_owned(), Retry::default(), Figures::default());
        self.shared = Some(Shared { stamp, replica, belongs, conflicts, retry, figures });
        self.catch_up();
        Ok(())
    }

    /// How this host's policy stands in the stamp, whenever that changes.
    pub(super) fn publish_shares(&self) {
        let Some(shared) = &self.shared else { return };
        let knows = shared.replica.standing();
        let told = Shares {
            standing: shared.belongs.then(|| knows.clone()),
            knows,
            conflicts: shared.conflicts,
            set_aside: shared.set_aside().len() as u64,
            dead_letters: self.dead_letters.len() as u64,
            figures: shared.figures.clone(),
        };
        self.published.shares.send_if_modified(|held| {
            let differs = **held != told;
            if differs {
                *held = Arc::new(told);
            }
            differs
        });
    }

    /// What a policy that is written here becomes together with what others have written. To be put in force and kept with its
    /// change, or else taken back by [`Control::unshare`].
    pub(super) fn shareable(
        &mut self,
        document: Document,
        compiled: Compiled,
        author: &Author,
        message: &str,
    ) -> Result<Shareable, Problem> {
        let Some(shared) = self.shared.as_mut().filter(|shared| shared.belongs) else {
            return Ok(Shareable { document, compiled, change: None });
        };
        let made = shared.replica.change(&self.document, &document, &author.name, message, Timestamp::now());
        let change = made.map_err(|error| unshared(&error))?;
        let next = match shared.replica.merged() {
            Ok(Merged { document: next, .. }) if *next == document => Ok((document, compiled)),
            Ok(Merged { document: next, .. }) => {
                let next = next.clone();
                self.compile(&next, self.revision + 1).map(|compiled| (next, compiled))
            }
            Err(fault) => Err(Problem::new(ProblemKind::PolicyRefused, fault.clone())),
        };
        match next {
            Ok((document, compiled)) => Ok(Shareable { document, compiled, change }),
            Err(problem) => {
                self.unshare(change.as_deref());
                Err(problem)
            }
        }
    }

    /// Takes back a change that nobody has been told.
    pub(super) fn unshare(&mut self, change: Option<&[u8]>) {
        let (Some(shared), Some(_)) = (&mut self.shared, change) else { return };
        let outcome = shared.replica.take_back().map_err(|error| format!("policy of the stamp: {error}"));
        self.faults.note("policy of the stamp", outcome);
    }

    /// The stamp, where changes are kept.
    pub(super) fn stamp_name(&self) -> &str {
        self.shared.as_ref().map_or("", |shared| &shared.stamp)
    }

    /// Has all know of what is kept and in force now.
    pub(super) fn tell_shared(&mut self, made: u64, taken: u64) {
        let Some(shared) = &mut self.shared else { return };
        let conflicts = shared.replica.conflicts().len() as u64;
        shared.figures.conflicts += conflicts.saturating_sub(shared.conflicts);
        shared.figures.made += made;
        shared.figures.taken += taken;
        shared.conflicts = conflicts;
        self.publish_shares();
    }

    /// The change that makes the policy which was confirmed that of all.
    pub(super) fn confirmed(&mut self, back_to: u64, author: &Author) -> Result<Option<Vec<u8>>, Problem> {
        let before = self.document_of(back_to)?;
        let message = self.store.info(self.revision).map_err(|error| stored(&error))?.message;
        let Some(shared) = self.shared.as_mut().filter(|shared| shared.belongs) else { return Ok(None) };
        let made = shared.replica.change(&before, &self.document, &author.name, &message, Timestamp::now());
        made.map_err(|error| unshared(&error))
    }

    /// Makes this host's policy the first one of the stamp: for whoever found that no other host has one.
    pub fn found(&mut self) -> Result<bool, Problem> {
        let waits = self.waiting.is_some() || !self.is_in_force() || self.revision == 0;
        let document = self.document.clone();
        let Some(shared) = self.shared.as_mut().filter(|shared| !shared.belongs && !waits) else { return Ok(false) };
        if !shared.replica.is_empty() {
            return Ok(false);
        }
        let made = shared.replica.seed(&document).map_err(|error| unshared(&error))?;
        let changes: Vec<_> = made.clone().into_iter().collect();
        let kept = self.store.keep_changes(Changes { stamp: &shared.stamp, changes: &changes, own: false });
        if let Err(error) = kept {
            self.unshare(made.as_deref());
            return Err(stored(&error));
        }
        shared.belongs = true;
        tracing::info!(stamp = shared.stamp, revision = self.revision, "this host's policy is the stamp's first");
        self.tell_shared(1, 0);
        self.catch_up();
        Ok(true)
    }

    /// The changes that one who knows these lacks, up to so many bytes, and what this host knows itself.
    pub fn lacking(&self, versions: &Versions, most: usize) -> Result<(Versions, Vec<Vec<u8>>), Problem> {
        let shared = self.shared.as_ref().ok_or_else(alone)?;
        let mut bytes = 0;
        let missing = shared.replica.missing(versions).take_while(|change| {
            // The first goes whatever it is.
            let fits = bytes == 0 || bytes + change.len() <= most;
            bytes += change.len();
            fits
        });
        Ok((shared.replica.versions().clone(), missing.map(<[u8]>::to_vec).collect()))
    }

    /// What this host knows.
    pub fn versions(&self) -> Result<Versions, Problem> {
        Ok(self.shared.as_ref().ok_or_else(alone)?.replica.versions().clone())
    }

    /// Takes in what others have changed: keeps it, and puts it in force where it can be. What is no change comes back.
    pub fn take_in(&mut self, changes: Vec<Vec<u8>>) -> Result<Taken, Problem> {
        let shared = self.shared.as_mut().ok_or_else(alone)?;
        let taken = shared.replica.take_in(changes);
        if taken.changes.is_empty() {
            return Ok(taken);
        }
        let joins = !shared.belongs;
        let (labels, changes): (Vec<_>, Vec<_>) = taken.changes.iter().cloned().unzip();
        let kept = Changes { stamp: &shared.stamp.clone(), changes: &changes, own: false };
        let put = match shared.replica.merged() {
            Ok(Merged { document, .. }) if self.waiting.is_none() && *document != self.document => {
                let document = document.clone();
                self.put_shared(&document, kept, &told(&labels, joins.then_some(self.revision)))
            }
            // They need no revision, or cannot be in force yet.
            _ => Err(Unput { kept: false, problem: Problem::new(ProblemKind::Conflict, "not now") }),
        };
        if matches!(put, Err(Unput { kept: false, .. }))
            && let Err(error) = self.store.keep_changes(kept)
        {
            self.forget_unkept()?;
            return Err(stored(&error));
        }
        if let Some(shared) = self.shared.as_mut().filter(|_| joins) {
            shared.belongs = true;
            let own = self.revision;
            tracing::warn!(
                stamp = shared.stamp,
                own,
                "this host has the stamp's policy now; its own is in the history"
            );
        }
        self.tell_shared(0, labels.len() as u64);
        self.catch_up();
        Ok(taken)
    }

    /// Begins again with what the store has kept.
    fn forget_unkept(&mut self) -> Result<(), Problem> {
        let Some(shared) = &mut self.shared else { return Ok(()) };
        let kept = self.store.changes(&shared.stamp).map_err(|error| stored(&error))?.unwrap_or_default();
        shared.replica = shared.replica.again(kept).map_err(|error| unshared(&error))?;
        Ok(())
    }

    /// Puts in force what the stamp's policy is and this host's is not, where that was not possible before.
    pub fn catch_up(&mut self) {
        let now = Instant::now();
        let Some(shared) = self.shared.as_ref().filter(|shared| shared.belongs && shared.retry.due(now)) else {
            return self.publish_shares();
        };
        let outcome = match shared.replica.merged() {
            Err(fault) => Err(format!(
                "the stamp's policy cannot be in force, and the one from before stays: {fault}; write what is named there anew"
            )),
            Ok(_) if self.waiting.is_some() => Ok(()),
            Ok(Merged { document, .. }) if *document == self.document => Ok(()),
            Ok(Merged { document, .. }) => {
                let put = self.put_shared(&document.clone(), Changes::default(), "the stamp's policy");
                put.map_err(|Unput { problem, .. }| {
                    format!(
                        "the stamp's policy is not in force on this host, and the one from before stays: {problem}; it is \
                         tried again"
                    )
                })
            }
        };
        if let Some(shared) = &mut self.shared {
            if outcome.is_err() {
                shared.retry.failed(now);
            } else {
                shared.retry = Retry::default();
            }
        }
        self.faults.note("policy of the stamp", outcome);
        self.publish_shares();
    }

    /// Puts in force what the stamp's policy is, and keeps the changes that make it so with the revision.
    pub(super) fn put_shared(&mut self, document: &Document, changes: Changes<'_>, message: &str) -> Result<(), Unput> {
        let unput = |problem| Unput { kept: false, problem };
        let compiled = self.compile(document, self.revision + 1).map_err(unput)?;
        let count = policy::diff(self.in_force(), document).len();
        let policy = store::Policy::from(document).with(changes);
        let appended = self.store.append(policy, AGENT, message, Timestamp::now());
        let revision = appended.map_err(|error| unput(stored(&error)))?;
        if let Err(problem) = self.enforce(document, &compiled.as_revision(revision)) {
            // The revision goes, the changes of others stay.
            return Err(Unput { kept: true, problem: self.withdraw(revision, problem) });
        }
        (self.document, self.revision) = (document.clone(), revision);
        self.faults.note("store", Ok(()));
        tracing::info!(revision, changes = count, note = message, "the stamp's policy in force");
        Ok(())
    }

    /// What is to be told of the stamp's policy, each with its remedy.
    pub(super) fn shared_warnings(&self) -> Vec<String> {
        let Some(shared) = &self.shared else { return Vec::new() };
        let stamp = &shared.stamp;
        let mut warnings = Vec::new();
        if !shared.belongs {
            warnings.push(format!(
                "stamp {stamp}: this host has not got its policy yet, and what is written here is its own alone: it takes the \
                 stamp's once it reaches a host that has it"
            ));
        }
        if shared.conflicts > 0 {
            warnings.push(format!(
                "stamp {stamp}: hosts said different things of {} at the same time, and one of them is in force: \
                 `throttle policy conflicts`",
                if shared.conflicts == 1 { "one field".to_owned() } else { format!("{} fields", shared.conflicts) }
            ));
        }
        warnings.extend(shared.set_aside().iter().map(|SetAside { entry, part, why }| {
            let what = part.as_ref().map_or_else(|| entry.clone(), |part| format!("{part} of {entry}"));
            format!(
                "stamp {stamp}: {what} is not in force, because what hosts wrote does not fit together: {why}; or \
                 `throttle policy conflicts remove '{entry}'`"
            )
        }));
        if !self.dead_letters.is_empty() {
            warnings.push(format!(
                "stamp {stamp}: {} came from other hosts that are no changes: `throttle policy dead-letters`",
                self.dead_letters.len()
            ));
        }
        warnings
    }

    /// What a host that is to belong keeps to itself until it does.
    pub(super) fn unheard_of(&self, write: &Write) -> Option<String> {
        let shared = self.shared.as_ref()?;
        if !shared.belongs {
            return Some(format!(
                "this host has not got the policy of stamp {} yet: this is its own alone",
                shared.stamp
            ));
        }
        write
            .confirm_within_seconds
            .map(|_| format!("other hosts of stamp {} get it once it is confirmed", shared.stamp))
    }
}

/// Who changed what, for the history.
fn told(labels: &[Label], joins: Option<u64>) -> String {
    let of = |label: &Label| match (&*label.host, &*label.author) {
        ("", _) => label.message.clone(),
        (host, author) => format!("{author} at {host}: {}", label.message),
    };
    let mut told = match joins {
        None | Some(0) => String::new(),
        Some(own) => format!("the stamp's policy; this host's own was revision {own}; "),
    };
    match labels {
        [] => {}
        [one] => told += &of(one),
        [.., last] => _ = write!(told, "{} changes, the last: {}", labels.len(), of(last)),
    }
    told
}

pub(super) fn alone() -> Problem {
    Problem::new(
        ProblemKind::NotFound,
        "this host has no part in the policy of a stamp; `throttle run --stamp NAME` has it join one",
    )
}

pub(super) fn unshared(error: &AutomergeError) -> Problem {
    Problem::new(ProblemKind::Store, format!("the stamp's policy cannot be changed: {error}"))
}
