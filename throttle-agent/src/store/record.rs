//! Records: JSON behind a digest of where it belongs and what it says.

use super::error::StoreError;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

/// The version of all tables and records.
pub(super) const FORMAT: u64 = 3;
/// The one before, which a file has as long as all its documents are whole.
pub(super) const WHOLE_FORMAT: u64 = 2;

const DIGEST: usize = 32;
/// Of a record of a few bytes: one flipped file in 2^64 goes unnoticed.
const SMALL_DIGEST: usize = 8;

/// The bytes that go into a table under a key.
pub(super) fn seal<T: Serialize>(table: &str, key: &[u8], value: &T) -> Vec<u8> {
    let body = serde_json::to_vec(value).expect("records have only string keys");
    let mut sealed = digest(table, key, &body).to_vec();
    sealed.extend_from_slice(&body);
    sealed
}

/// The value in bytes that were sealed for this table and key.
pub(super) fn open<T: DeserializeOwned>(table: &str, key: &[u8], sealed: &[u8]) -> Result<T, StoreError> {
    let body = verify(table, key, sealed)?;
    serde_json::from_slice(body).map_err(|_| damaged(table, key))
}

/// The body of a record, if it is the one that was sealed.
pub(super) fn verify<'s>(table: &str, key: &[u8], sealed: &'s [u8]) -> Result<&'s [u8], StoreError> {
    let (seal, body) = sealed.split_at_checked(DIGEST).ok_or_else(|| damaged(table, key))?;
    if digest(table, key, body)[..] == *seal { Ok(body) } else { Err(damaged(table, key)) }
}

/// The same for a few bytes of which there are very many.
pub(super) fn seal_small(table: &str, key: &[u8], body: &[u8]) -> Vec<u8> {
    [&digest(table, key, body)[..SMALL_DIGEST], body].concat()
}

/// The bytes that were sealed by [`seal_small`] for this table and key.
pub(super) fn open_small<'s>(table: &str, key: &[u8], sealed: &'s [u8]) -> Result<&'s [u8], StoreError> {
    let (seal, body) = sealed.split_at_checked(SMALL_DIGEST).ok_or_else(|| damaged(table, key))?;
    if digest(table, key, body)[..SMALL_DIGEST] == *seal { Ok(body) } else { Err(damaged(table, key)) }
}

pub(super) fn damaged(table: &str, key: &[u8]) -> StoreError {
    StoreError::Damaged { record: format!("record {} of {table}", key.escape_ascii()) }
}

fn digest(table: &str, key: &[u8], body: &[u8]) -> [u8; DIGEST] {
    let mut digest = Sha256::new();
    for part in [b"throttle record", table.as_bytes(), key, body] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_only_where_it_belongs_and_as_it_was() {
        let sealed = seal("blocks", b"one", &vec![1, 2, 3]);
        assert_eq!(open::<Vec<u8>>("blocks", b"one", &sealed).unwrap(), [1, 2, 3]);
        assert!(open::<Vec<u8>>("blocks", b"two", &sealed).is_err());
        assert!(open::<Vec<u8>>("block", b"sone", &sealed).is_err());
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open::<Vec<u8>>("blocks", b"one", &flipped).is_err());
        }
    }

    #[test]
    fn a_small_record_opens_only_where_it_belongs_and_as_it_was() {
        let sealed = seal_small("blocks", b"one", b"body");
        assert_eq!(open_small("blocks", b"one", &sealed).unwrap(), b"body");
        assert!(open_small("blocks", b"two", &sealed).is_err());
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open_small("blocks", b"one", &flipped).is_err());
        }
    }
}
