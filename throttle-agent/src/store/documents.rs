//! The documents of the revisions: whole, or as what makes them of the one before.
//!
//! A document of many blocks takes tens of milliseconds to write, and a command changes one line of it. So where it is
//! large, a revision holds what changed ([`Patch`]), until these changes come to as much as the whole that they follow: or
//! are [`MOST`]: then the next is whole again. Of each revision there is one of the two, and before those that are kept as
//! many as the first of them needs. A file in which all are whole is one that earlier versions read.

use super::{error::StoreError, file, record};
use crate::policy::{Document, Patch};
use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};

const WHOLE_NAME: &str = "documents";
const PATCH_NAME: &str = "patches";
const WHOLES: TableDefinition<u64, &[u8]> = TableDefinition::new(WHOLE_NAME);
const PATCHES: TableDefinition<u64, &[u8]> = TableDefinition::new(PATCH_NAME);

/// A smaller document is always written whole, in less than a millisecond.
const LARGE: u64 = 64 << 10;

/// Changes that may follow a whole document: who reads the last goes through all of them.
const MOST: u64 = 64;

/// The last revision, by which the next is told; the empty one before the first.
#[derive(Default)]
pub(super) struct Last {
    pub(super) revision: u64,
    document: Document,
    /// What is written of it.
    pub(super) bytes: u64,
    /// Bytes of the whole that it is, or follows.
    whole: u64,
    /// The changes since.
    changes: u64,
    /// Bytes of these.
    patched: u64,
    /// Bytes of all revisions that are kept.
    pub(super) kept: u64,
}

/// Makes the tables of a new file.
pub(super) fn prepare(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(WHOLES)?;
    Ok(())
}

/// Writes the document of the revision after `before`.
pub(super) fn append(transaction: &WriteTransaction, before: &Last, document: &Document) -> Result<Last, StoreError> {
    let revision = before.revision + 1;
    let key = revision.to_be_bytes();
    let next = |bytes, whole, changes, patched| {
        let (document, kept) = (document.clone(), before.kept + bytes);
        Last { revision, document, bytes, whole, changes, patched, kept }
    };
    let may_change = before.whole >= LARGE && before.changes < MOST;
    let patch = if may_change { Patch::between(&before.document, document) } else { None };
    if let Some(patch) = patch {
        let sealed = record::seal(PATCH_NAME, &key, &patch);
        let bytes = sealed.len() as u64;
        if before.patched + bytes <= before.whole {
            file::mark_patched(transaction)?;
            transaction.open_table(PATCHES)?.insert(revision, sealed.as_slice())?;
            return Ok(next(bytes, before.whole, before.changes + 1, before.patched + bytes));
        }
    }
    let sealed = record::seal(WHOLE_NAME, &key, document);
    transaction.open_table(WHOLES)?.insert(revision, sealed.as_slice())?;
    let bytes = sealed.len() as u64;
    Ok(next(bytes, bytes, 0, 0))
}

/// Takes the last document back.
pub(super) fn withdraw(transaction: &WriteTransaction, revision: u64) -> Result<(), StoreError> {
    if transaction.open_table(WHOLES)?.remove(revision)?.is_none() {
        transaction.open_table(PATCHES)?.remove(revision)?;
    }
    Ok(())
}

/// Forgets the documents before a revision, but for those that it is made of.
pub(super) fn forget_before(transaction: &WriteTransaction, revision: u64) -> Result<(), StoreError> {
    let mut wholes = transaction.open_table(WHOLES)?;
    let base = wholes.range(..=revision)?.next_back().transpose()?.map_or(revision, |(base, _)| base.value());
    wholes.retain_in(..base, |_, _| false)?;
    transaction.open_table(PATCHES)?.retain_in(..base, |_, _| false)?;
    Ok(())
}

/// The document of a revision, for a change that needs it.
pub(super) fn of(transaction: &WriteTransaction, revision: u64) -> Result<Document, StoreError> {
    let made = make(&transaction.open_table(WHOLES)?, Some(&transaction.open_table(PATCHES)?), revision)?;
    made.map(|last| last.document).ok_or(StoreError::NoRevision(revision))
}

/// The document of a revision.
pub(super) fn read(transaction: &ReadTransaction, revision: u64) -> Result<Document, StoreError> {
    let patches = if_there(transaction.open_table(PATCHES))?;
    let made = make(&transaction.open_table(WHOLES)?, patches.as_ref(), revision)?;
    made.map(|last| last.document).ok_or(StoreError::NoRevision(revision))
}

/// Checks every document of revisions from `first` to `last`, and that there are no others but those that they need.
pub(super) fn verify(transaction: &ReadTransaction, first: u64, last: u64) -> Result<(), StoreError> {
    let wholes = transaction.open_table(WHOLES)?;
    let patches = if_there(transaction.open_table(PATCHES))?;
    let mut made: Option<Last> = None;
    let (mut entries, mut changes) = (0, 0);
    for entry in wholes.iter()? {
        let base = entry?.0.value();
        // What follows a whole ends where the next one begins.
        let end = wholes.range(base + 1..)?.next().transpose()?.map_or(last, |(next, _)| next.value() - 1);
        let run = follow(&wholes, patches.as_ref(), base, end)?.ok_or_else(|| strange(base))?;
        let in_order = made.as_ref().map_or(base <= first, |made| made.revision + 1 == base && made.revision >= first);
        if !in_order {
            return Err(strange(base));
        }
        (entries, changes) = (entries + 1, changes + end - base);
        made = Some(run);
    }
    let held = match &patches {
        Some(patches) => redb::ReadableTableMetadata::len(patches)?,
        None => 0,
    };
    let whole = made.map_or(0, |made| made.revision) == last && (last == 0) == (entries == 0);
    if whole && held == changes { Ok(()) } else { Err(strange(last)) }
}

impl Last {
    /// The last revision, where those that are kept take so many bytes.
    pub(super) fn read(transaction: &WriteTransaction, revision: u64, kept: u64) -> Result<Self, StoreError> {
        if revision == 0 {
            return Ok(Self::default());
        }
        let made = make(&transaction.open_table(WHOLES)?, Some(&transaction.open_table(PATCHES)?), revision)?;
        Ok(Self { kept, ..made.ok_or(StoreError::NoRevision(revision))? })
    }
}

/// The document of a revision, from the last whole one up to it.
fn make(
    wholes: &impl ReadableTable<u64, &'static [u8]>,
    patches: Option<&impl ReadableTable<u64, &'static [u8]>>,
    revision: u64,
) -> Result<Option<Last>, StoreError> {
    let base = wholes.range(..=revision)?.next_back().transpose()?.map(|(base, _)| base.value());
    base.map_or(Ok(None), |base| follow(wholes, patches, base, revision))
}

/// A whole document and the changes after it, up to a revision. None where one is missing.
fn follow(
    wholes: &impl ReadableTable<u64, &'static [u8]>,
    patches: Option<&impl ReadableTable<u64, &'static [u8]>>,
    base: u64,
    revision: u64,
) -> Result<Option<Last>, StoreError> {
    let Some(sealed) = wholes.get(base)? else { return Ok(None) };
    let document: Document = record::open(WHOLE_NAME, &base.to_be_bytes(), sealed.value())?;
    let bytes = sealed.value().len() as u64;
    let mut last = Last { revision, document, bytes, whole: bytes, changes: 0, patched: 0, kept: 0 };
    for number in base + 1..=revision {
        let sealed = patches.map_or(Ok(None), |patches| patches.get(number))?;
        let Some(sealed) = sealed else { return Ok(None) };
        let patch: Patch = record::open(PATCH_NAME, &number.to_be_bytes(), sealed.value())?;
        last.document = patch.apply(last.document);
        last.bytes = sealed.value().len() as u64;
        last.changes += 1;
        last.patched += last.bytes;
    }
    Ok(Some(last))
}

/// A table that only files have in which something is a change.
fn if_there<T>(table: Result<T, TableError>) -> Result<Option<T>, StoreError> {
    match table {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        table => Ok(Some(table?)),
    }
}

fn strange(revision: u64) -> StoreError {
    record::damaged(WHOLE_NAME, &revision.to_be_bytes())
}
