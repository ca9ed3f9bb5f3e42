//! Why the store did not do what it was asked.

use std::path::PathBuf;

/// An error of the store; each says what became of the data.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was touched: another process has the file open.
    #[error("{} is open in another process; only one agent may run with a state directory", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Nothing was touched: the file cannot be opened or created.
    #[error("cannot open {}: {cause}; check the directory's permissions and free space", .path.display())]
    Unreachable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// Nothing was touched: the file belongs to another version of the throttle.
    #[error(
        "the store has format {found}, this version reads formats {} and {}; run the version that wrote it",
        super::record::WHOLE_FORMAT,
        super::record::FORMAT
    )]
    OtherFormat {
        /// The format of the file.
        found: u64,
    },
    /// The disk failed or is full. The file was closed and checked again; the change is whole or absent, and reading
    /// tells which.
    #[error("the store failed: {cause}; free space on its disk or replace it, then try again")]
    Failed {
        /// What the database said.
        cause: String,
    },
    /// The record is not what was written. Nothing was changed; other records are as they were.
    #[error("{record} of the store is damaged; restart the agent to have the file checked and moved aside")]
    Damaged {
        /// Which record.
        record: String,
    },
    /// Nothing was changed: there is no such revision, or it was pruned.
    #[error("there is no policy revision {0}; `throttle policy history` shows those that are kept")]
    NoRevision(u64),
    /// Nothing was changed: the revision in force waits for its confirmation.
    #[error(
        "policy revision {0} goes back by itself unless it is confirmed; do so with `throttle policy confirm`, or go \
         back with `throttle policy rollback`, before changing anything else"
    )]
    AwaitsConfirmation(u64),
    /// Nothing was changed: that revision does not wait for a confirmation (any more).
    #[error("policy revision {0} does not wait for a confirmation; `throttle policy history` shows what is in force")]
    NothingPending(u64),
}

macro_rules! from_redb {
    ($($error:ty),+) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Failed { cause: error.to_string() }
            }
        }
    )+};
}

from_redb!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);
