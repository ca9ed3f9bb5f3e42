//! The breakers that an operator holds, which the next agent goes on to hold.

use super::{Store, error::StoreError, listed::listed};
use redb::ReadTransaction;
use serde::{Deserialize, Serialize};

const KEY: &str = "breakers";

/// A breaker that an operator holds, whatever is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBreaker {
    /// Of which service.
    pub service: String,
    /// Of which of its backends; that of the service itself where it is none's.
    pub backend: Option<String>,
    /// Whether it is held open, so that no new connection passes, or closed.
    pub open: bool,
    /// Who holds it.
    pub author: String,
}

impl Store {
    /// All of them.
    pub fn breakers(&self) -> Result<Vec<HeldBreaker>, StoreError> {
        self.listed(KEY)
    }

    /// Keeps these and no others.
    pub fn set_breakers(&self, breakers: &[HeldBreaker]) -> Result<(), StoreError> {
        self.set_listed(KEY, breakers)
    }
}

/// Checks the record.
pub(super) fn verify(transaction: &ReadTransaction) -> Result<(), StoreError> {
    listed::<HeldBreaker>(transaction, KEY).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_agent_finds_what_is_held() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Store::open(&directory.path().join("store.redb")).unwrap().0;
        assert_eq!(open().breakers().unwrap(), []);
        let held = |backend: Option<&str>| HeldBreaker {
            service: "web".to_owned(),
            backend: backend.map(str::to_owned),
            open: true,
            author: "root".to_owned(),
        };
        open().set_breakers(&[held(None), held(Some("web-1"))]).unwrap();
        assert_eq!(open().breakers().unwrap(), [held(None), held(Some("web-1"))]);
        open().set_breakers(&[]).unwrap();
        assert_eq!(open().breakers().unwrap(), []);
    }
}
