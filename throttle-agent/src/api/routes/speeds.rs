//! How fast the clocks of limits run.

use axum::extract::State;

use crate::{
    api::{
        Api,
        extract::{Answer, Asked, answer},
        peer::Peer,
        wire::{Envelope, Problem, SpeedRequest, SpeedReset, SpeedView, Speeds},
    },
    control::Author,
};

/// Every health clock: the host's, and those of services.
#[utoipa::path(get, path = "/v1/speeds", tag = "speeds", responses((status = 200, body = Envelope<Speeds>)))]
pub(crate) async fn speeds(State(api): State<Api>) -> Answer<Speeds> {
    api.control.ask(|control| Ok(Speeds { speeds: control.speeds() })).await.map(answer)
}

/// Has a health clock run slower, for a time or until it is reset.
#[utoipa::path(
    put, path = "/v1/speeds", tag = "speeds", request_body = SpeedRequest,
    responses((status = 200, body = Envelope<SpeedView>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn set_speed(
    State(api): State<Api>,
    peer: Peer,
    Asked(request): Asked<SpeedRequest>,
) -> Answer<SpeedView> {
    let author = Author::new(&peer.name, "speed set");
    api.control.ask(move |control| control.set_speed(&request, &author)).await.map(answer)
}

/// Has a health clock run as fast as real time again.
#[utoipa::path(
    post, path = "/v1/speeds/reset", tag = "speeds", request_body = SpeedReset,
    responses((status = 200, body = Envelope<SpeedView>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn reset_speed(
    State(api): State<Api>,
    peer: Peer,
    Asked(request): Asked<SpeedReset>,
) -> Answer<SpeedView> {
    let author = Author::new(&peer.name, "speed reset");
    api.control.ask(move |control| control.reset_speed(request.service.as_deref(), &author)).await.map(answer)
}
