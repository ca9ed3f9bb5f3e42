//! Services, and who answers for them.

use axum::extract::State;

use super::entries::same_name;
use crate::{
    api::{
        Api,
        extract::{Answer, Asked, Named, Queried, answer},
        peer::Peer,
        wire::{
            BackendPatch, BackendRequest, BackendView, Backends, Envelope, Problem, ServicePatch, ServiceRequest,
            ServiceView, Services, Write, Written,
        },
    },
    policy::edit,
};

/// Every service.
#[utoipa::path(get, path = "/v1/services", tag = "services", responses((status = 200, body = Envelope<Services>)))]
pub(crate) async fn services(State(api): State<Api>) -> Answer<Services> {
    let services = api.control.ask(|control| Ok(control.in_force().services.to_vec())).await?;
    Ok(answer(Services { services }))
}

/// One service, with its limits and backends.
#[utoipa::path(
    get, path = "/v1/services/{name}", tag = "services",
    params(("name" = String, Path, description = "The service's name")),
    responses((status = 200, body = Envelope<ServiceView>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn service(State(api): State<Api>, Named(name): Named) -> Answer<ServiceView> {
    api.control.ask(move |control| control.service(&name)).await.map(answer)
}

/// Sets a service: creates it, or replaces the one with its name.
#[utoipa::path(
    put, path = "/v1/services/{name}", tag = "services",
    params(("name" = String, Path, description = "The service's name")), request_body = ServiceRequest,
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn set_service(
    State(api): State<Api>,
    peer: Peer,
    Named(name): Named,
    Asked(request): Asked<ServiceRequest>,
) -> Answer<Written> {
    same_name(&name, &request.service.name)?;
    let act = format!("service set {name}");
    api.edit(&peer, &act, request.write, move |document| Ok(edit::set_service(document, request.service))).await
}

/// Changes a service: what the request does not name stays. One that is not there is created.
#[utoipa::path(
    patch, path = "/v1/services/{name}", tag = "services",
    params(("name" = String, Path, description = "The service's name")), request_body = ServicePatch,
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn change_service(
    State(api): State<Api>,
    peer: Peer,
    Named(name): Named,
    Asked(request): Asked<ServicePatch>,
) -> Answer<Written> {
    let act = format!("service set {name}");
    api.edit(&peer, &act, request.write, move |document| edit::change_service(document, &name, &request.change)).await
}

/// Deletes a service that no limit is for, and that has no backends.
#[utoipa::path(
    delete, path = "/v1/services/{name}", tag = "services",
    params(("name" = String, Path, description = "The service's name"), Write),
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn delete_service(
    State(api): State<Api>,
    peer: Peer,
    Named(name): Named,
    Queried(write): Queried<Write>,
) -> Answer<Written> {
    let act = format!("service delete {name}");
    api.edit(&peer, &act, write, move |document| edit::delete_service(document, &name)).await
}

/// Every backend.
#[utoipa::path(get, path = "/v1/backends", tag = "backends", responses((status = 200, body = Envelope<Backends>)))]
pub(crate) async fn backends(State(api): State<Api>) -> Answer<Backends> {
    let backends = api.control.ask(|control| Ok(control.in_force().backends.to_vec())).await?;
    Ok(answer(Backends { backends }))
}

/// One backend, with what is left to defaults.
#[utoipa::path(
    get, path = "/v1/backends/{name}", tag = "backends",
    params(("name" = String, Path, description = "The backend's name")),
    responses((status = 200, body = Envelope<BackendView>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn backend(State(api): State<Api>, Named(name): Named) -> Answer<BackendView> {
    api.control.ask(move |control| control.backend(&name)).await.map(answer)
}

/// Sets a backend: creates it, or replaces the one with its name.
#[utoipa::path(
    put, path = "/v1/backends/{name}", tag = "backends",
    params(("name" = String, Path, description = "The backend's name")), request_body = BackendRequest,
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn set_backend(
    State(api): State<Api>,
    peer: Peer,
    Named(name): Named,
    Asked(request): Asked<BackendRequest>,
) -> Answer<Written> {
    same_name(&name, &request.backend.name)?;
    let act = format!("backend set {name}");
    api.edit(&peer, &act, request.write, move |document| Ok(edit::set_backend(document, request.backend))).await
}

/// Changes a backend: what the request does not name stays. One that is not there is created.
#[utoipa::path(
    patch, path = "/v1/backends/{name}", tag = "backends",
    params(("name" = String, Path, description = "The backend's name")), request_body = BackendPatch,
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn change_backend(
    State(api): State<Api>,
    peer: Peer,
    Named(name): Named,
    Asked(request): Asked<BackendPatch>,
) -> Answer<Written> {
    let act = format!("backend set {name}");
    api.edit(&peer, &act, request.write, move |document| edit::change_backend(document, &name, &request.change)).await
}

/// Deletes a backend: it is not asked any more, and has no breaker.
#[utoipa::path(
    delete, path = "/v1/backends/{name}", tag = "backends",
    params(("name" = String, Path, description = "The backend's name"), Write),
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn delete_backend(
    State(api): State<Api>,
    peer: Peer,
    Named(name): Named,
    Queried(write): Queried<Write>,
) -> Answer<Written> {
    let act = format!("backend delete {name}");
    api.edit(&peer, &act, write, move |document| edit::delete_backend(document, &name)).await
}
