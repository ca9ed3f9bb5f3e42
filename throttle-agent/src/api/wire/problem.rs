//! Refusals as RFC 9457 problem details.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::policy::Diagnostic;

/// Why a request was refused (`application/problem+json`). Nothing changed unless `detail` says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Which kind it is; programs branch on this.
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong this time, and the remedy.
    pub detail: String,
    /// Every fault of a policy that was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

/// The kinds of problems: their `type`, title and HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ProblemKind {
    /// 400: not HTTP, JSON or the query that the route asks for.
    #[serde(rename = "/problems/malformed")]
    Malformed,
    /// 403: the peer is neither root, the agent's user nor in the socket's group; or it sends a heartbeat for a backend that
    /// its certificate does not name.
    #[serde(rename = "/problems/forbidden")]
    Forbidden,
    /// 404: no such path, limit, service, prefix or revision.
    #[serde(rename = "/problems/not-found")]
    NotFound,
    /// 405: the path does not know this method.
    #[serde(rename = "/problems/method-not-allowed")]
    MethodNotAllowed,
    /// 409: the state does not allow it, e.g. a confirmation where nothing waits for one.
    #[serde(rename = "/problems/conflict")]
    Conflict,
    /// 412: another revision is in force than `If-Match` names.
    #[serde(rename = "/problems/other-revision")]
    OtherRevision,
    /// 413: a body beyond the route's bound.
    #[serde(rename = "/problems/too-large")]
    TooLarge,
    /// 415: the body is not `application/json`.
    #[serde(rename = "/problems/not-json")]
    NotJson,
    /// 422: the policy has faults; `diagnostics` names each.
    #[serde(rename = "/problems/policy-refused")]
    PolicyRefused,
    /// 500: the kernel refused; the policy before it is still in force.
    #[serde(rename = "/problems/kernel")]
    Kernel,
    /// 500: the store refused; nothing was written.
    #[serde(rename = "/problems/store")]
    Store,
    /// 503: too many connections.
    #[serde(rename = "/problems/busy")]
    Busy,
    /// 503: the agent is ending or its control loop stands still.
    #[serde(rename = "/problems/unavailable")]
    Unavailable,
}

impl ProblemKind {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict => 409,
            Self::OtherRevision => 412,
            Self::TooLarge => 413,
            Self::NotJson => 415,
            Self::PolicyRefused => 422,
            Self::Kernel | Self::Store => 500,
            Self::Busy | Self::Unavailable => 503,
        }
    }

    /// The kind in words.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The request cannot be read",
            Self::Forbidden => "You may not do this",
            Self::NotFound => "There is no such thing",
            Self::MethodNotAllowed => "The path does not know this method",
            Self::Conflict => "The state does not allow it",
            Self::OtherRevision => "Another revision is in force",
            Self::TooLarge => "The body is too large",
            Self::NotJson => "The body is not JSON",
            Self::PolicyRefused => "The policy is refused",
            Self::Kernel => "The kernel refused",
            Self::Store => "The store refused",
            Self::Busy => "Too many connections",
            Self::Unavailable => "The agent cannot answer now",
        }
    }
}

impl Problem {
    /// A problem of this kind; `detail` says what was wrong this time and what helps.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            diagnostics: Vec::new(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl std::error::Error for Problem {}
