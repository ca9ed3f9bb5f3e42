//! Since when backends and breakers are as they are, and why, from which the next agent goes on.

use std::net::SocketAddr;

use super::{Store, error::StoreError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const KEY: &str = "standings";

/// How something was when it was last watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Of which service.
    pub service: String,
    /// Of which of its backends, and where that is; of the service itself where it is none's.
    pub backend: Option<(String, SocketAddr)>,
    /// Of what, as the API names it: `backend` or `breaker`.
    pub kind: String,
    /// What it is, in the same way.
    pub state: String,
    /// Since when.
    pub since: Timestamp,
    /// Why, in words.
    pub why: String,
}

impl Store {
    /// All of them.
    pub fn standings(&self) -> Result<Vec<Standing>, StoreError> {
        self.listed(KEY)
    }

    /// Keeps these and no others.
    pub fn set_standings(&self, standings: &[Standing]) -> Result<(), StoreError> {
        self.set_listed(KEY, standings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_agent_finds_since_when_and_why() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Store::open(&directory.path().join("store.redb")).unwrap().0;
        assert_eq!(open().standings().unwrap(), []);
        let dead = Standing {
            service: "web".to_owned(),
            backend: Some(("web-1".to_owned(), "[2001:db8::1]:80".parse().unwrap())),
            kind: "backend".to_owned(),
            state: "dead".to_owned(),
            since: Timestamp::UNIX_EPOCH,
            why: "it refuses connections".to_owned(),
        };
        open().set_standings(std::slice::from_ref(&dead)).unwrap();
        assert_eq!(open().standings().unwrap(), [dead]);
    }
}
