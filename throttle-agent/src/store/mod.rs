//! What must survive: the revisions of the policy, the one that awaits its confirmation, the timed
//! blocks, who was sentenced how often, speeds and breakers that were set by hand, what others were told of health and is
//! not over, since when backends and breakers are as they are, and the changes that the hosts of the stamp have made to the
//! policy.
//!
//! One [`Store`] may be open for a file at a time. Each change is one transaction: after a crash at any instant it is
//! there whole or not at all, and what was acknowledged is there. Every record carries a digest of where it belongs and
//! what it says, so that a flipped bit can lose policy but never become policy. A file that cannot be trusted is moved
//! aside, never deleted ([`Note`]).
//!
//! Calls block on the disk; the agent makes them from threads that may.

mod alerts;
mod blocks;
mod breakers;
mod changes;
mod documents;
mod error;
mod file;
mod listed;
mod pending;
mod record;
mod revisions;
mod sentences;
mod speeds;
mod standings;

pub use alerts::Alert;
pub use blocks::Block;
pub use breakers::HeldBreaker;
pub use changes::{Changes, DeadLetter};
pub use error::StoreError;
pub use file::Note;
pub use pending::{Moment, Pending};
pub use revisions::{KEPT, KEPT_BYTES, Policy, Revision, RevisionInfo};
pub use speeds::SetSpeed;
pub use standings::Standing;

use documents::Last;
use redb::{Database, ReadTransaction, WriteTransaction};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The database file of one host.
pub struct Store {
    path: PathBuf,
    /// None after an error of the disk until the file could be opened and checked again.
    open: Mutex<Option<Open>>,
}

/// An open file.
struct Open {
    database: Database,
    /// Its last document, by which the next is told. None until it is needed.
    last: Option<Last>,
}

impl From<Database> for Open {
    fn from(database: Database) -> Self {
        Self { database, last: None }
    }
}

impl Store {
    /// Opens the file, or creates it, and checks every record. A file that cannot be trusted is moved aside and an
    /// empty one takes its place; the notes say so.
    pub fn open(path: &Path) -> Result<(Self, Vec<Note>), StoreError> {
        let (database, notes) = file::open(path)?;
        Ok((Self { path: path.to_owned(), open: Mutex::new(Some(database.into())) }, notes))
    }

    fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.guarded(|open| work(&redb::ReadableDatabase::begin_read(&open.database)?))
    }

    /// Makes one change, durable when this returns; on an error of `work` nothing changed.
    fn write<T>(&self, work: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.guarded(|open| committed(&open.database, work))
    }

    /// The same for a change that may be of the last document, which `work` keeps up to date.
    fn write_last<T>(
        &self,
        work: impl FnOnce(&WriteTransaction, &mut Option<Last>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.guarded(|open| {
            // Where it comes to nothing, what it said of the last document does too: the file knows.
            let mut last = open.last.take();
            let done = committed(&open.database, |transaction| work(transaction, &mut last))?;
            open.last = last;
            Ok(done)
        })
    }

    /// Works on the database. After an error of the disk redb fails every further write until it is opened again, so
    /// it is closed, and opened and checked anew for this call's successor.
    fn guarded<T>(&self, work: impl FnOnce(&mut Open) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut place = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = match place.take() {
            Some(open) => open,
            None => file::open_checked(&self.path)?.0.into(),
        };
        let result = catch_unwind(AssertUnwindSafe(|| work(&mut open)))
            .unwrap_or_else(|panic| Err(StoreError::Failed { cause: file::panic_text(panic.as_ref()) }));
        if let Err(StoreError::Failed { .. }) = result {
            // Dropping writes as well, and may fail in the same way.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(open)));
            *place = file::open_checked(&self.path).ok().map(|(database, _)| database.into());
        } else {
            *place = Some(open);
        }
        result
    }
}

fn committed<T>(
    database: &Database,
    work: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut transaction = database.begin_write()?;
    // One phase trusts a checksum to tell a torn commit from a whole one.
    transaction.set_two_phase_commit(true);
    let done = work(&transaction)?;
    transaction.commit()?;
    Ok(done)
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
