//! Datagrams that only who has the key can write or read: ChaCha20-Poly1305, each under a key of its own.
//!
//! ```text
//! magic 4 | number of the group key 8 | salt 16 | sender's session 16 | number 8 | sealed text | tag 16
//! ```
//!
//! The key of a datagram is derived (HKDF-SHA256, RFC 5869) from the group key with the salt, the stamp and the session. The
//! session is derived from the host's name, its boot and random bytes of the start, and the salt is drawn for each datagram:
//! neither a restart nor a clone of a running machine, which goes on counting where the other does, uses a nonce twice. What
//! stands before the text is authenticated with it.

use std::fmt;

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
};

use super::key::{Key, Keys, digest, hex};

/// What a datagram begins with; the last byte is the version of this format.
const MAGIC: [u8; 4] = *b"TGS\x01";
const SALT: usize = 16;
const HEAD: usize = MAGIC.len() + 8 + SALT + 16 + 8;
const TAG: usize = 16;
/// Bytes that sealing adds.
pub(super) const SEAL: usize = HEAD + TAG;
/// What keys are derived for.
const PURPOSE: &[u8] = b"throttle stamp gossip 1";

/// One run of an agent on a host.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Session([u8; 16]);

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..4]))
    }
}

impl Session {
    /// Nobody's: what a datagram is addressed to while the other's is not known.
    pub(super) const UNKNOWN: Self = Self([0; 16]);

    /// That of a host in a boot, made different from all others by random bytes.
    pub(super) fn new(host: &str, boot: &str, random: [u8; 16]) -> Self {
        let parts = [digest(&[host.as_bytes()]), digest(&[boot.as_bytes()])];
        let digest = digest(&[b"throttle stamp session", &parts[0], &parts[1], &random]);
        Self(digest[..16].try_into().expect("16 bytes are 16"))
    }

    pub(super) fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub(super) fn read(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// Why a datagram is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    /// It is no datagram of this format.
    Malformed,
    /// It is sealed with a key that this host has not, or for another stamp.
    UnknownKey,
    /// It claims a key that it was not sealed with, or was changed on its way.
    Forged,
    /// It has come before.
    Replayed,
    /// It was sealed rightly for nobody, or for an earlier run of this agent: it may be a recording.
    Unaddressed,
}

impl Refusal {
    /// All of them.
    pub(super) const ALL: [Self; 5] =
        [Self::UnknownKey, Self::Forged, Self::Replayed, Self::Malformed, Self::Unaddressed];

    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown-key",
            Self::Forged => "forged",
            Self::Replayed => "replayed",
            Self::Unaddressed => "unaddressed",
        }
    }
}

/// A datagram that was opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened<'d> {
    pub(super) sender: Session,
    pub(super) number: u64,
    pub(super) text: &'d [u8],
}

/// Seals a text as the datagram of this number in a session. The salt must be random.
pub(super) fn seal(
    key: &Key,
    stamp: &str,
    (session, number): (Session, u64),
    salt: [u8; SALT],
    text: &[u8],
) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(SEAL + text.len());
    datagram.extend(MAGIC);
    datagram.extend(key.number(stamp));
    datagram.extend(salt);
    datagram.extend(session.bytes());
    datagram.extend(number.to_be_bytes());
    let head: [u8; HEAD] = datagram[..].try_into().expect("the head has its length");
    datagram.extend(text);
    let tag = derived(key, stamp, session, &salt)
        .seal_in_place_separate_tag(nonce(number), Aad::from(head), &mut datagram[HEAD..])
        .expect("a datagram is shorter than what may be sealed");
    datagram.extend(tag.as_ref());
    datagram
}

/// Opens a datagram in place with the key that it names.
pub(super) fn open<'d>(keys: &Keys, stamp: &str, datagram: &'d mut [u8]) -> Result<Opened<'d>, Refusal> {
    if datagram.len() < SEAL || datagram[..4] != MAGIC {
        return Err(Refusal::Malformed);
    }
    let (head, sealed) = datagram.split_at_mut(HEAD);
    let number: [u8; 8] = head[4..12].try_into().expect("eight bytes are eight");
    let salt: [u8; SALT] = head[12..28].try_into().expect("16 bytes are 16");
    let sender = Session(head[28..44].try_into().expect("16 bytes are 16"));
    let counted = u64::from_be_bytes(head[44..52].try_into().expect("eight bytes are eight"));
    let key = keys.all().iter().find(|key| key.number(stamp) == number).ok_or(Refusal::UnknownKey)?;
    let opened = derived(key, stamp, sender, &salt).open_in_place(nonce(counted), Aad::from(&*head), sealed);
    let text = opened.map_err(|_| Refusal::Forged)?;
    Ok(Opened { sender, number: counted, text })
}

fn derived(key: &Key, stamp: &str, session: Session, salt: &[u8; SALT]) -> LessSafeKey {
    let prk = Salt::new(HKDF_SHA256, salt).extract(key.secret());
    let info = [PURPOSE, session.bytes(), stamp.as_bytes()];
    let derived = prk.expand(&info, &CHACHA20_POLY1305).expect("a key is shorter than what may be derived");
    LessSafeKey::new(UnboundKey::from(derived))
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const SESSION: Session = Session([3; 16]);

    fn keys() -> Keys {
        Keys::one(Key::of(1)).with(Key::of(2)).unwrap()
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_with_each_key_of_the_ring(
            which in 0..2_usize, number in any::<u64>(), salt in any::<[u8; 16]>(), text in vec(any::<u8>(), 0..2000)
        ) {
            let mut datagram = seal(&keys().all()[which], "blue", (SESSION, number), salt, &text);
            prop_assert_eq!(datagram.len(), SEAL + text.len());
            let opened = open(&keys(), "blue", &mut datagram);
            prop_assert_eq!(opened, Ok(Opened { sender: SESSION, number, text: &text }));
        }

        #[test]
        fn a_datagram_in_which_one_bit_differs_does_not_open(
            salt in any::<[u8; 16]>(), text in vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8_u32
        ) {
            let mut datagram = seal(&Key::of(1), "blue", (SESSION, 7), salt, &text);
            let at = at.index(datagram.len());
            datagram[at] ^= 1_u8 << bit;
            let refusal = open(&keys(), "blue", &mut datagram).unwrap_err();
            let expected = match at {
                0..4 => Refusal::Malformed,
                4..12 => Refusal::UnknownKey,
                _ => Refusal::Forged,
            };
            prop_assert_eq!(refusal, expected);
        }

        #[test]
        fn what_is_cut_short_or_made_up_does_not_open(garbage in vec(any::<u8>(), 0..300), cut in 0..120_usize) {
            prop_assert!(open(&keys(), "blue", &mut garbage.clone()).is_err());
            let mut named = [&MAGIC[..], &Key::of(1).number("blue"), &garbage].concat();
            prop_assert!(open(&keys(), "blue", &mut named).is_err());
            let mut datagram = seal(&Key::of(1), "blue", (SESSION, 7), [9; 16], b"a text of some length");
            let left = datagram.len().saturating_sub(cut + 1);
            prop_assert!(open(&keys(), "blue", &mut datagram[..left]).is_err());
        }
    }

    #[test]
    fn another_key_and_another_stamp_are_not_known() {
        let sealed = seal(&Key::of(9), "blue", (SESSION, 7), [0; 16], b"text");
        assert_eq!(open(&keys(), "blue", &mut sealed.clone()), Err(Refusal::UnknownKey));
        let sealed = seal(&Key::of(1), "green", (SESSION, 7), [0; 16], b"text");
        assert_eq!(open(&keys(), "blue", &mut sealed.clone()), Err(Refusal::UnknownKey));
    }

    /// A clone has the session and the number of its original, and draws another salt.
    #[test]
    fn no_two_datagrams_are_sealed_with_the_same_stream() {
        let zeros = [0; 64];
        let stream = |session, number, salt| {
            seal(&Key::of(1), "blue", (session, number), salt, &zeros)[HEAD..HEAD + zeros.len()].to_vec()
        };
        let first = stream(SESSION, 7, [0; 16]);
        assert_ne!(first, stream(SESSION, 8, [0; 16]), "the next one");
        assert_ne!(first, stream(SESSION, 7, [1; 16]), "a clone's");
        assert_ne!(first, stream(Session([4; 16]), 7, [0; 16]), "after a restart");
    }

    #[test]
    fn a_session_differs_by_host_by_boot_and_by_start() {
        let all = [
            Session::new("a", "boot", [0; 16]),
            Session::new("b", "boot", [0; 16]),
            Session::new("ab", "oot", [0; 16]),
            Session::new("a", "later", [0; 16]),
            Session::new("a", "boot", [1; 16]),
        ];
        assert!((1..all.len()).all(|n| !all[..n].contains(&all[n])), "{all:?}");
    }
}
