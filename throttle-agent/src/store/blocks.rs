//! Timed blocks: those that commands add, beside those that stand in the policy document.

use super::{Store, error::StoreError, record};
use ipnet::IpNet;
use jiff::Timestamp;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

const NAME: &str = "blocks";
/// By family, address and length, so that the order is the one of prefixes.
const BLOCKS: TableDefinition<[u8; KEY], &[u8]> = TableDefinition::new(NAME);
const KEY: usize = 18;

/// A source or prefix that is refused until a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl Store {
    /// Every block, expired ones included, in the order of their prefixes.
    pub fn blocks(&self) -> Result<Vec<Block>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(BLOCKS)?;
            let mut blocks = Vec::new();
            for entry in table.iter()? {
                let (key, sealed) = entry?;
                blocks.push(record::open(NAME, &key.value(), sealed.value())?);
            }
            Ok(blocks)
        })
    }

    /// Adds all of `blocks` or none; a prefix that is blocked already takes the new end and reason.
    pub fn add_blocks(&self, blocks: &[Block]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(BLOCKS)?;
            for block in blocks {
                let key = key(block.prefix);
                table.insert(key, record::seal(NAME, &key, block).as_slice())?;
            }
            Ok(())
        })
    }

    /// Removes the blocks of exactly these prefixes, and tells how many there were.
    pub fn remove_blocks(&self, prefixes: &[IpNet]) -> Result<usize, StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(BLOCKS)?;
            let mut removed = 0;
            for &prefix in prefixes {
                removed += usize::from(table.remove(key(prefix))?.is_some());
            }
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

pub(super) fn prepare(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(BLOCKS)?;
    Ok(())
}

pub(super) fn verify(transaction: &ReadTransaction) -> Result<(), StoreError> {
    for entry in transaction.open_table(BLOCKS)?.iter()? {
        let (key, sealed) = entry?;
        record::verify(NAME, &key.value(), sealed.value())?;
    }
    Ok(())
}

fn key(prefix: IpNet) -> [u8; KEY] {
    let mut key = [0; KEY];
    let net = prefix.trunc();
    match net.addr() {
        IpAddr::V4(address) => {
            key[0] = 4;
            key[1..5].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            key[0] = 6;
            key[1..17].copy_from_slice(&address.octets());
        }
    }
    key[17] = net.prefix_len();
    key
}
