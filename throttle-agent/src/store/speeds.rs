//! The speeds that were set by hand, which the next agent goes on with.

use super::{Moment, Store, error::StoreError, listed::listed};
use redb::ReadTransaction;
use serde::{Deserialize, Serialize};
use std::time::Duration;

const KEY: &str = "speeds";

/// How fast somebody has set a health clock to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSpeed {
    /// Whose clock: a service's, or the host's where there is none.
    pub service: Option<String>,
    /// In parts of 2^16 of real time.
    pub parts: u64,
    /// When it was set.
    pub since: Moment,
    /// For how long; without an end where there is none.
    pub lasts: Option<Duration>,
    /// Who set it.
    pub author: String,
}

impl SetSpeed {
    /// How long it still lasts; `None` where it has no end. One that has an end is over after another boot.
    pub fn remaining(&self, now: &Moment) -> Option<Duration> {
        self.lasts.map(|lasts| match now.after.checked_sub(self.since.after) {
            Some(passed) if now.boot == self.since.boot => lasts.saturating_sub(passed),
            _ => Duration::ZERO,
        })
    }
}

impl Store {
    /// All of them.
    pub fn speeds(&self) -> Result<Vec<SetSpeed>, StoreError> {
        self.listed(KEY)
    }

    /// Keeps these and no others.
    pub fn set_speeds(&self, speeds: &[SetSpeed]) -> Result<(), StoreError> {
        self.set_listed(KEY, speeds)
    }
}

/// Checks the record.
pub(super) fn verify(transaction: &ReadTransaction) -> Result<(), StoreError> {
    listed::<SetSpeed>(transaction, KEY).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(boot: &str, seconds: u64) -> Moment {
        Moment { boot: boot.to_owned(), after: Duration::from_secs(seconds) }
    }

    fn speed(lasts: Option<u64>) -> SetSpeed {
        SetSpeed {
            service: Some("web".to_owned()),
            parts: 1 << 15,
            since: moment("a", 100),
            lasts: lasts.map(Duration::from_secs),
            author: "root".to_owned(),
        }
    }

    #[test]
    fn a_speed_lasts_as_long_as_was_said_and_no_longer_after_another_boot() {
        let remaining = |now| speed(Some(30)).remaining(&now).map(|rest| rest.as_secs());
        let moments = [moment("a", 100), moment("a", 129), moment("a", 999), moment("a", 99), moment("b", 101)];
        assert_eq!(moments.map(remaining), [Some(30), Some(1), Some(0), Some(0), Some(0)]);
        assert_eq!(speed(None).remaining(&moment("b", 1)), None, "one without an end has none");
    }

    #[test]
    fn the_next_agent_finds_what_was_set() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Store::open(&directory.path().join("store.redb")).unwrap().0;
        assert_eq!(open().speeds().unwrap(), []);
        open().set_speeds(&[speed(Some(30)), speed(None)]).unwrap();
        assert_eq!(open().speeds().unwrap(), [speed(Some(30)), speed(None)]);
        open().set_speeds(&[]).unwrap();
        assert_eq!(open().speeds().unwrap(), []);
    }
}
