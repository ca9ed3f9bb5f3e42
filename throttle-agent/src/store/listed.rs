//! Lists in the table of the state, each of them one record.

use super::{Store, error::StoreError, file::STATE, record};
use redb::ReadTransaction;
use serde::{Serialize, de::DeserializeOwned};

impl Store {
    /// What a list has.
    pub(super) fn listed<T: DeserializeOwned>(&self, key: &str) -> Result<Vec<T>, StoreError> {
        self.read(|transaction| listed(transaction, key))
    }

    /// Has it have these and no others.
    pub(super) fn set_listed<T: Serialize>(&self, key: &str, all: &[T]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let sealed = record::seal("state", key.as_bytes(), &all);
            transaction.open_table(STATE)?.insert(key, sealed.as_slice())?;
            Ok(())
        })
    }
}

pub(super) fn listed<T: DeserializeOwned>(transaction: &ReadTransaction, key: &str) -> Result<Vec<T>, StoreError> {
    let state = transaction.open_table(STATE)?;
    let sealed = state.get(key)?;
    sealed.map_or(Ok(Vec::new()), |sealed| record::open("state", key.as_bytes(), sealed.value()))
}
