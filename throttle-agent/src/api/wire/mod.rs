//! What the API says and hears: every request and response, shared by the server, the CLI and the tests.
//!
//! Answers are JSON objects in an [`Envelope`] that names the version of this contract. Fields are only added within a
//! version; readers ignore what they do not know. Requests refuse what they do not know, so that a misspelt field never
//! passes for its absence. Durations are whole seconds and say so in their names; times are RFC 3339 in UTC; addresses
//! and prefixes are text. Refusals are [`Problem`]s.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

mod conflicts;
mod entries;
mod events;
mod explain;
mod health;
mod health_line;
mod heartbeat;
mod penalties;
mod policy;
mod problem;
mod services;
mod speeds;
mod stamp;
mod status;
mod top;

pub use conflicts::{
    ConflictValue, ConflictView, Conflicts, DeadLetterView, DeadLetters, LettersDone, LettersRequest, RemoveRequest,
    ResolveRequest, SetAsideView, Settled,
};
pub use entries::{
    Block, Blocks, BlocksRequest, GuaranteeView, LimitPatch, LimitRequest, LimitView, Limits, ModeRequest, NewBlock,
    Prefixes, PrefixesDelete, PrefixesRequest, Tallies, Tally, TenantRequest, Tenants, Write, Written,
};
pub use events::{Event, EventFilter, Gap, StreamItem};
pub use explain::{
    AskedPacket, BlockedBy, BreakerWalk, ConnectionsWalk, ExplainQuery, Explanation, GuaranteeWalk, LimitWalk,
    OpenConnection, PastRefusal, Standing, TenantOf, Walk, WindowWalk,
};
pub use health::{
    BackendHealthView, BreakerRequest, BreakerView, HealthReport, HeldBreakerView, PressureView, ServiceHealthView,
    SignalView, TransitionView, WaitingView, WindowView,
};
pub use health_line::{HealthLine, WorstBackend};
pub use heartbeat::{HeartbeatRequest, HeartbeatTaken, HeartbeatView, Heartbeats, PushedView};
pub use penalties::{PenaltyCounts, PenaltyWalk, SentenceCounts, SentenceView};
pub use policy::{
    ApplyRequest, CheckReport, CheckRequest, DiffReport, History, LONGEST_WAIT, LimitForecast, Pending, PolicyQuery,
    PolicyView, RevisionView, RollbackRequest,
};
pub use problem::{Problem, ProblemKind};
pub use services::{
    BackendPatch, BackendRequest, BackendView, Backends, ServicePatch, ServiceRequest, ServiceView, Services,
};
pub use speeds::{LONGEST_SPEED, SpeedRequest, SpeedReset, SpeedView, Speeds};
pub use stamp::{
    RefusedChanges, RefusedDatagrams, SkewView, StampChange, StampDatagrams, StampExchanges, StampHostView,
    StampPolicy, StampView,
};
pub use status::{
    Attachment, Build, CompartmentLoad, Connections, Forecast, LossCounts, PageCounts, ReasonCount, RegionLoad,
    SessionAllow, Status, Table,
};
pub use top::{RefusedSource, Talker, Top, TopLimit, TopQuery};

/// The version of this contract, in every answer.
pub const SCHEMA_VERSION: u32 = 1;

/// An answer with the version of the contract that it follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Envelope<T> {
    /// [`SCHEMA_VERSION`] of the agent that answered.
    pub schema_version: u32,
    /// The answer; its fields stand beside `schema_version`.
    #[serde(flatten)]
    pub body: T,
}

impl<T> Envelope<T> {
    /// The answer under the current version.
    pub fn new(body: T) -> Self {
        Self { schema_version: SCHEMA_VERSION, body }
    }
}

/// The paths of the API, relative to the socket.
pub mod paths {
    /// `GET` [`super::Status`].
    pub const STATUS: &str = "/v1/status";
    /// `GET` [`super::Limits`]; `GET` [`super::LimitView`], `PUT` [`super::LimitRequest`] and `DELETE` (with
    /// [`super::Write`] as its query) at `/v1/limits/{name}`.
    pub const LIMITS: &str = "/v1/limits";
    /// `GET` [`super::Services`]; `GET` [`super::ServiceView`], `PUT` [`super::ServiceRequest`], `PATCH`
    /// [`super::ServicePatch`] and `DELETE` at `/v1/services/{name}`.
    pub const SERVICES: &str = "/v1/services";
    /// `GET` [`super::Backends`]; `GET` [`super::BackendView`], `PUT` [`super::BackendRequest`], `PATCH`
    /// [`super::BackendPatch`] and `DELETE` at `/v1/backends/{name}`.
    pub const BACKENDS: &str = "/v1/backends";
    /// `GET` [`super::Tenants`]; `PUT` [`super::TenantRequest`] and `DELETE` at `/v1/tenants/{name}`.
    pub const TENANTS: &str = "/v1/tenants";
    /// `GET` [`super::Blocks`]; `POST` [`super::BlocksRequest`].
    pub const BLOCKS: &str = "/v1/blocks";
    /// `POST` [`super::PrefixesDelete`].
    pub const BLOCKS_DELETE: &str = "/v1/blocks/delete";
    /// `GET` [`super::Prefixes`]; `POST` [`super::PrefixesRequest`].
    pub const ALLOWS: &str = "/v1/allows";
    /// `POST` [`super::PrefixesDelete`].
    pub const ALLOWS_DELETE: &str = "/v1/allows/delete";
    /// `GET` [`super::Prefixes`]; `POST` [`super::PrefixesRequest`].
    pub const KNOWN: &str = "/v1/known";
    /// `POST` [`super::PrefixesDelete`].
    pub const KNOWN_DELETE: &str = "/v1/known/delete";
    /// `PUT` [`super::ModeRequest`].
    pub const MODE: &str = "/v1/mode";
    /// `GET` [`super::Heartbeats`]; `POST` [`super::HeartbeatRequest`], answered by [`super::HeartbeatTaken`].
    pub const HEARTBEATS: &str = "/v1/heartbeats";
    /// `GET` [`super::Speeds`]; `PUT` [`super::SpeedRequest`], answered by [`super::SpeedView`].
    pub const SPEEDS: &str = "/v1/speeds";
    /// `POST` [`super::SpeedReset`], answered by [`super::SpeedView`].
    pub const SPEEDS_RESET: &str = "/v1/speeds/reset";
    /// `GET` [`super::HealthReport`]; of one service at `/v1/health/{service}`.
    pub const HEALTH: &str = "/v1/health";
    /// `PUT` [`super::BreakerRequest`] and `DELETE`, answered by [`super::HeldBreakerView`]: at `/v1/breakers/{service}` and
    /// `/v1/breakers/{service}/{backend}`.
    pub const BREAKERS: &str = "/v1/breakers";
    /// `GET` [`super::StampView`].
    pub const STAMP: &str = "/v1/stamp";
    /// `GET` [`super::PolicyView`] (query [`super::PolicyQuery`]).
    pub const POLICY: &str = "/v1/policy";
    /// `POST` [`super::CheckRequest`], answered by [`super::CheckReport`].
    pub const POLICY_CHECK: &str = "/v1/policy/check";
    /// `POST` [`super::CheckRequest`], answered by [`super::DiffReport`].
    pub const POLICY_DIFF: &str = "/v1/policy/diff";
    /// `POST` [`super::ApplyRequest`], answered by [`super::Written`].
    pub const POLICY_APPLY: &str = "/v1/policy/apply";
    /// `POST` [`super::Write`], answered by [`super::Written`].
    pub const POLICY_CONFIRM: &str = "/v1/policy/confirm";
    /// `POST` [`super::RollbackRequest`], answered by [`super::Written`].
    pub const POLICY_ROLLBACK: &str = "/v1/policy/rollback";
    /// `GET` [`super::History`].
    pub const POLICY_HISTORY: &str = "/v1/policy/history";
    /// `GET` [`super::Conflicts`].
    pub const POLICY_CONFLICTS: &str = "/v1/policy/conflicts";
    /// `POST` [`super::ResolveRequest`], answered by [`super::Settled`].
    pub const POLICY_RESOLVE: &str = "/v1/policy/conflicts/resolve";
    /// `POST` [`super::RemoveRequest`], answered by [`super::Settled`].
    pub const POLICY_REMOVE: &str = "/v1/policy/conflicts/remove";
    /// `GET` [`super::DeadLetters`].
    pub const DEAD_LETTERS: &str = "/v1/policy/dead-letters";
    /// `POST` [`super::LettersRequest`], answered by [`super::LettersDone`].
    pub const DEAD_LETTERS_REPLAY: &str = "/v1/policy/dead-letters/replay";
    /// `POST` [`super::LettersRequest`], answered by [`super::LettersDone`].
    pub const DEAD_LETTERS_DROP: &str = "/v1/policy/dead-letters/drop";
    /// `GET` a stream of [`super::StreamItem`]s in envelopes, one a line (query [`super::EventFilter`]).
    pub const EVENTS: &str = "/v1/events";
    /// `GET` [`super::Explanation`] (query [`super::ExplainQuery`]).
    pub const EXPLAIN: &str = "/v1/explain";
    /// `GET` [`super::Top`] (query [`super::TopQuery`]).
    pub const TOP: &str = "/v1/top";
    /// `GET` the OpenAPI document.
    pub const OPENAPI: &str = "/v1/openapi.json";
    /// `GET` 200 while the control loop ticks.
    pub const HEALTHZ: &str = "/healthz";
    /// `GET` 200 once a policy is in force and every interface is attached.
    pub const READYZ: &str = "/readyz";
    /// `GET` Prometheus text.
    pub const METRICS: &str = "/metrics";
}
