//! What hosts of a stamp disagree in, and what they sent that is no change.

use axum::extract::State;

use crate::{
    api::{
        Api,
        extract::{Answer, Asked, answer},
        peer::Peer,
        wire::{
            Conflicts, DeadLetters, Envelope, LettersDone, LettersRequest, Problem, RemoveRequest, ResolveRequest,
            Settled,
        },
    },
    control::Author,
};

/// Fields that hosts of the stamp gave different values at the same time, and entries that are no policy together.
#[utoipa::path(
    get, path = "/v1/policy/conflicts", tag = "stamp",
    responses((status = 200, body = Envelope<Conflicts>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn conflicts(State(api): State<Api>) -> Answer<Conflicts> {
    api.control.ask(|control| control.conflicts()).await.map(answer)
}

/// Settles a conflict for all hosts of the stamp.
#[utoipa::path(
    post, path = "/v1/policy/conflicts/resolve", tag = "stamp", request_body = ResolveRequest,
    responses((status = 200, body = Envelope<Settled>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn resolve(
    State(api): State<Api>,
    peer: Peer,
    Asked(request): Asked<ResolveRequest>,
) -> Answer<Settled> {
    let author = Author::new(&peer.name, "policy conflicts resolve");
    api.control.ask(move |control| control.resolve(&request, &author)).await.map(answer)
}

/// Removes an entry for all hosts of the stamp, also one that is not in force.
#[utoipa::path(
    post, path = "/v1/policy/conflicts/remove", tag = "stamp", request_body = RemoveRequest,
    responses((status = 200, body = Envelope<Settled>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn remove(
    State(api): State<Api>,
    peer: Peer,
    Asked(request): Asked<RemoveRequest>,
) -> Answer<Settled> {
    let author = Author::new(&peer.name, "policy conflicts remove");
    api.control.ask(move |control| control.remove_entry(&request, &author)).await.map(answer)
}

/// What hosts of the stamp sent as changes, and that are none.
#[utoipa::path(
    get, path = "/v1/policy/dead-letters", tag = "stamp",
    responses((status = 200, body = Envelope<DeadLetters>))
)]
pub(crate) async fn dead_letters(State(api): State<Api>) -> Answer<DeadLetters> {
    api.control.ask(|control| Ok(control.letters())).await.map(answer)
}

/// Looks at dead letters as if they came now: those that are changes by now are taken in.
#[utoipa::path(
    post, path = "/v1/policy/dead-letters/replay", tag = "stamp", request_body = LettersRequest,
    responses((status = 200, body = Envelope<LettersDone>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn replay(State(api): State<Api>, Asked(request): Asked<LettersRequest>) -> Answer<LettersDone> {
    let board = api.stamp.clone().ok_or_else(super::stamp::none)?;
    let replay = move |control: &mut crate::control::Control| {
        control.replay_letters(&request.ids, |control, envelope| board.replay(control, vec![envelope]))
    };
    api.control.ask(replay).await.map(answer)
}

/// Forgets dead letters.
#[utoipa::path(
    post, path = "/v1/policy/dead-letters/drop", tag = "stamp", request_body = LettersRequest,
    responses((status = 200, body = Envelope<LettersDone>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn drop_letters(State(api): State<Api>, Asked(request): Asked<LettersRequest>) -> Answer<LettersDone> {
    let drop = move |control: &mut crate::control::Control| {
        control.drop_letters(&request.ids).map(|gone| LettersDone { gone, changes: 0 })
    };
    api.control.ask(drop).await.map(answer)
}
