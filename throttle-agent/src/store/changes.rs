//! The changes that the hosts of the stamp have made to the policy, in the order in which this host has learned them, and what
//! others sent that is none.
//!
//! One of this host's own is written with the revision that it makes, in one transaction: who was told that a change is kept
//! is told so of both.

use super::{Store, error::StoreError, listed, record};
use jiff::Timestamp;
use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};
use serde::{Deserialize, Serialize};

const NAME: &str = "changes";
const CHANGES: TableDefinition<u64, &[u8]> = TableDefinition::new(NAME);
/// The stamp that they are of.
const STAMP_KEY: &str = "stamp";
const LETTERS_KEY: &str = "dead-letters";
/// Bytes before a change: the revision that it was made with, 0 where it is not this host's.
const REVISION: usize = 8;

/// Changes to be kept with a revision.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes<'c> {
    /// The stamp that they are of.
    pub stamp: &'c str,
    /// The changes.
    pub changes: &'c [Vec<u8>],
    /// Whether they are taken back with the revision: they are this host's own.
    pub own: bool,
}

/// Something that others sent as a change, and that is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// A name of it: the beginning of its digest.
    pub id: String,
    /// Why it is no change.
    pub reason: String,
    /// Which host sent it, and from where.
    pub from: String,
    /// When it came first.
    pub first: Timestamp,
    /// When it came last.
    pub last: Timestamp,
    /// How often it came.
    pub times: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// What was sent, in hexadecimal digits; empty where it is too long to be kept.
    pub envelope: String,
}

impl Store {
    /// The changes that are kept for a stamp, in their order; none where this host has not been in it.
    pub fn changes(&self, stamp: &str) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        self.read(|transaction| {
            let of: Vec<String> = listed::listed(transaction, STAMP_KEY)?;
            if of.first().is_none_or(|of| of != stamp) {
                return Ok(None);
            }
            let Some(table) = if_there(transaction.open_table(CHANGES))? else { return Ok(Some(Vec::new())) };
            let mut changes = Vec::new();
            for entry in table.iter()? {
                let (key, sealed) = entry?;
                changes.push(opened(key.value(), sealed.value())?.1.to_vec());
            }
            Ok(Some(changes))
        })
    }

    /// Keeps changes that make no revision.
    pub fn keep_changes(&self, changes: Changes<'_>) -> Result<(), StoreError> {
        self.write(|transaction| append(transaction, 0, changes))
    }

    /// What others sent that is no change.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>, StoreError> {
        self.listed(LETTERS_KEY)
    }

    /// Keeps these and no others.
    pub fn set_dead_letters(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        self.set_listed(LETTERS_KEY, letters)
    }
}

/// Keeps changes with a revision. Those of another stamp are forgotten.
pub(super) fn append(
    transaction: &WriteTransaction,
    revision: u64,
    Changes { stamp, changes, own }: Changes<'_>,
) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(CHANGES)?;
    let mut state = transaction.open_table(super::file::STATE)?;
    let sealed = record::seal("state", STAMP_KEY.as_bytes(), &[stamp]);
    let of_another = state.get(STAMP_KEY)?.is_none_or(|held| held.value() != &sealed[..]);
    if of_another {
        table.retain(|_, _| false)?;
        state.insert(STAMP_KEY, sealed.as_slice())?;
    }
    let mut number = table.last()?.map_or(0, |(number, _)| number.value());
    let revision = if own { revision } else { 0 };
    for change in changes {
        number += 1;
        let body = [&revision.to_le_bytes()[..], change].concat();
        table.insert(number, record::seal_small(NAME, &number.to_be_bytes(), &body).as_slice())?;
    }
    Ok(())
}

/// Takes back those that were made with a revision.
pub(super) fn withdraw(transaction: &WriteTransaction, revision: u64) -> Result<(), StoreError> {
    let mut table = transaction.open_table(CHANGES)?;
    while let Some((number, of)) = last(&table)?.filter(|(_, of)| *of == revision) {
        debug_assert_ne!(of, 0, "no revision is 0");
        table.remove(number)?;
    }
    Ok(())
}

fn last(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<Option<(u64, u64)>, StoreError> {
    let last = table.last()?;
    last.map(|(number, sealed)| Ok((number.value(), opened(number.value(), sealed.value())?.0))).transpose()
}

/// Checks every record.
pub(super) fn verify(transaction: &ReadTransaction) -> Result<(), StoreError> {
    let Some(table) = if_there(transaction.open_table(CHANGES))? else { return Ok(()) };
    for entry in table.iter()? {
        let (key, sealed) = entry?;
        opened(key.value(), sealed.value())?;
    }
    Ok(())
}

fn opened(number: u64, sealed: &[u8]) -> Result<(u64, &[u8]), StoreError> {
    let key = number.to_be_bytes();
    let body = record::open_small(NAME, &key, sealed)?;
    let (revision, change) = body.split_at_checked(REVISION).ok_or_else(|| record::damaged(NAME, &key))?;
    Ok((u64::from_le_bytes(revision.try_into().expect("eight bytes are eight")), change))
}

/// A table that only files have of hosts that have been in a stamp.
fn if_there<T>(table: Result<T, TableError>) -> Result<Option<T>, StoreError> {
    match table {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        table => Ok(Some(table?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{policy::Document, store::Policy};

    fn of(stamp: &str, changes: &[Vec<u8>]) -> Changes<'static> {
        Changes { stamp: stamp.to_owned().leak(), changes: changes.to_vec().leak(), own: true }
    }

    #[test]
    fn a_change_is_kept_with_its_revision_and_goes_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Store::open(&directory.path().join("store.redb")).unwrap().0;
        assert_eq!(open().changes("blue").unwrap(), None);
        let (first, second) = (b"first".to_vec(), b"second".to_vec());
        open().keep_changes(Changes { own: false, ..of("blue", std::slice::from_ref(&first)) }).unwrap();
        let document = Document::default();
        let policy = Policy::from(&document).with(of("blue", std::slice::from_ref(&second)));
        let revision = open().append(policy, "root", "", Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(open().changes("blue").unwrap(), Some(vec![first.clone(), second]));
        open().withdraw(revision).unwrap();
        assert_eq!(open().changes("blue").unwrap(), Some(vec![first]));
    }

    #[test]
    fn changes_of_another_stamp_are_forgotten_once_there_is_one_of_this() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.redb")).unwrap().0;
        store.keep_changes(of("blue", &[b"one".to_vec()])).unwrap();
        assert_eq!(store.changes("green").unwrap(), None);
        store.keep_changes(of("green", &[b"two".to_vec()])).unwrap();
        assert_eq!(store.changes("green").unwrap(), Some(vec![b"two".to_vec()]));
        assert_eq!(store.changes("blue").unwrap(), None);
    }
}
