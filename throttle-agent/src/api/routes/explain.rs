//! What would become of a source's next packet, and what became of its last ones.

use axum::extract::State;

use crate::api::{
    Api,
    extract::{Answer, Queried, answer},
    wire::{Envelope, ExplainQuery, Explanation, Problem},
};

/// Refusals of the past that an explanation shows.
const REFUSALS: usize = 10;

/// Walks a source's next packet through the policy that the kernel holds. Charges nothing.
#[utoipa::path(
    get, path = "/v1/explain", tag = "sources", params(ExplainQuery),
    responses((status = 200, body = Envelope<Explanation>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn explain(State(api): State<Api>, Queried(query): Queried<ExplainQuery>) -> Answer<Explanation> {
    let mut explanation = api.control.ask(move |control| control.explain(&query)).await?;
    let source = Some(explanation.source);
    let kept = api.events.kept();
    let own = kept.iter().rev().filter(|event| event.source == source);
    explanation.refusals = own.take(REFUSALS).map(|event| (**event).clone()).collect();
    Ok(answer(explanation))
}
