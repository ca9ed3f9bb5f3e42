//! The health of services, and the breakers that an operator holds.

use axum::extract::State;

use crate::{
    api::{
        Api,
        extract::{Answer, Asked, Named, Within, answer},
        peer::Peer,
        wire::{BreakerRequest, Envelope, HealthReport, HeldBreakerView, Problem},
    },
    control::{Author, Control},
};

/// How the health of services stands: what is seen, what is held of backends, what follows from it, and the last changes.
#[utoipa::path(get, path = "/v1/health", tag = "services", responses((status = 200, body = Envelope<HealthReport>)))]
pub(crate) async fn health(State(api): State<Api>) -> Answer<HealthReport> {
    api.control.ask(|control| control.health(None)).await.map(answer)
}

/// The same of one service.
#[utoipa::path(
    get, path = "/v1/health/{service}", tag = "services", params(("service" = String, Path, description = "Its name")),
    responses((status = 200, body = Envelope<HealthReport>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn health_of(State(api): State<Api>, Named(service): Named) -> Answer<HealthReport> {
    api.control.ask(move |control| control.health(Some(&service))).await.map(answer)
}

/// Holds the breaker of a service open or closed, whatever is seen.
#[utoipa::path(
    put, path = "/v1/breakers/{service}", tag = "services", request_body = BreakerRequest,
    params(("service" = String, Path, description = "Its name")),
    responses((status = 200, body = Envelope<HeldBreakerView>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn hold(
    State(api): State<Api>,
    peer: Peer,
    Named(service): Named,
    Asked(request): Asked<BreakerRequest>,
) -> Answer<HeldBreakerView> {
    put(&api, &peer, service, None, Some(request)).await
}

/// Leaves the breaker of a service to itself again.
#[utoipa::path(
    delete, path = "/v1/breakers/{service}", tag = "services", params(("service" = String, Path, description = "Its name")),
    responses((status = 200, body = Envelope<HeldBreakerView>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn release(State(api): State<Api>, peer: Peer, Named(service): Named) -> Answer<HeldBreakerView> {
    put(&api, &peer, service, None, None).await
}

/// Holds the breaker of a backend open or closed, in all its places.
#[utoipa::path(
    put, path = "/v1/breakers/{service}/{backend}", tag = "services", request_body = BreakerRequest,
    params(("service" = String, Path, description = "The service"), ("backend" = String, Path, description = "Its name")),
    responses((status = 200, body = Envelope<HeldBreakerView>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn hold_backend(
    State(api): State<Api>,
    peer: Peer,
    Within(service, backend): Within,
    Asked(request): Asked<BreakerRequest>,
) -> Answer<HeldBreakerView> {
    put(&api, &peer, service, Some(backend), Some(request)).await
}

/// Leaves the breaker of a backend to itself again.
#[utoipa::path(
    delete, path = "/v1/breakers/{service}/{backend}", tag = "services",
    params(("service" = String, Path, description = "The service"), ("backend" = String, Path, description = "Its name")),
    responses((status = 200, body = Envelope<HeldBreakerView>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn release_backend(
    State(api): State<Api>,
    peer: Peer,
    Within(service, backend): Within,
) -> Answer<HeldBreakerView> {
    put(&api, &peer, service, Some(backend), None).await
}

async fn put(
    api: &Api,
    peer: &Peer,
    service: String,
    backend: Option<String>,
    request: Option<BreakerRequest>,
) -> Answer<HeldBreakerView> {
    let author = Author::new(&peer.name, "breaker");
    let hold = move |control: &mut Control| control.hold_breaker(&service, backend.as_deref(), request, &author);
    api.control.ask(hold).await.map(answer)
}
