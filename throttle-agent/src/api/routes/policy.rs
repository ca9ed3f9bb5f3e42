//! The policy as a whole.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use crate::{
    api::{
        Api,
        extract::{Answer, Asked, IfMatch, Queried, answer},
        peer::Peer,
        wire::{
            ApplyRequest, CheckReport, CheckRequest, DiffReport, Envelope, History, PolicyQuery, PolicyView, Problem,
            RollbackRequest, Write, Written,
        },
    },
    control::{Author, Control, read_document, read_said},
};

/// A revision of the policy: the last, which commands edit, or any that is kept.
#[utoipa::path(
    get, path = "/v1/policy", tag = "policy", params(PolicyQuery),
    responses((status = 200, body = Envelope<PolicyView>, headers(("etag", description = "The revision"))),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn policy(State(api): State<Api>, Queried(query): Queried<PolicyQuery>) -> Result<Response, Problem> {
    let view = api.control.ask(move |control| control.policy(query.revision)).await?;
    let etag = format!("\"{}\"", view.revision.revision);
    Ok(([(header::ETAG, etag)], answer(view)).into_response())
}

/// Looks at a policy without putting it in force: its faults, its warnings, and the flood that fills each region.
#[utoipa::path(
    post, path = "/v1/policy/check", tag = "policy", request_body = CheckRequest,
    responses((status = 200, body = Envelope<CheckReport>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn check(State(api): State<Api>, Asked(request): Asked<CheckRequest>) -> Answer<CheckReport> {
    let report = move |control: &mut Control| control.check(&read_said(request.document, request.toml)?);
    api.control.ask(report).await.map(answer)
}

/// How a policy differs from the one in force.
#[utoipa::path(
    post, path = "/v1/policy/diff", tag = "policy", request_body = CheckRequest,
    responses((status = 200, body = Envelope<DiffReport>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn diff(State(api): State<Api>, Asked(request): Asked<CheckRequest>) -> Answer<DiffReport> {
    let report = move |control: &mut Control| Ok(control.diff(&read_document(request.document, request.toml)?));
    api.control.ask(report).await.map(answer)
}

/// Puts a policy in force, wholly or not at all.
#[utoipa::path(
    post, path = "/v1/policy/apply", tag = "policy", request_body = ApplyRequest,
    params(("if-match" = Option<String>, Header, description = "Refuse unless this revision is the last")),
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn apply(
    State(api): State<Api>,
    peer: Peer,
    IfMatch(expected): IfMatch,
    Asked(request): Asked<ApplyRequest>,
) -> Answer<Written> {
    let author = Author::new(&peer.name, "policy apply");
    let apply = move |control: &mut Control| {
        let read = if request.empty { read_document } else { read_said };
        let document = read(request.document, request.toml)?;
        control.apply(document, expected, &request.write, &author)
    };
    api.control.ask(apply).await.map(answer)
}

/// Keeps the revision that would otherwise go back by itself.
#[utoipa::path(
    post, path = "/v1/policy/confirm", tag = "policy", request_body = Write,
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn confirm(State(api): State<Api>, peer: Peer, Asked(_): Asked<Write>) -> Answer<Written> {
    let author = Author::new(&peer.name, "policy confirm");
    api.control.ask(move |control| control.confirm(&author)).await.map(answer)
}

/// Puts an earlier revision in force again, as a new one.
#[utoipa::path(
    post, path = "/v1/policy/rollback", tag = "policy", request_body = RollbackRequest,
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn rollback(
    State(api): State<Api>,
    peer: Peer,
    Asked(request): Asked<RollbackRequest>,
) -> Answer<Written> {
    let author = Author::new(&peer.name, "policy rollback");
    api.control.ask(move |control| control.rollback(request.revision, &request.write, &author)).await.map(answer)
}

/// The revisions that are kept.
#[utoipa::path(get, path = "/v1/policy/history", tag = "policy", responses((status = 200, body = Envelope<History>)))]
pub(crate) async fn history(State(api): State<Api>) -> Answer<History> {
    api.control.ask(|control| control.history()).await.map(answer)
}
