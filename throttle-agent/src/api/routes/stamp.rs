//! The stamp that this host is in.

use axum::extract::State;

use crate::{
    api::{
        Api,
        extract::{Answer, answer},
        wire::{Envelope, Problem, ProblemKind, StampView},
    },
    stamp::Board,
};

/// The hosts of the stamp that this one is in, how they stand, and who differs from most.
#[utoipa::path(
    get, path = "/v1/stamp", tag = "stamp",
    responses((status = 200, body = Envelope<StampView>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn stamp(State(api): State<Api>) -> Answer<StampView> {
    api.stamp.as_ref().map(Board::view).map(answer).ok_or_else(none)
}

/// That this host is in no stamp.
pub(super) fn none() -> Problem {
    let detail =
        "this host is in no stamp; `throttle run --stamp NAME` with --stamp-listen and --stamp-key has it join one";
    Problem::new(ProblemKind::NotFound, detail)
}
