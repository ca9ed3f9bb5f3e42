//! What would become of a source's next packet, and what became of its last ones.

use axum::extract::State;

use crate::api::{
    Api,
    extract::{Answer, Queried, answer},
    wire::{Envelope, ExplainQuery, Explanation, Problem},
};

/// Walks a source's next packet through the policy that the kernel holds. Charges nothing.
#[utoipa::path(
    get, path = "/v1/explain", tag = "sources", params(ExplainQuery),
    responses((status = 200, body = Envelope<Explanation>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn explain(State(api): State<Api>, Queried(query): Queried<ExplainQuery>) -> Answer<Explanation> {
    let kept = api.events.kept();
    api.control.ask(move |control| control.explain(&query, &kept)).await.map(answer)
}
