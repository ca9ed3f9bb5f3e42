//! Reads requests and writes answers so that every refusal, the framework's own too, is a [`Problem`].

use std::time::Duration;

use axum::{
    Json,
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    peer::Peer,
    wire::{Envelope, Problem, ProblemKind},
};

/// How long a request may take, its body included.
const REQUEST: Duration = Duration::from_mins(1);

/// What a route answers.
pub(super) type Answer<T> = Result<Json<Envelope<T>>, Problem>;

/// The answer in its envelope.
pub(super) fn answer<T: Serialize>(body: T) -> Json<Envelope<T>> {
    Json(Envelope::new(body))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(self)).into_response()
    }
}

/// A body of JSON.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(refused_body(&rejection)),
        }
    }
}

fn refused_body(rejection: &JsonRejection) -> Problem {
    let kind = match (rejection, rejection.status()) {
        (JsonRejection::MissingJsonContentType(_), _) => ProblemKind::NotJson,
        (_, StatusCode::PAYLOAD_TOO_LARGE) => ProblemKind::TooLarge,
        _ => ProblemKind::Malformed,
    };
    Problem::new(kind, rejection.body_text())
}

/// A query string.
pub(super) struct Queried<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Queried<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refused = |rejection: QueryRejection| Problem::new(ProblemKind::Malformed, rejection.body_text());
        Query::from_request_parts(parts, state).await.map(|Query(query)| Self(query)).map_err(refused)
    }
}

/// The name at the end of a path.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refused = |rejection: PathRejection| Problem::new(ProblemKind::Malformed, rejection.body_text());
        Path::from_request_parts(parts, state).await.map(|Path(name)| Self(name)).map_err(refused)
    }
}

/// The names at the end of a path of something within something else.
pub(super) struct Within(pub(super) String, pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Within {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refused = |rejection: PathRejection| Problem::new(ProblemKind::Malformed, rejection.body_text());
        Path::from_request_parts(parts, state).await.map(|Path((outer, inner))| Self(outer, inner)).map_err(refused)
    }
}

/// The revision that `If-Match` names, if it names one.
pub(super) struct IfMatch(pub(super) Option<u64>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else { return Ok(Self(None)) };
        let revision = value.to_str().ok().and_then(|text| text.trim_matches('"').parse().ok());
        revision.map(|revision| Self(Some(revision))).ok_or_else(|| {
            let detail = "If-Match does not name a revision; send the ETag of GET /v1/policy, e.g. \"7\"";
            Problem::new(ProblemKind::Malformed, detail)
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let nobody = || Problem::new(ProblemKind::Forbidden, "this route is served on the Unix socket only");
        parts.extensions.get().cloned().ok_or_else(nobody)
    }
}

/// Bounds the time of a request.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    let unknown = if request.method() == Method::GET { "" } else { "; whether the change was made is unknown" };
    tokio::time::timeout(REQUEST, next.run(request)).await.unwrap_or_else(|_| {
        let detail = format!("no answer within {} s{unknown}; see `throttle status`", REQUEST.as_secs());
        Problem::new(ProblemKind::Unavailable, detail).into_response()
    })
}

/// The answer to a path that nobody serves.
pub(super) async fn no_such_path(request: Request) -> Problem {
    Problem::new(
        ProblemKind::NotFound,
        format!("{} is no path of this API; see /v1/openapi.json", request.uri().path()),
    )
}

/// The answer to a method that a path does not know.
pub(super) async fn no_such_method(request: Request) -> Problem {
    let detail = format!("{} does not know {}; see /v1/openapi.json", request.uri().path(), request.method());
    Problem::new(ProblemKind::MethodNotAllowed, detail)
}
