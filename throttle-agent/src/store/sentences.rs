//! Who was sentenced how often, which the next agent goes on to remember.
//!
//! Where this is damaged, policy and blocks are not: then nothing is remembered.

use super::{
    Store,
    blocks::{self, Block},
    error::StoreError,
    record,
};
use crate::penalties::{Offender, Sentence};
use redb::{ReadableTable, TableDefinition, TableError};

const NAME: &str = "sentences";
/// By the key of the source's prefix, and the name of the limit. A file of an earlier version has none.
const SENTENCES: TableDefinition<&[u8], &[u8]> = TableDefinition::new(NAME);

impl Store {
    /// All that are remembered.
    pub fn sentences(&self) -> Result<Vec<(Offender, Sentence)>, StoreError> {
        self.read(|transaction| {
            let table = match transaction.open_table(SENTENCES) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut found = Vec::new();
            for entry in table.iter()? {
                let (key, sealed) = entry?;
                let offender = offender(key.value()).ok_or_else(|| record::damaged(NAME, key.value()))?;
                found.push((offender, record::open(NAME, key.value(), sealed.value())?));
            }
            Ok(found)
        })
    }

    /// Remembers these, with the blocks that follow from them, and no longer those; all or nothing.
    pub fn sentence(
        &self,
        new: &[(Offender, Sentence)],
        blocks: &[Block],
        gone: &[Offender],
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            blocks::insert(transaction, blocks)?;
            let mut table = transaction.open_table(SENTENCES)?;
            for key in gone.iter().map(key) {
                table.remove(key.as_slice())?;
            }
            for (offender, sentence) in new {
                let key = key(offender);
                table.insert(key.as_slice(), record::seal(NAME, &key, sentence).as_slice())?;
            }
            Ok(())
        })
    }

    /// Remembers none any more, where they are damaged.
    pub fn forget_sentences(&self) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.delete_table(SENTENCES)?;
            Ok(())
        })
    }
}

fn key(offender: &Offender) -> Vec<u8> {
    let mut key = blocks::key(offender.prefix);
    key.extend_from_slice(offender.limit.as_bytes());
    key
}

fn offender(key: &[u8]) -> Option<Offender> {
    let length = match key.first()? {
        4 => 1 + 4 + 1,
        6 => 1 + 16 + 1,
        _ => return None,
    };
    let (prefix, limit) = key.split_at_checked(length)?;
    Some(Offender { prefix: blocks::prefix(prefix)?, limit: String::from_utf8(limit.to_vec()).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::{SignedDuration, Timestamp};

    #[test]
    fn the_next_agent_remembers_who_was_sentenced_how_often() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Store::open(&directory.path().join("store.redb")).unwrap().0;
        assert_eq!(open().sentences().unwrap(), []);
        let now = Timestamp::UNIX_EPOCH;
        let until = now + SignedDuration::from_secs(60);
        let sentence = Sentence { times: 3, since: now, until, forgotten: until, observed: false };
        let offender = |prefix: &str| Offender { prefix: prefix.parse().unwrap(), limit: "opens".to_owned() };
        let [one, two] = ["192.0.2.7/32", "2001:db8::/64"].map(offender);
        let block = Block {
            prefix: one.prefix,
            until: Some(until),
            reason: sentence.reason("opens"),
            author: "throttle".to_owned(),
            added: now,
        };
        let all = [(one.clone(), sentence), (two.clone(), Sentence { observed: true, ..sentence })];
        open().sentence(&all, std::slice::from_ref(&block), &[]).unwrap();
        assert_eq!(open().sentences().unwrap(), all);
        assert_eq!(open().blocks().unwrap(), [block]);
        open().sentence(&[], &[], &[one]).unwrap();
        assert_eq!(open().sentences().unwrap(), all[1..]);
        open().forget_sentences().unwrap();
        assert_eq!(open().sentences().unwrap(), []);
    }
}
