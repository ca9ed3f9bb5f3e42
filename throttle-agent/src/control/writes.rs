//! Writing policy: checked, compiled, stored, enforced; wholly or not at all.

use std::time::Duration;

use jiff::Timestamp;

use super::{Control, Waiting, refused, replica::Shareable, session::Session, stored};
use crate::{
    api::wire::{LONGEST_WAIT, Problem, ProblemKind, SessionAllow, Write, Written},
    policy::{self, Compiled, Diagnostics, Document, edit::EditError, sharing::Sharing, sources::state_the_same},
    store::{self, Pending},
};

/// Who writes, and what they do.
#[derive(Clone, Debug)]
pub struct Author {
    /// Their name.
    pub name: String,
    /// The command: the message for the history where they give none.
    act: String,
}

impl Author {
    /// Their name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The user `name`, who does `act`.
    pub fn new(name: &str, act: &str) -> Self {
        Self { name: name.to_owned(), act: act.to_owned() }
    }

    fn message<'w>(&'w self, write: &'w Write) -> &'w str {
        write.message.as_deref().filter(|message| !message.trim().is_empty()).unwrap_or(&self.act)
    }
}

/// The policy of a request that brings it as a model or as text.
pub fn read_document(document: Option<Document>, toml: Option<String>) -> Result<Document, Problem> {
    match (document, toml) {
        (Some(document), None) => Ok(document),
        (None, Some(toml)) => policy::parse(&toml).map_err(refused),
        _ => Err(Problem::new(ProblemKind::Malformed, "send exactly one of `document` and `toml`")),
    }
}

/// The same of a request to have it in force, which a text must not be that says nothing.
pub fn read_said(document: Option<Document>, toml: Option<String>) -> Result<Document, Problem> {
    toml.as_deref().map_or(Ok(()), policy::require_words).map_err(refused)?;
    read_document(document, toml)
}

impl Control {
    /// Puts a policy in force. With `expected` it is refused unless that revision is the last.
    pub fn apply(
        &mut self,
        document: Document,
        expected: Option<u64>,
        write: &Write,
        author: &Author,
    ) -> Result<Written, Problem> {
        if let Some(expected) = expected.filter(|&expected| expected != self.revision) {
            let detail = format!(
                "revision {} is the last, not {expected}: somebody else has written; look at it and try again",
                self.revision
            );
            return Err(Problem::new(ProblemKind::OtherRevision, detail));
        }
        self.put(document, None, write, author, author.message(write))
    }

    /// Changes the last policy by one command.
    pub fn edit(
        &mut self,
        change: impl FnOnce(&Document) -> Result<Document, EditError>,
        write: &Write,
        author: &Author,
    ) -> Result<Written, Problem> {
        let document = change(&self.document).map_err(|error| unedited(&error))?;
        self.put(document, None, write, author, author.message(write))
    }

    /// Puts a document in force, as a step forward or, with the revision that it is of, as one back.
    pub(super) fn put(
        &mut self,
        document: Document,
        back_to: Option<u64>,
        write: &Write,
        author: &Author,
        message: &str,
    ) -> Result<Written, Problem> {
        let window = window(write)?;
        // Before anything is written: a policy that is wrong or does not fit changes nothing.
        let compiled = self.compile(&document, self.revision + 1)?;
        let before = self.in_force().clone();
        let changes = policy::diff(&before, &document);
        let dangers = self.dangers(&document, write);
        let severed = self.severed(&document, write)?;
        if changes.is_empty() && self.revision > 0 && self.is_in_force() && window.is_none() {
            return self.unchanged(dangers, write, author);
        }
        let Shareable { document, compiled, change } = match window {
            None => self.shareable(document, compiled, author, message)?,
            Some(_) => Shareable { document, compiled, change: None },
        };
        let shared = change.clone().into_iter().collect();
        let enforcing = Enforcing { document, back_to, compiled, changes: shared, dangers, write, author };
        let (sharing, done) = if window.is_none() && self.may_go_first(&enforcing) {
            // Whatever limits allow, tenants share what they did.
            (None, self.enforce_and_store(&enforcing, message))
        } else {
            (self.new_sharing(&enforcing.compiled), self.store_and_enforce(&enforcing, window, message))
        };
        let (revision, pending, session_allow) = done.inspect_err(|_| self.unshare(change.as_deref()))?;
        let Enforcing { document, dangers, .. } = enforcing;
        // Who waits for the policy does not wait for these.
        let warnings = policy::new_warnings(&before, &document).into_iter().chain(sharing);
        (self.document, self.revision) = (document, revision);
        self.waiting = pending.map(Waiting::new);
        self.tell_shared(change.is_some().into(), 0);
        let alone = self.unheard_of(write);
        self.faults.note("store", Ok(()));
        tracing::info!(author = %author.name, revision, changes = changes.len(), note = message, "policy in force");
        Ok(Written {
            revision,
            changes: changes.iter().map(ToString::to_string).collect(),
            mode: self.mode(),
            warnings: warnings.chain(dangers).chain(severed).chain(alone).collect(),
            pending: self.pending(),
            session_allow,
        })
    }

    /// A warning of tenants that will share compartments, where it is not that of the policy in force.
    fn new_sharing(&self, next: &Compiled) -> Option<String> {
        let warning = Sharing::of(&next.tenants).warning(next.limits.iter().map(|(_, limit)| limit));
        warning.filter(|it| self.sharing_warning(&self.sharing()).as_ref() != Some(it))
    }

    /// Whether a policy may be in force before it is stored: nobody waits for the disk then, and nothing is lost where it is
    /// full.
    fn may_go_first(&self, Enforcing { document, compiled, .. }: &Enforcing<'_>) -> bool {
        self.waiting.is_none()
            && self.is_in_force()
            && self.known().is_some_and(|known| state_the_same(known, document))
            && self.datapath.only_reprices(compiled)
    }

    fn enforce_and_store(
        &mut self,
        enforcing: &Enforcing<'_>,
        message: &str,
    ) -> Result<(u64, Option<Pending>, Option<SessionAllow>), Problem> {
        let Enforcing { document, compiled, dangers, write, author, .. } = enforcing;
        let ((), allow) = self.protecting(dangers, write, author, |control| control.enforce(document, compiled))?;
        match self.store_revision(enforcing, None, message) {
            Ok((revision, pending)) => {
                debug_assert_eq!(revision, compiled.policy.revision, "nobody else writes to the store");
                Ok((revision, pending, allow))
            }
            Err(problem) => Err(self.take_back(document, problem)),
        }
    }

    fn store_and_enforce(
        &mut self,
        enforcing: &Enforcing<'_>,
        window: Option<Duration>,
        message: &str,
    ) -> Result<(u64, Option<Pending>, Option<SessionAllow>), Problem> {
        let (revision, pending) = self.store_revision(enforcing, window, message)?;
        let Enforcing { document, compiled, dangers, write, author, .. } = enforcing;
        let compiled = compiled.clone().as_revision(revision);
        match self.protecting(dangers, write, author, |control| control.enforce(document, &compiled)) {
            Ok(((), allow)) => Ok((revision, pending, allow)),
            Err(problem) => Err(self.withdraw(revision, problem)),
        }
    }

    /// Appends a revision, for good or until it is confirmed within a window.
    fn store_revision(
        &self,
        Enforcing { document, back_to, changes, author, .. }: &Enforcing<'_>,
        window: Option<Duration>,
        message: &str,
    ) -> Result<(u64, Option<Pending>), Problem> {
        let (name, now) = (&author.name, Timestamp::now());
        let changes = store::Changes { stamp: self.stamp_name(), changes, own: true };
        let policy = store::Policy::back_to(document, *back_to).with(changes);
        let appended = match window {
            None => self.store.append(policy, name, message, now).map(|revision| (revision, None)),
            Some(window) => {
                let pending = self.store.append_pending(policy, name, message, now, self.moment(), window);
                pending.map(|pending| (pending.revision, Some(pending)))
            }
        };
        appended.map_err(|error| stored(&error))
    }

    /// The same policy again: nothing is written, but the session may need its allow, or be forced out of it.
    fn unchanged(&mut self, dangers: Vec<String>, write: &Write, author: &Author) -> Result<Written, Problem> {
        let ((), session_allow) = self.protecting(&dangers, write, author, Self::write_sources)?;
        self.faults.note("store", Ok(()));
        Ok(Written {
            revision: self.revision,
            mode: self.mode(),
            warnings: dangers,
            pending: self.pending(),
            session_allow,
            ..Written::default()
        })
    }

    /// What a policy would do to the session that it is written from.
    pub(super) fn dangers(&self, document: &Document, write: &Write) -> Vec<String> {
        Session::of(write).map_or_else(Vec::new, |session| session.dangers(document, self.blocks.keys()))
    }

    /// What a policy would take from the session that it is written from and no allow gives back: refused, unless the
    /// writer asks for it. What is taken already, by the policy in force, is not told again.
    pub(super) fn severed(&self, document: &Document, write: &Write) -> Result<Option<String>, Problem> {
        let Some(session) = Session::of(write) else { return Ok(None) };
        match session.severed(document) {
            Some(fault) if session.severed(self.in_force()).is_none() => {
                if write.lock_out {
                    Ok(Some(fault.text()))
                } else {
                    Err(refused(Diagnostics(vec![fault])))
                }
            }
            _ => Ok(None),
        }
    }

    /// Puts the store's policy in force again, because the one that is could not be stored, and says why it could not.
    fn take_back(&mut self, unstored: &Document, mut problem: Problem) -> Problem {
        self.kept = Some(unstored.clone());
        let (document, revision) = (self.document.clone(), self.revision);
        let again = self.compile(&document, revision).and_then(|compiled| self.enforce(&document, &compiled));
        if let Err(error) = again {
            let fault = format!("it is in force all the same, because revision {revision} cannot be: {error}");
            problem.detail = format!("{}; {fault}", problem.detail);
            self.faults.note("policy", Err(fault));
        }
        problem
    }

    /// Takes a revision back that could not be put in force, and says why it could not.
    pub(super) fn withdraw(&mut self, revision: u64, mut problem: Problem) -> Problem {
        if let Err(error) = self.store.withdraw(revision) {
            let fault = format!("revision {revision} is stored but not in force, and cannot be taken back: {error}");
            problem.detail = format!("{}; {fault}", problem.detail);
            self.faults.note("policy", Err(fault));
        }
        problem
    }
}

/// A policy that is to be put in force.
struct Enforcing<'w> {
    document: Document,
    /// Where that is a step back, to which revision.
    back_to: Option<u64>,
    compiled: Compiled,
    /// What makes it the stamp's policy, where this host has one.
    changes: Vec<Vec<u8>>,
    /// What it would do to the session that it is written from.
    dangers: Vec<String>,
    write: &'w Write,
    author: &'w Author,
}

/// For how long what is written waits for its confirmation.
fn window(write: &Write) -> Result<Option<Duration>, Problem> {
    let longest = LONGEST_WAIT.seconds();
    match write.confirm_within_seconds {
        None => Ok(None),
        Some(seconds) if (1..=longest).contains(&seconds) => Ok(Some(Duration::from_secs(seconds))),
        Some(seconds) => {
            let detail = format!("a confirmation within {seconds} s; write 1 to {longest}");
            Err(Problem::new(ProblemKind::Malformed, detail))
        }
    }
}

fn unedited(error: &EditError) -> Problem {
    match error {
        EditError::Wrong(diagnostic) => refused(Diagnostics(vec![diagnostic.clone()])),
        EditError::InUse { .. } => Problem::new(ProblemKind::Conflict, error.to_string()),
        EditError::Unknown { .. } | EditError::NotListed { .. } => {
            Problem::new(ProblemKind::NotFound, error.to_string())
        }
    }
}
