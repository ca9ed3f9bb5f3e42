//! What hosts of a stamp disagree in, and what they sent that is no change.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// In what the hosts of the stamp disagree. All that know the same changes tell the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Conflicts {
    /// Fields that hosts gave different values at the same time, at most 1000.
    pub conflicts: Vec<ConflictView>,
    /// What is not in force, because together with the rest it is no policy.
    pub set_aside: Vec<SetAsideView>,
}

/// A field that hosts gave different values at the same time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConflictView {
    /// Where, such as `limit web: rate`.
    pub place: String,
    /// The values: the first is in force.
    pub values: Vec<ConflictValue>,
}

/// What one host said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConflictValue {
    /// The value.
    #[schema(value_type = Value)]
    pub value: Value,
    /// The host; empty where it is of the first policy that the stamp had.
    pub host: String,
    /// Who asked for it there.
    pub author: String,
    /// When, by that host's clock.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// Something that is not in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetAsideView {
    /// The entry, such as `limit web`.
    pub entry: String,
    /// The part of it that is not in force; all of it where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// What is wrong, and what would be right.
    pub why: String,
}

/// Which of the values of a field stands, for all hosts of the stamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// The place of the conflict.
    pub place: String,
    /// The host whose value it is.
    pub host: String,
}

/// An entry that is to be removed, for all hosts of the stamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// The entry, such as `limit web`.
    pub entry: String,
}

/// What was settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Settled {
    /// What changes in force.
    pub changes: Vec<String>,
}

/// What hosts of the stamp sent as changes, and that are none: the last 100.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetters {
    /// In the order in which they came.
    pub letters: Vec<DeadLetterView>,
}

/// Something that is no change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterView {
    /// Its name.
    pub id: String,
    /// `malformed`, `unknown-schema` (of a newer agent), `unsigned` (a key that this host has not, or another stamp's),
    /// `forged`, or `forked` (its maker has made another change in its place).
    pub reason: String,
    /// Which host sent it.
    pub from: String,
    /// When it came first.
    #[schema(value_type = String, format = DateTime)]
    pub first: Timestamp,
    /// When it came last.
    #[schema(value_type = String, format = DateTime)]
    pub last: Timestamp,
    /// How often.
    pub times: u64,
    /// How long it is.
    pub bytes: u64,
    /// What was sent, in hexadecimal digits; empty above 16 KiB.
    pub envelope: String,
}

/// Some dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LettersRequest {
    /// Their names; empty for all.
    #[serde(default)]
    pub ids: Vec<String>,
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LettersDone {
    /// How many are dead letters no more.
    pub gone: u64,
    /// How many changes came of them.
    pub changes: u64,
}
