//! Opening the file: nothing in it is believed before it was checked.

use super::{blocks, breakers, changes, error::StoreError, record, revisions, speeds};
use crate::run::private::private_file;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, WriteTransaction,
    backends::FileBackend,
};
use std::{
    any::Any,
    fmt, fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// What is neither a revision nor a block, by name.
pub(super) const STATE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
const FORMAT_KEY: &str = "format";

/// What opening found, for the log and for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The file was damaged but every record could be read. The last change before the damage may be missing.
    Repaired,
    /// The file could not be trusted. It was moved aside, and an empty one took its place.
    MovedAside {
        /// Where it is now.
        to: PathBuf,
        /// What was wrong with it.
        cause: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repaired => f.write_str(
                "the store was damaged and could be repaired; the last change before the damage may be missing: compare \
                 `throttle policy history` with what you expect, and apply your policy file",
            ),
            Self::MovedAside { to, cause } => write!(
                f,
                "the store could not be trusted ({cause}) and was moved to {}; what was in it, blocks included, is not \
                 known any more: apply your policy file again",
                to.display()
            ),
        }
    }
}

/// Opens a file that can be trusted, putting an empty one in the place of a bad one.
pub(super) fn open(path: &Path) -> Result<(Database, Vec<Note>), StoreError> {
    match attempt(path) {
        Ok(opened) => Ok(opened),
        Err(Refusal::Error(error)) => Err(error),
        Err(Refusal::Bad(cause)) => {
            let to = move_aside(path).map_err(|error| unreachable(path, &error.to_string()))?;
            let (database, _) = open_checked(path)?;
            Ok((database, vec![Note::MovedAside { to, cause }]))
        }
    }
}

/// Opens a file that can be trusted, or fails.
pub(super) fn open_checked(path: &Path) -> Result<(Database, Vec<Note>), StoreError> {
    attempt(path).map_err(|refusal| match refusal {
        Refusal::Error(error) => error,
        Refusal::Bad(cause) => StoreError::Failed { cause },
    })
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("the database panicked").to_owned()
}

/// Why a file was not opened.
enum Refusal {
    /// Nothing is known against the file.
    Error(StoreError),
    /// The file is not what was written.
    Bad(String),
}

fn attempt(path: &Path) -> Result<(Database, Vec<Note>), Refusal> {
    // redb takes an empty file for a new one; but nothing here ever leaves one behind.
    if fs::metadata(path).is_ok_and(|file| file.len() == 0) {
        return Err(Refusal::Bad("it is empty".to_owned()));
    }
    catch_unwind(AssertUnwindSafe(|| checked(path)))
        .unwrap_or_else(|panic| Err(Refusal::Bad(panic_text(panic.as_ref()))))
}

fn checked(path: &Path) -> Result<(Database, Vec<Note>), Refusal> {
    let refused = |error| refusal(path, error);
    let file = private_file(path).map_err(|error| Refusal::Error(unreachable(path, &error.to_string())))?;
    let backend = FileBackend::new(file).map_err(refused)?;
    let mut database = Database::builder().create_with_backend(backend).map_err(refused)?;
    let whole = database.check_integrity().map_err(refused)?;
    records(&database).map_err(|error| match error {
        error @ StoreError::OtherFormat { .. } => Refusal::Error(error),
        StoreError::Failed { cause } => Refusal::Bad(cause),
        StoreError::Damaged { record } => Refusal::Bad(format!("{record} is damaged")),
        error => Refusal::Bad(error.to_string()),
    })?;
    let new = prepare(&database).map_err(Refusal::Error)?;
    Ok((database, if whole || new { Vec::new() } else { vec![Note::Repaired] }))
}

fn refusal(path: &Path, error: DatabaseError) -> Refusal {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            Refusal::Error(StoreError::InUse { path: path.to_owned() })
        }
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            Refusal::Error(unreachable(path, &error.to_string()))
        }
        error => Refusal::Bad(error.to_string()),
    }
}

fn unreachable(path: &Path, cause: &str) -> StoreError {
    StoreError::Unreachable { path: path.to_owned(), cause: cause.to_owned() }
}

/// Reads every record once, but for what is only told or shown of health: whether that is damaged, policy and blocks are not.
fn records(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_read()?;
    match transaction.open_table(STATE) {
        Ok(state) => {
            if let Some(sealed) = state.get(FORMAT_KEY)? {
                let found: u64 = record::open("state", FORMAT_KEY.as_bytes(), sealed.value())?;
                if ![record::WHOLE_FORMAT, record::FORMAT].contains(&found) {
                    return Err(StoreError::OtherFormat { found });
                }
            }
        }
        // The tables are made in one transaction: without one there is none.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    revisions::verify(&transaction)?;
    blocks::verify(&transaction)?;
    breakers::verify(&transaction)?;
    changes::verify(&transaction)?;
    speeds::verify(&transaction)
}

/// Makes the tables of a new file, and tells whether it was one.
fn prepare(database: &Database) -> Result<bool, StoreError> {
    let transaction = database.begin_write()?;
    let new = {
        let mut state = transaction.open_table(STATE)?;
        let new = state.get(FORMAT_KEY)?.is_none();
        if new {
            let sealed = record::seal("state", FORMAT_KEY.as_bytes(), &record::WHOLE_FORMAT);
            state.insert(FORMAT_KEY, sealed.as_slice())?;
            revisions::prepare(&transaction)?;
            blocks::prepare(&transaction)?;
        }
        new
    };
    if new {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(new)
}

/// Notes that not all documents are whole any more, so that no version takes the file for another's that knows only such.
pub(super) fn mark_patched(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let sealed = record::seal("state", FORMAT_KEY.as_bytes(), &record::FORMAT);
    transaction.open_table(STATE)?.insert(FORMAT_KEY, sealed.as_slice())?;
    Ok(())
}

/// Gives a file the first name that is free: `store.redb.bad-1` and so on.
fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let mut number = 1;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".bad-{number}"));
        let to = PathBuf::from(name);
        // A link refuses a name that is taken, where a rename would write over it.
        match fs::hard_link(path, &to) {
            Ok(()) => {
                fs::remove_file(path)?;
                return Ok(to);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}
