//! What others were told of health and is not over, from which the next agent goes on.

use std::net::SocketAddr;

use super::{Store, error::StoreError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const KEY: &str = "alerts";

/// Something that is not well, as others were told it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Of which service.
    pub service: String,
    /// Of which of its backends, and where that is; of the service itself where it is none's.
    pub backend: Option<(String, SocketAddr)>,
    /// Of what, as the API names it: `backend`, `breaker`, `doubt` or `scale-out`.
    pub kind: String,
    /// What it is, in the same way.
    pub to: String,
    /// When they were told; of what was kept without that, now.
    #[serde(default = "Timestamp::now")]
    pub at: Timestamp,
}

impl Store {
    /// All of them.
    pub fn alerts(&self) -> Result<Vec<Alert>, StoreError> {
        self.listed(KEY)
    }

    /// Keeps these and no others.
    pub fn set_alerts(&self, alerts: &[Alert]) -> Result<(), StoreError> {
        self.set_listed(KEY, alerts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{policy::Document, store::file::STATE};

    #[test]
    fn the_next_agent_finds_what_was_told() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Store::open(&directory.path().join("store.redb")).unwrap().0;
        assert_eq!(open().alerts().unwrap(), []);
        let alert = |backend: Option<&str>| Alert {
            service: "web".to_owned(),
            backend: backend.map(|name| (name.to_owned(), "[2001:db8::1]:80".parse().unwrap())),
            kind: "breaker".to_owned(),
            to: "open".to_owned(),
            at: Timestamp::UNIX_EPOCH,
        };
        open().set_alerts(&[alert(None), alert(Some("web-1"))]).unwrap();
        assert_eq!(open().alerts().unwrap(), [alert(None), alert(Some("web-1"))]);
        open().set_alerts(&[]).unwrap();
        assert_eq!(open().alerts().unwrap(), []);
    }

    #[test]
    fn a_record_that_cannot_be_read_costs_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Store::open(&directory.path().join("store.redb")).unwrap();
        let (store, _) = open();
        store.append(&Document::default(), "root", "first", Timestamp::UNIX_EPOCH).unwrap();
        store
            .write(|transaction| {
                transaction.open_table(STATE)?.insert(KEY, &b"no record at all, whatever follows it"[..])?;
                Ok(())
            })
            .unwrap();
        drop(store);
        let (store, notes) = open();
        assert_eq!(notes, []);
        assert!(matches!(store.alerts(), Err(StoreError::Damaged { .. })));
        assert_eq!(store.current().unwrap().map(|it| it.info.revision), Some(1));
        store.set_alerts(&[]).unwrap();
        assert_eq!(store.alerts().unwrap(), [], "it is written anew");
    }
}
