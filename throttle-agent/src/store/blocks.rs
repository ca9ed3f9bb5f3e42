//! Timed blocks: those that commands add, beside those that stand in the policy document.
//!
//! A command adds up to 100 000 blocks that have their end, reason and author in common. So those are written once, as
//! a *note*, and a block is its prefix and the number of its note: 18 bytes for an IPv4 address.

use super::{Store, error::StoreError, record};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const NAME: &str = "blocks";
/// By family, address and length, so that the order is the one of prefixes.
const BLOCKS: TableDefinition<&[u8], &[u8]> = TableDefinition::new(NAME);
const NOTES_NAME: &str = "block notes";
/// By number, from 1 on.
const NOTES: TableDefinition<u32, &[u8]> = TableDefinition::new(NOTES_NAME);

/// A source or prefix that is refused until a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Who is refused.
    pub prefix: IpNet,
    /// Until when; none for as long as it is not removed.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// Who added it.
    pub author: String,
    /// When it was added.
    pub added: Timestamp,
}

/// What blocks have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Note {
    until: Option<Timestamp>,
    reason: String,
    author: String,
    added: Timestamp,
}

/// A note in the table.
#[derive(Debug, Serialize, Deserialize)]
struct Held {
    note: Note,
    /// How many blocks refer to it; without any it goes.
    blocks: u64,
}

impl Store {
    /// Every block, expired ones included, in the order of their prefixes.
    pub fn blocks(&self) -> Result<Vec<Block>, StoreError> {
        self.read(|transaction| {
            let notes = notes(&transaction.open_table(NOTES)?)?;
            let mut blocks = Vec::new();
            for entry in transaction.open_table(BLOCKS)?.iter()? {
                let (key, sealed) = entry?;
                let prefix = prefix(key.value()).ok_or_else(|| record::damaged(NAME, key.value()))?;
                let number = number(key.value(), sealed.value())?;
                let held = notes.get(&number).ok_or_else(|| record::damaged(NOTES_NAME, &number.to_be_bytes()))?;
                let Note { until, reason, author, added } = held.note.clone();
                blocks.push(Block { prefix, until, reason, author, added });
            }
            Ok(blocks)
        })
    }

    /// Adds all of `blocks` or none; a prefix that is blocked already takes the new end and reason.
    pub fn add_blocks(&self, blocks: &[Block]) -> Result<(), StoreError> {
        self.write(|transaction| insert(transaction, blocks))
    }

    /// Removes the blocks of exactly these prefixes, and tells how many there were.
    pub fn remove_blocks(&self, prefixes: &[IpNet]) -> Result<usize, StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(BLOCKS)?;
            let (mut removed, mut left) = (0, BTreeMap::new());
            for key in prefixes.iter().copied().map(key) {
                if let Some(old) = table.remove(key.as_slice())? {
                    *left.entry(number(&key, old.value())?).or_default() += 1;
                    removed += 1;
                }
            }
            forget(&mut transaction.open_table(NOTES)?, left)?;
            Ok(removed)
        })
    }

    /// Removes the blocks whose time has come, and names them.
    pub fn purge(&self, now: Timestamp) -> Result<Vec<IpNet>, StoreError> {
        let expired = |block: &Block| block.until.is_some_and(|until| until <= now);
        let gone: Vec<_> = self.blocks()?.iter().filter(|block| expired(block)).map(|block| block.prefix).collect();
        if !gone.is_empty() {
            self.remove_blocks(&gone)?;
        }
        Ok(gone)
    }
}

/// Adds all of `blocks`.
pub(super) fn insert(transaction: &WriteTransaction, blocks: &[Block]) -> Result<(), StoreError> {
    let mut common: BTreeMap<Note, Vec<IpNet>> = BTreeMap::new();
    for Block { prefix, until, reason, author, added } in blocks {
        let note = Note { until: *until, reason: reason.clone(), author: author.clone(), added: *added };
        common.entry(note).or_default().push(*prefix);
    }
    let mut table = transaction.open_table(BLOCKS)?;
    let mut notes = transaction.open_table(NOTES)?;
    let mut left = BTreeMap::new();
    for (note, prefixes) in common {
        let new = notes.last()?.map_or(0, |(number, _)| number.value()) + 1;
        let mut blocks = 0;
        for key in prefixes.into_iter().map(key) {
            let value = record::seal_small(NAME, &key, &new.to_be_bytes());
            match table.insert(key.as_slice(), value.as_slice())? {
                Some(old) => match number(&key, old.value())? {
                    // Named twice in one command.
                    old if old == new => {}
                    old => {
                        *left.entry(old).or_default() += 1;
                        blocks += 1;
                    }
                },
                None => blocks += 1,
            }
        }
        keep(&mut notes, new, &Held { note, blocks })?;
    }
    forget(&mut notes, left)
}

pub(super) fn prepare(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(BLOCKS)?;
    transaction.open_table(NOTES)?;
    Ok(())
}

/// Checks every record, and that the tables agree with each other.
pub(super) fn verify(transaction: &ReadTransaction) -> Result<(), StoreError> {
    let mut left: BTreeMap<u32, u64> =
        notes(&transaction.open_table(NOTES)?)?.into_iter().map(|(number, held)| (number, held.blocks)).collect();
    for entry in transaction.open_table(BLOCKS)?.iter()? {
        let (key, sealed) = entry?;
        let number = number(key.value(), sealed.value())?;
        let left = left.get_mut(&number).filter(|left| **left > 0);
        *left.ok_or_else(|| record::damaged(NOTES_NAME, &number.to_be_bytes()))? -= 1;
    }
    match left.into_iter().find(|&(_, left)| left > 0) {
        Some((number, _)) => Err(record::damaged(NOTES_NAME, &number.to_be_bytes())),
        None => Ok(()),
    }
}

fn notes(table: &impl ReadableTable<u32, &'static [u8]>) -> Result<BTreeMap<u32, Held>, StoreError> {
    let mut notes = BTreeMap::new();
    for entry in table.iter()? {
        let (number, sealed) = entry?;
        let number = number.value();
        notes.insert(number, record::open(NOTES_NAME, &number.to_be_bytes(), sealed.value())?);
    }
    Ok(notes)
}

fn keep(notes: &mut Table<'_, u32, &'static [u8]>, number: u32, held: &Held) -> Result<(), StoreError> {
    notes.insert(number, record::seal(NOTES_NAME, &number.to_be_bytes(), held).as_slice())?;
    Ok(())
}

/// Takes blocks off notes that they referred to.
fn forget(notes: &mut Table<'_, u32, &'static [u8]>, left: BTreeMap<u32, u64>) -> Result<(), StoreError> {
    for (number, gone) in left {
        let missing = || record::damaged(NOTES_NAME, &number.to_be_bytes());
        let sealed = notes.remove(number)?.ok_or_else(missing)?.value().to_vec();
        let mut held: Held = record::open(NOTES_NAME, &number.to_be_bytes(), &sealed)?;
        held.blocks = held.blocks.checked_sub(gone).ok_or_else(missing)?;
        if held.blocks > 0 {
            keep(notes, number, &held)?;
        }
    }
    Ok(())
}

/// The number of a block's note.
fn number(key: &[u8], sealed: &[u8]) -> Result<u32, StoreError> {
    let body = record::open_small(NAME, key, sealed)?;
    body.try_into().map(u32::from_be_bytes).map_err(|_| record::damaged(NAME, key))
}

pub(super) fn key(prefix: IpNet) -> Vec<u8> {
    let (family, address) = match prefix.trunc() {
        IpNet::V4(net) => (4, net.network().octets().to_vec()),
        IpNet::V6(net) => (6, net.network().octets().to_vec()),
    };
    [&[family], address.as_slice(), &[prefix.prefix_len()]].concat()
}

pub(super) fn prefix(key: &[u8]) -> Option<IpNet> {
    match key {
        [4, address @ .., length] => {
            Some(Ipv4Net::new(<[u8; 4]>::try_from(address).ok()?.into(), *length).ok()?.into())
        }
        [6, address @ .., length] => {
            Some(Ipv6Net::new(<[u8; 16]>::try_from(address).ok()?.into(), *length).ok()?.into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_were_written_and_sort_as_prefixes_do() {
        let mut prefixes: Vec<IpNet> =
            ["2001:db8::/32", "10.0.0.0/8", "10.0.0.0/24", "::/0", "9.255.0.1/32"].map(|it| it.parse().unwrap()).into();
        prefixes.sort_unstable_by_key(|prefix| key(*prefix));
        let read: Vec<_> = prefixes.iter().map(|it| prefix(&key(*it)).unwrap()).collect();
        assert_eq!(read, prefixes);
        assert!(prefixes.is_sorted());
    }
}
