//! Who made a change, and why: it goes with the change.

use automerge::{Change, ChangeMetadata};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Bytes of each text, at most.
const LONGEST: usize = 256;

/// Who made a change, when and why. Its maker says so: nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The host that took it.
    pub host: String,
    /// Who asked for it there.
    pub author: String,
    /// Why.
    pub message: String,
    /// When, by that host's clock.
    pub at: Timestamp,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Said {
    host: String,
    author: String,
    message: String,
}

impl Label {
    pub(super) fn to_message(&self) -> String {
        let Self { host, author, message, .. } = self;
        let said = Said { host: short(host), author: short(author), message: short(message) };
        serde_json::to_string(&said).expect("texts are text")
    }

    pub(super) fn of(change: &Change) -> Self {
        Self::read(change.message(), change.timestamp())
    }

    pub(super) fn of_metadata(change: &ChangeMetadata<'_>) -> Self {
        Self::read(change.message.as_deref(), change.timestamp)
    }

    fn read(message: Option<&str>, at: i64) -> Self {
        let Said { host, author, message } =
            message.and_then(|said| serde_json::from_str(said).ok()).unwrap_or_default();
        let at = Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { host: short(&host), author: short(&author), message: short(&message), at }
    }
}

/// As much of a text as is kept, and nothing of it that moves a terminal's cursor.
fn short(text: &str) -> String {
    let mut short: String = text.chars().filter(|letter| !letter.is_control()).collect();
    short.truncate(short.floor_char_boundary(LONGEST));
    short
}
