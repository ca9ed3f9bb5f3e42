//! Heartbeats: what backends push, and what is seen of them.

use axum::extract::State;

use crate::{
    api::{
        Api,
        extract::{Answer, Asked, answer},
        sender::Sender,
        wire::{Envelope, HeartbeatRequest, HeartbeatTaken, Heartbeats, Problem},
    },
    heartbeat,
};

/// What is seen of every instance of every backend.
#[utoipa::path(get, path = "/v1/heartbeats", tag = "backends", responses((status = 200, body = Envelope<Heartbeats>)))]
pub(crate) async fn heartbeats(State(api): State<Api>) -> Answer<Heartbeats> {
    Ok(answer(api.heartbeats.views(heartbeat::now())))
}

/// Takes a heartbeat of a backend. One that is sent again changes nothing; one that is older than the last is refused, and
/// over TLS one of a backend that the client's certificate does not name.
#[utoipa::path(
    post, path = "/v1/heartbeats", tag = "backends", request_body = HeartbeatRequest,
    responses((status = 200, body = Envelope<HeartbeatTaken>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn push_heartbeat(
    State(api): State<Api>,
    sender: Sender,
    Asked(request): Asked<HeartbeatRequest>,
) -> Answer<HeartbeatTaken> {
    sender.beats_for(&request.backend)?;
    api.heartbeats.pushed(request, heartbeat::now()).map(answer)
}
