//! The policy as a whole: its text, its revisions, and the way back.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{RegionLoad, Write};
use crate::policy::{Change, Document, units::Span};

/// The longest that a policy may wait for its confirmation.
pub const LONGEST_WAIT: Span = Span::of_seconds(86_400);

/// Which revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PolicyQuery {
    /// Absent for the last.
    pub revision: Option<u64>,
}

/// A revision of the policy. `ETag` is its number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    /// Whose it is and when it came.
    #[serde(flatten)]
    pub revision: RevisionView,
    /// The policy.
    pub document: Document,
    /// The same as TOML.
    pub toml: String,
}

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevisionView {
    /// Its number; they grow by one.
    pub revision: u64,
    /// Who wrote it.
    pub author: String,
    /// Why.
    pub message: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// The revisions that are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// The newest first.
    pub revisions: Vec<RevisionView>,
    /// The one in force; 0 where none is.
    pub current: u64,
    /// Set where the one in force goes back by itself.
    pub pending: Option<Pending>,
}

/// A revision that goes back by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pending {
    /// The one that waits for its confirmation.
    pub revision: u64,
    /// The one that returns without it.
    pub back_to: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub deadline: Timestamp,
}

/// A policy to look at. Exactly one of `document` and `toml`; the positions of diagnostics are those of `toml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    /// As a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Document>,
    /// As text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toml: Option<String>,
}

/// What a sound policy would do. One that is not sound is answered with a [`super::Problem`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckReport {
    /// What deserves a second look.
    pub warnings: Vec<String>,
    /// For each limit its parts of the table and the flood that fills them.
    pub limits: Vec<LimitForecast>,
}

/// A limit that a policy would have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LimitForecast {
    /// Its name.
    pub name: String,
    /// Its parts of the table, as they would be if every bucket were at rest.
    pub regions: Vec<RegionLoad>,
}

/// How a policy differs from the one in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffReport {
    /// The revision in force.
    pub revision: u64,
    /// Every difference; empty where they are the same.
    pub changes: Vec<Change>,
}

/// A policy to put in force, as a whole. With the header `If-Match` it is refused unless that revision is in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// As a model; exactly one of `document` and `toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Document>,
    /// As text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toml: Option<String>,
    /// Whether a text that says nothing is meant so, and takes everything away; else it is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty: bool,
    /// How to write it.
    #[serde(default)]
    pub write: Write,
}

/// A revision to return to; it becomes a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Which; absent for what was in force before that in force now, past all that was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// How to write it.
    #[serde(default)]
    pub write: Write,
}
