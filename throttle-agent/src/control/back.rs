//! The way back: policies that wait for their confirmation, and earlier ones that are put in force again.
//!
//! A revision waits until it is confirmed or the one before it is in force again *and* the store says so: only the last
//! step ends the waiting. Until then going back is tried again, ever more seldom, and the status says so; an agent that
//! is started meanwhile goes on trying.
//!
//! Going back without naming a revision is a step back, by hand or because nobody confirmed: it leads to what was in
//! force before what is in force now, and the next one further, never again to what was taken back. Whoever names a
//! revision takes a step forward, which a step back undoes.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::{AGENT, Author, Control, stored};
use crate::{
    api::wire::{self, Problem, ProblemKind, Write, Written},
    policy::{self, Document},
    run::retry::Retry,
    store::{Changes, Moment, Pending},
};

/// A revision in force that waits for its confirmation.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) pending: Pending,
    /// Where going back has failed.
    retry: Retry,
}

impl Waiting {
    pub(super) fn new(pending: Pending) -> Self {
        Self { pending, retry: Retry::default() }
    }
}

impl Control {
    /// Keeps the revision that would go back by itself.
    pub fn confirm(&mut self, author: &Author) -> Result<Written, Problem> {
        if self.waiting.as_ref().is_some_and(|waiting| waiting.pending.revision != self.revision) {
            let detail = "the policy before it is in force again already; apply the newer one once more";
            return Err(Problem::new(ProblemKind::Conflict, detail));
        }
        let back_to = self.waiting.as_ref().map(|waiting| waiting.pending.back_to);
        let change = back_to.map_or(Ok(None), |back_to| self.confirmed(back_to, author))?;
        let changes: Vec<_> = change.clone().into_iter().collect();
        let kept = Changes { stamp: self.stamp_name(), changes: &changes, own: false };
        let confirmed = self.store.confirm(self.revision, kept).map_err(|error| stored(&error));
        confirmed.inspect_err(|_| self.unshare(change.as_deref()))?;
        self.waiting = None;
        self.tell_shared(change.is_some().into(), 0);
        self.catch_up();
        self.faults.note("confirmation", Ok(()));
        tracing::info!(author = %author.name, revision = self.revision, "confirmed");
        let changes = vec![format!("revision {} stays", self.revision)];
        Ok(Written { revision: self.head().revision, mode: self.mode(), changes, ..Written::default() })
    }

    /// Returns to an earlier revision, by default to what was in force before what is in force now.
    pub fn rollback(&mut self, revision: Option<u64>, write: &Write, author: &Author) -> Result<Written, Problem> {
        if let Some(waiting) = &self.waiting
            && revision.is_none_or(|revision| revision == waiting.pending.back_to)
        {
            return self.go_back(write, author);
        }
        let (target, document, back_to) = if let Some(revision) = revision {
            (revision, self.document_of(revision)?, None)
        } else {
            let (before, document) = self.before()?;
            (before, document, Some(before))
        };
        let message = write.message.clone().unwrap_or_else(|| format!("back to revision {target}"));
        self.put(document, back_to, write, author, &message)
    }

    /// What was in force before what is in force now: past all that says the same.
    fn before(&self) -> Result<(u64, Document), Problem> {
        let none =
            || Problem::new(ProblemKind::Conflict, "nothing was in force before; there is nothing to go back to");
        let mut number = self.revision;
        while number != 0 {
            number = self.store.info(number).map_err(|error| stored(&error))?.before().ok_or_else(none)?;
            let document = self.document_of(number)?;
            if document != self.document {
                return Ok((self.origin(number)?, document));
            }
        }
        Err(none())
    }

    /// The revision whose document a step back brought again; any other is its own.
    fn origin(&self, number: u64) -> Result<u64, Problem> {
        match number {
            0 => Ok(0),
            number => Ok(self.store.info(number).map_err(|error| stored(&error))?.back_to.unwrap_or(number)),
        }
    }

    /// Goes back once nobody has confirmed in time; what fails is tried again.
    pub(super) fn go_back_when_due(&mut self, now: Instant) {
        if !self.time_is_over() || self.waiting.as_ref().is_none_or(|waiting| !waiting.retry.due(now)) {
            return;
        }
        let outcome = self.go_back(&Write::default(), &Author::new(AGENT, "")).map(drop);
        let outcome = outcome.map_err(|problem| {
            let Some(Waiting { pending, retry }) = &mut self.waiting else { return problem.to_string() };
            retry.failed(now);
            let Pending { revision, back_to, .. } = pending;
            format!(
                "revision {revision} was not confirmed in time and cannot go back to {back_to} yet: {problem}; it is \
                 tried again, or keep it with `throttle policy confirm`"
            )
        });
        self.faults.note("confirmation", outcome);
    }

    /// Returns to what was in force before the revision that waits.
    fn go_back(&mut self, write: &Write, author: &Author) -> Result<Written, Problem> {
        let Some(Waiting { pending: Pending { revision: from, back_to, .. }, .. }) = self.waiting else {
            return Err(Problem::new(ProblemKind::Conflict, "no policy waits for a confirmation"));
        };
        let (document, revision) = (self.document_of(back_to)?, from + 1);
        let warnings = policy::new_warnings(self.in_force(), &document);
        let changes = policy::diff(self.in_force(), &document);
        let dangers = self.dangers(&document, write);
        let severed = self.severed(&document, write)?;
        let enforce = |control: &mut Self| control.enforce_again(&document, revision);
        let ((), session_allow) = self.protecting(&dangers, write, author, enforce)?;
        // What the kernel has is what is in force, whatever becomes of the store.
        (self.document, self.revision) = (document, revision);
        self.store.go_back(&author.name, Timestamp::now()).map_err(|error| stored(&error))?;
        self.waiting = None;
        self.catch_up();
        self.faults.note("confirmation", Ok(()));
        tracing::warn!(author = %author.name, from, revision, "went back to the policy before the one that waited");
        Ok(Written {
            revision,
            mode: self.mode(),
            changes: changes.iter().map(ToString::to_string).collect(),
            warnings: warnings.into_iter().chain(dangers).chain(severed).collect(),
            session_allow,
            ..Written::default()
        })
    }

    /// The document of a revision; the empty one for 0.
    pub(super) fn document_of(&self, revision: u64) -> Result<Document, Problem> {
        match revision {
            0 => Ok(Document::default()),
            number => Ok(self.store.revision(number).map_err(|error| stored(&error))?.document),
        }
    }

    /// Now, as windows for confirmation are measured.
    pub(super) fn moment(&self) -> Moment {
        let after = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let after = Duration::new(after.tv_sec.cast_unsigned(), u32::try_from(after.tv_nsec).unwrap_or(0));
        Moment { boot: self.boot.clone(), after }
    }

    /// Whether a revision waits that may be confirmed no more.
    pub(super) fn time_is_over(&self) -> bool {
        let now = self.moment();
        self.waiting.as_ref().is_some_and(|waiting| waiting.pending.remaining(&now).is_zero())
    }

    /// How long until going back is due, or to be tried again.
    pub(super) fn until_going_back(&self, now: Instant) -> Option<Duration> {
        let moment = self.moment();
        self.waiting.as_ref().map(|waiting| waiting.pending.remaining(&moment).max(waiting.retry.wait(now)))
    }

    /// What waits, for the API.
    pub(super) fn pending(&self) -> Option<wire::Pending> {
        let (now, moment) = (Timestamp::now(), self.moment());
        self.waiting.as_ref().map(|Waiting { pending, .. }| wire::Pending {
            revision: pending.revision,
            back_to: pending.back_to,
            deadline: now + SignedDuration::try_from(pending.remaining(&moment)).unwrap_or_default(),
        })
    }
}
