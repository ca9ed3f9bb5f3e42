//! Writing policy: checked, compiled, stored, enforced; wholly or not at all.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use super::{Control, due, refused, session, stored, views};
use crate::{
    api::wire::{Problem, ProblemKind, Write, Written},
    policy::{self, Diagnostic, Document, edit::EditError},
};

/// The longest time for a confirmation, in seconds: a day.
const LONGEST_WAIT: u64 = 86_400;

/// Who writes, and what they do.
#[derive(Clone, Debug)]
pub struct Author {
    /// Their name.
    pub name: String,
    /// The command: the message for the history where they give none.
    act: String,
}

impl Author {
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

impl Control {
    /// Puts a policy in force. With `expected` it is refused unless that revision is.
    pub fn apply(
        &mut self,
        document: Document,
        expected: Option<u64>,
        write: &Write,
        author: &Author,
    ) -> Result<Written, Problem> {
        if let Some(expected) = expected.filter(|&expected| expected != self.revision) {
            let detail = format!(
                "revision {} is in force, not {expected}: somebody else has written; look at it and try again",
                self.revision
            );
            return Err(Problem::new(ProblemKind::OtherRevision, detail));
        }
        self.put(document, write, author, author.message(write))
    }

    /// Changes the policy in force by one command.
    pub fn edit(
        &mut self,
        change: impl FnOnce(&Document) -> Result<Document, EditError>,
        write: &Write,
        author: &Author,
    ) -> Result<Written, Problem> {
        let document = change(&self.document).map_err(unedited)?;
        self.put(document, write, author, author.message(write))
    }

    /// Keeps the revision that would go back by itself.
    pub fn confirm(&mut self, author: &Author) -> Result<Written, Problem> {
        self.store.confirm(self.revision).map_err(|error| stored(&error))?;
        self.pending = None;
        tracing::info!(author = %author.name, revision = self.revision, "confirmed");
        let changes = vec![format!("revision {} stays", self.revision)];
        Ok(Written { revision: self.revision, mode: self.document.mode, changes, ..Written::default() })
    }

    /// Returns to an earlier revision, by default the one before that in force.
    pub fn rollback(&mut self, revision: Option<u64>, write: &Write, author: &Author) -> Result<Written, Problem> {
        if let Some((pending, _)) = self.pending
            && revision.is_none_or(|revision| revision == pending.back_to)
        {
            return self.go_back(&author.name, Timestamp::now());
        }
        let target = match revision {
            Some(revision) => revision,
            None => self.revision.checked_sub(1).ok_or_else(|| {
                Problem::new(ProblemKind::Conflict, "no policy was ever applied; there is nothing to go back to")
            })?,
        };
        let document = match target {
            0 => Document::default(),
            number => self.store.revision(number).map_err(|error| stored(&error))?.document,
        };
        let message = write.message.clone().unwrap_or_else(|| format!("back to revision {target}"));
        self.put(document, write, author, &message)
    }

    /// Returns to what was in force before the revision that waits.
    pub(super) fn go_back(&mut self, author: &str, now: Timestamp) -> Result<Written, Problem> {
        let back = self.store.go_back(author, now).map_err(|error| stored(&error))?;
        let from = self.revision;
        self.pending = None;
        let Some(revision) = back else {
            return Ok(Written { revision: from, mode: self.document.mode, ..Written::default() });
        };
        let held = self.store.current().map_err(|error| stored(&error))?;
        let document = held.map(|held| held.document).unwrap_or_default();
        let changes = policy::diff(&self.document, &document);
        self.enforce(&document, revision)?;
        (self.document, self.revision) = (document, revision);
        tracing::warn!(author, from, revision, "went back to the policy before the one that waited");
        let changes = changes.iter().map(ToString::to_string).collect();
        Ok(Written { revision, mode: self.document.mode, changes, ..Written::default() })
    }

    fn put(&mut self, document: Document, write: &Write, author: &Author, message: &str) -> Result<Written, Problem> {
        let now = Timestamp::now();
        let deadline = deadline(write, now)?;
        let warnings = self.new_warnings(&document)?;
        let changes = policy::diff(&self.document, &document);
        if changes.is_empty() && self.revision > 0 && deadline.is_none() {
            return self.unchanged(&document, write, author);
        }
        // Compiled before anything is written, so that a policy that does not fit changes nothing.
        policy::compile(&document, self.revision + 1, &self.datapath.layout()).map_err(refused)?;
        let dangers = self.dangers(&document, write.session);
        let revision = match deadline {
            None => self.store.append(&document, &author.name, message, now),
            Some(at) => self.store.append_pending(&document, &author.name, message, now, at).map(|it| it.revision),
        }
        .map_err(|error| stored(&error))?;
        let enforced = self.protect(&dangers, write, author).and_then(|allow| {
            self.enforce(&document, revision)?;
            Ok(allow)
        });
        let session_allow = match enforced {
            Ok(allow) => allow,
            Err(problem) => return Err(self.withdraw(revision, problem)),
        };
        (self.document, self.revision) = (document, revision);
        self.pending = self.store.pending().ok().flatten().map(|it| (it, due::instant(it.deadline, now)));
        tracing::info!(author = %author.name, revision, changes = changes.len(), note = message, "policy in force");
        Ok(Written {
            revision,
            changes: changes.iter().map(ToString::to_string).collect(),
            mode: self.document.mode,
            warnings: warnings.into_iter().chain(dangers).collect(),
            pending: self.pending.map(|(pending, _)| views::pending(pending)),
            session_allow,
        })
    }

    /// What a policy is warned of and the one in force is not: who changes one thing is not told of all others again.
    fn new_warnings(&self, document: &Document) -> Result<Vec<String>, Problem> {
        let texts = |document| Ok(policy::check(document)?.iter().map(Diagnostic::text).collect());
        let mut warnings: Vec<String> = texts(document).map_err(refused)?;
        let known: Vec<String> = texts(&self.document).unwrap_or_default();
        warnings.retain(|warning| !known.contains(warning));
        Ok(warnings)
    }

    /// The same policy again: nothing is written, but the session may need its allow, or be forced out of it.
    fn unchanged(&mut self, document: &Document, write: &Write, author: &Author) -> Result<Written, Problem> {
        let dangers = self.dangers(document, write.session);
        let session_allow = self.protect(&dangers, write, author)?;
        self.write_sources(None)?;
        Ok(Written {
            revision: self.revision,
            mode: self.document.mode,
            warnings: dangers,
            pending: self.pending.map(|(pending, _)| views::pending(pending)),
            session_allow,
            ..Written::default()
        })
    }

    fn dangers(&self, document: &Document, session: Option<IpAddr>) -> Vec<String> {
        session.map_or_else(Vec::new, |address| session::dangers(document, self.blocks.keys(), address))
    }

    /// Takes a revision back that could not be put in force, and says why it could not.
    fn withdraw(&mut self, revision: u64, mut problem: Problem) -> Problem {
        if let Err(error) = self.store.withdraw(revision) {
            let fault = format!("revision {revision} is stored but not in force, and cannot be taken back: {error}");
            problem.detail = format!("{}; {fault}", problem.detail);
            self.faults.insert("policy", fault);
        }
        problem
    }
}

fn deadline(write: &Write, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    match write.confirm_within_seconds {
        None => Ok(None),
        Some(seconds @ 1..=LONGEST_WAIT) => Ok(Some(now + SignedDuration::from_secs(seconds.cast_signed()))),
        Some(seconds) => {
            let detail = format!("a confirmation within {seconds} s; write 1 to {LONGEST_WAIT}");
            Err(Problem::new(ProblemKind::Malformed, detail))
        }
    }
}

fn unedited(error: EditError) -> Problem {
    match error {
        EditError::Wrong(diagnostics) => refused(diagnostics),
        EditError::InUse { .. } => Problem::new(ProblemKind::Conflict, error.to_string()),
        EditError::Unknown { .. } | EditError::NotListed { .. } => {
            Problem::new(ProblemKind::NotFound, error.to_string())
        }
    }
}
