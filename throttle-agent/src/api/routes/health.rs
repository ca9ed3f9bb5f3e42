//! Whether the agent lives, whether it is ready, and its figures for Prometheus.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    api::{
        Api, metrics, openapi,
        wire::{Problem, ProblemKind},
    },
    control::Control,
    heartbeat,
    stamp::Board,
};

/// 200 while the control thread answers and the kernel's maps can be read.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = String), (status = 503, body = Problem)))]
pub(crate) async fn healthz(State(api): State<Api>) -> Result<&'static str, Problem> {
    api.control.ask(Control::beat).await.map(|()| "ok\n")
}

/// 200 while nothing is wrong: the policy is in force and every interface is attached.
#[utoipa::path(get, path = "/readyz", tag = "health", responses((status = 200, body = String), (status = 503, body = Problem)))]
pub(crate) async fn readyz(State(api): State<Api>) -> Result<&'static str, Problem> {
    let problems = api.control.ask(|control| Ok(control.problems())).await?;
    if problems.is_empty() { Ok("ok\n") } else { Err(Problem::new(ProblemKind::Unavailable, problems.join("\n"))) }
}

/// Counters and gauges in Prometheus' text format. No label ever holds an address.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, body = String)))]
pub(crate) async fn metrics(State(api): State<Api>) -> Result<Response, Problem> {
    let status = api.control.ask(|control| control.status()).await?;
    let stamp = api.stamp.as_ref().map(Board::view);
    let text = metrics::encode(status, api.heartbeats.views(heartbeat::now()), stamp, &api.faults);
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// This API as an OpenAPI document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "health", responses((status = 200, body = String)))]
pub(crate) async fn openapi() -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], openapi::document()).into_response()
}
