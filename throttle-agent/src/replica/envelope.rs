//! What is sent of a change: the change, with the seal of one who has a key of the stamp.
//!
//! ```text
//! magic 3 | schema 1 | number of the key 8 | HMAC-SHA256 of all the rest 32 | change
//! ```
//!
//! Whoever sends a change on seals it anew, with the key that seals at that time, because it was opened under one before:
//! that keys are replaced costs no change its seal.

use ring::hmac;

use crate::stamp::{Key, Keys};

/// What an envelope begins with.
const MAGIC: [u8; 3] = *b"TGC";
/// How changes are written; the fourth byte.
pub const SCHEMA: u8 = 1;
const NUMBER: usize = 8;
const SEAL: usize = 32;
const HEAD: usize = MAGIC.len() + 1 + NUMBER;
/// Bytes of a change, at most: room for a policy of 100 000 prefixes.
pub const LONGEST: usize = 16 << 20;

/// Why an envelope is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It is no envelope, or holds no change.
    Malformed,
    /// It is written in a way that this build does not know.
    UnknownSchema,
    /// It has the seal of a key that this host has not, or of another stamp.
    Unsigned,
    /// It claims a key that it was not sealed with, or was changed on its way.
    Forged,
    /// Its maker has made another change in its place.
    Forked,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Malformed, Self::UnknownSchema, Self::Unsigned, Self::Forged, Self::Forked];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownSchema => "unknown-schema",
            Self::Unsigned => "unsigned",
            Self::Forged => "forged",
            Self::Forked => "forked",
        }
    }
}

/// Seals a change.
pub fn seal(key: &Key, stamp: &str, change: &[u8]) -> Vec<u8> {
    let mut envelope = Vec::with_capacity(HEAD + SEAL + change.len());
    envelope.extend(MAGIC);
    envelope.push(SCHEMA);
    envelope.extend(key.number(stamp));
    let seal = tag(key, stamp, &envelope, change);
    envelope.extend(seal.as_ref());
    envelope.extend(change);
    envelope
}

/// The change in an envelope that one of these keys has sealed.
pub fn open<'e>(keys: &Keys, stamp: &str, envelope: &'e [u8]) -> Result<&'e [u8], Refusal> {
    let (head, rest) = envelope.split_at_checked(HEAD).ok_or(Refusal::Malformed)?;
    let (seal, change) = rest.split_at_checked(SEAL).ok_or(Refusal::Malformed)?;
    if head[..MAGIC.len()] != MAGIC || change.len() > LONGEST {
        return Err(Refusal::Malformed);
    }
    if head[MAGIC.len()] != SCHEMA {
        return Err(Refusal::UnknownSchema);
    }
    let number = &head[MAGIC.len() + 1..];
    let key = keys.all().iter().find(|key| key.number(stamp)[..] == *number).ok_or(Refusal::Unsigned)?;
    let sealed = hmac::verify(&of(key, stamp), &[head, change].concat(), seal);
    sealed.map(|()| change).map_err(|_| Refusal::Forged)
}

fn tag(key: &Key, stamp: &str, head: &[u8], change: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&of(key, stamp));
    context.update(head);
    context.update(change);
    context.sign()
}

fn of(key: &Key, stamp: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &key.derived("policy change", stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_opens_for_a_stamp_that_has_the_key_and_for_no_other() {
        let (key, other) = (Key::of(1), Key::of(2));
        let sealed = seal(&key, "blue", b"a change");
        let keys = Keys::one(other.clone()).with(key.clone()).unwrap();
        assert_eq!(open(&keys, "blue", &sealed), Ok(&b"a change"[..]));
        assert_eq!(open(&Keys::one(other), "blue", &sealed), Err(Refusal::Unsigned));
        assert_eq!(open(&keys, "green", &sealed), Err(Refusal::Unsigned));
    }

    #[test]
    fn whatever_byte_is_changed_or_missing_nothing_opens() {
        let keys = Keys::one(Key::of(1));
        let sealed = seal(keys.sealing(), "blue", b"a change");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 0x20;
            let why = open(&keys, "blue", &changed).unwrap_err();
            let expected = match at {
                0..3 => Refusal::Malformed,
                3 => Refusal::UnknownSchema,
                4..12 => Refusal::Unsigned,
                _ => Refusal::Forged,
            };
            assert_eq!(why, expected, "byte {at}");
            assert!(open(&keys, "blue", &sealed[..at]).is_err(), "{at} bytes");
        }
    }
}
