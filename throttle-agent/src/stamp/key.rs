//! The keys of a stamp, and the file that lists them: the first seals, all open.

use std::fmt;

use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};

/// Bytes of a key.
pub(super) const BYTES: usize = 32;
/// Keys of a file, at most: one in use, one on its way in, and room for a mistake.
const MOST_KEYS: usize = 4;

/// A key that every host of a stamp has.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; BYTES]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.name())
    }
}

impl Key {
    /// One that nobody has had before.
    pub fn random() -> anyhow::Result<Self> {
        let mut bytes = [0; BYTES];
        let filled = SystemRandom::new().fill(&mut bytes);
        filled.map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
        Ok(Self(bytes))
    }

    /// What it is called where people read: eight hexadecimal digits, by which nobody finds the key.
    pub fn name(&self) -> String {
        hex(&digest(&[b"throttle stamp key name", &self.0])[..4])
    }

    /// What it is called in a datagram of this stamp: hosts of another stamp do not know it, though they have the key.
    pub(crate) fn number(&self, stamp: &str) -> [u8; 8] {
        digest(&[b"throttle stamp key number", &self.0, stamp.as_bytes()])[..8]
            .try_into()
            .expect("eight bytes are eight")
    }

    /// What this stamp has of it for one purpose: by none of these the key is found, nor another one of them.
    pub(crate) fn derived(&self, purpose: &str, stamp: &str) -> [u8; 32] {
        let purpose = digest(&[b"throttle stamp purpose", purpose.as_bytes()]);
        digest(&[b"throttle stamp key for", &self.0, &purpose, stamp.as_bytes()])
    }

    /// What others are derived from.
    pub(super) fn secret(&self) -> &[u8; BYTES] {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let mut bytes = [0; BYTES];
        if digits.len() != 2 * BYTES {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let digit = |place: usize| char::from(pair[place]).to_digit(16);
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
        }
        Some(Self(bytes))
    }
}

#[cfg(test)]
impl Key {
    pub(crate) const fn of(byte: u8) -> Self {
        Self([byte; BYTES])
    }
}

/// The keys of a file: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// One key.
    pub fn one(key: Key) -> Self {
        Self(vec![key])
    }

    /// Reads a file's text: a key of 64 hexadecimal digits on each line, but for empty ones and those that begin with `#`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = Key::parse(line).ok_or_else(|| format!("line {number} is no key of 64 hexadecimal digits"))?;
            if keys.contains(&key) {
                return Err(format!("line {number} is a key that stands there already"));
            }
            keys.push(key);
        }
        match keys.len() {
            0 => Err("it holds no key".to_owned()),
            1..=MOST_KEYS => Ok(Self(keys)),
            more => Err(format!("it holds {more} keys, and {MOST_KEYS} are the most")),
        }
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let mut text =
            "# Keys of a throttle stamp: the first seals what this host gossips, all of them open what others do.\n\
                        # Whoever has one of them can speak for every host of the stamp.\n"
                .to_owned();
        for key in &self.0 {
            text += &hex(&key.0);
            text.push('\n');
        }
        text
    }

    /// The one that seals.
    pub fn sealing(&self) -> &Key {
        &self.0[0]
    }

    /// All of them, the one that seals first.
    pub fn all(&self) -> &[Key] {
        &self.0
    }

    /// With another one that opens, but does not seal yet.
    pub fn with(&self, key: Key) -> Result<Self, String> {
        if self.0.len() == MOST_KEYS {
            return Err(format!(
                "it holds {MOST_KEYS} keys already, and no more fit; `throttle stamp key retire` first"
            ));
        }
        Ok(Self([&self.0[..], &[key]].concat()))
    }

    /// With the last one sealing, and the others opening.
    pub fn promoted(&self) -> Result<Self, String> {
        let (last, others) = self.0.split_last().expect("there is at least one key");
        if others.is_empty() {
            return Err("it holds one key, which seals already; `throttle stamp key add` first".to_owned());
        }
        Ok(Self([std::slice::from_ref(last), others].concat()))
    }

    /// With the one that seals alone.
    pub fn retired(&self) -> Result<Self, String> {
        if self.0.len() == 1 {
            return Err("it holds one key alone: there is none to retire".to_owned());
        }
        Ok(Self::one(self.0[0].clone()))
    }
}

/// The digest of parts, of which no more than the last may vary in length.
pub(super) fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    digest.finalize().into()
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).expect("four bits are a digit");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of so many keys.
    fn numbered(keys: u8) -> String {
        (1..=keys).map(|byte| hex(&[byte; BYTES]) + "\n").collect()
    }

    #[test]
    fn a_file_says_what_was_written_into_it() {
        let keys = Keys::one(Key::of(1)).with(Key::of(2)).unwrap();
        assert_eq!(Keys::parse(&keys.to_text()).unwrap(), keys);
        assert_eq!(keys.sealing(), &Key::of(1));
        let (one, other) = (Key::random().unwrap(), Key::random().unwrap());
        assert_ne!(one, other);
    }

    #[test]
    fn a_key_is_rotated_in_three_steps() {
        let first = Keys::one(Key::of(1));
        let added = first.with(Key::of(2)).unwrap();
        let promoted = added.promoted().unwrap();
        assert_eq!(promoted.all(), [Key::of(2), Key::of(1)]);
        assert_eq!(promoted.retired().unwrap(), Keys::one(Key::of(2)));
        assert!(first.promoted().unwrap_err().contains("key add"));
        assert!(first.retired().unwrap_err().contains("one key alone"));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_its_line() {
        let key = "0123456789abcdef".repeat(4);
        for (text, told) in [
            (String::new(), "no key"),
            ("# nothing\n\n".to_owned(), "no key"),
            (format!("{key}\nrubbish\n"), "line 2 is no key"),
            (format!("{}\n", &key[1..]), "line 1 is no key"),
            (format!("{key}\n\n{key}\n"), "line 3 is a key that stands there already"),
            (numbered(5), "5 keys"),
        ] {
            assert!(Keys::parse(&text).unwrap_err().contains(told), "{text}");
        }
        let four = Keys::parse(&numbered(4)).unwrap();
        assert!(four.with(Key::of(9)).unwrap_err().contains("retire"));
    }

    #[test]
    fn a_key_is_told_by_a_name_that_does_not_give_it_away_and_differs_in_each_stamp() {
        let key = Key::of(7);
        assert_eq!(key.name().len(), 8);
        assert!(!format!("{key:?}").contains("0707"));
        assert_ne!(key.number("blue"), key.number("green"));
        assert_ne!(key.number("blue"), Key::of(8).number("blue"));
    }
}
