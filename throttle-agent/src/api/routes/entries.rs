//! Status, limits, tenants and the host's mode.

use axum::extract::State;

use crate::{
    api::{
        Api,
        extract::{Answer, Asked, Named, Queried, answer},
        peer::Peer,
        wire::{
            Envelope, LimitPatch, LimitRequest, LimitView, Limits, ModeRequest, Problem, ProblemKind, Status,
            TenantRequest, Tenants, Write, Written,
        },
    },
    policy::edit,
};

/// What the agent does now.
#[utoipa::path(get, path = "/v1/status", tag = "status", responses((status = 200, body = Envelope<Status>)))]
pub(crate) async fn status(State(api): State<Api>) -> Answer<Status> {
    api.control.ask(|control| control.status()).await.map(answer)
}

/// Every limit, its counts and its part of the table.
#[utoipa::path(get, path = "/v1/limits", tag = "limits", responses((status = 200, body = Envelope<Limits>)))]
pub(crate) async fn limits(State(api): State<Api>) -> Answer<Limits> {
    api.control.ask(|control| Ok(Limits { limits: control.limits()? })).await.map(answer)
}

/// One limit, its counts and its part of the table.
#[utoipa::path(
    get, path = "/v1/limits/{name}", tag = "limits", params(("name" = String, Path, description = "The limit's name")),
    responses((status = 200, body = Envelope<LimitView>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn limit(State(api): State<Api>, Named(name): Named) -> Answer<LimitView> {
    api.control.ask(move |control| control.limit(&name)).await.map(answer)
}

/// Sets a limit: creates it, or replaces the one with its name.
#[utoipa::path(
    put, path = "/v1/limits/{name}", tag = "limits", params(("name" = String, Path, description = "The limit's name")),
    request_body = LimitRequest,
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn set_limit(
    State(api): State<Api>,
    peer: Peer,
    Named(name): Named,
    Asked(request): Asked<LimitRequest>,
) -> Answer<Written> {
    same_name(&name, &request.limit.name)?;
    let act = format!("limit set {name}");
    api.edit(&peer, &act, request.write, move |document| Ok(edit::set_limit(document, request.limit))).await
}

/// Changes a limit: what the request does not name stays. One that is not there is created.
#[utoipa::path(
    patch, path = "/v1/limits/{name}", tag = "limits", params(("name" = String, Path, description = "The limit's name")),
    request_body = LimitPatch,
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn change_limit(
    State(api): State<Api>,
    peer: Peer,
    Named(name): Named,
    Asked(request): Asked<LimitPatch>,
) -> Answer<Written> {
    let act = format!("limit set {name}");
    api.edit(&peer, &act, request.write, move |document| edit::change_limit(document, &name, &request.change)).await
}

/// Deletes a limit; its buckets and counts go with it.
#[utoipa::path(
    delete, path = "/v1/limits/{name}", tag = "limits",
    params(("name" = String, Path, description = "The limit's name"), Write),
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn delete_limit(
    State(api): State<Api>,
    peer: Peer,
    Named(name): Named,
    Queried(write): Queried<Write>,
) -> Answer<Written> {
    let act = format!("limit delete {name}");
    api.edit(&peer, &act, write, move |document| edit::delete_limit(document, &name)).await
}

/// Every tenant.
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", responses((status = 200, body = Envelope<Tenants>)))]
pub(crate) async fn tenants(State(api): State<Api>) -> Answer<Tenants> {
    let tenants = api.control.ask(|control| Ok(control.in_force().tenants.to_vec())).await?;
    Ok(answer(Tenants { tenants }))
}

/// Sets a tenant: creates it, or replaces the one with its name.
#[utoipa::path(
    put, path = "/v1/tenants/{name}", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name")), request_body = TenantRequest,
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn set_tenant(
    State(api): State<Api>,
    peer: Peer,
    Named(name): Named,
    Asked(request): Asked<TenantRequest>,
) -> Answer<Written> {
    same_name(&name, &request.tenant.name)?;
    let act = format!("tenant set {name}");
    api.edit(&peer, &act, request.write, move |document| Ok(edit::set_tenant(document, request.tenant))).await
}

/// Deletes a tenant; its sources are nobody's from then on.
#[utoipa::path(
    delete, path = "/v1/tenants/{name}", tag = "tenants",
    params(("name" = String, Path, description = "The tenant's name"), Write),
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn delete_tenant(
    State(api): State<Api>,
    peer: Peer,
    Named(name): Named,
    Queried(write): Queried<Write>,
) -> Answer<Written> {
    let act = format!("tenant delete {name}");
    api.edit(&peer, &act, write, move |document| edit::delete_tenant(document, &name)).await
}

/// Sets whether the host enforces.
#[utoipa::path(
    put, path = "/v1/mode", tag = "status", request_body = ModeRequest,
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn set_mode(
    State(api): State<Api>,
    peer: Peer,
    Asked(request): Asked<ModeRequest>,
) -> Answer<Written> {
    api.edit(&peer, "mode", request.write, move |document| Ok(edit::set_mode(document, request.mode))).await
}

pub(super) fn same_name(path: &str, body: &str) -> Result<(), Problem> {
    if path == body {
        return Ok(());
    }
    let detail = format!("the path names `{path}` and the body `{body}`; they must be the same");
    Err(Problem::new(ProblemKind::Malformed, detail))
}
