//! Who talks most.

use axum::extract::State;

use crate::api::{
    Api,
    extract::{Answer, Queried, answer},
    wire::{Envelope, Problem, Top, TopQuery},
};

/// Who talks most, which limits act, and why packets are refused: one look. Two of them give rates.
#[utoipa::path(
    get, path = "/v1/top", tag = "status", params(TopQuery),
    responses((status = 200, body = Envelope<Top>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn top(State(api): State<Api>, Queried(query): Queried<TopQuery>) -> Answer<Top> {
    let kept = api.events.kept();
    api.control.ask(move |control| control.top(query, &kept)).await.map(answer)
}
