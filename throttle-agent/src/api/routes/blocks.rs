//! Blocks: sources that are refused, for a time or for ever.

use axum::extract::State;

use crate::{
    api::{
        Api,
        extract::{Answer, Asked, answer},
        peer::Peer,
        wire::{Blocks, BlocksRequest, Envelope, PrefixesDelete, Problem, Written},
    },
    control::Author,
};

/// Every block: the policy's permanent ones, and those that were added by command.
#[utoipa::path(get, path = "/v1/blocks", tag = "sources", responses((status = 200, body = Envelope<Blocks>)))]
pub(crate) async fn blocks(State(api): State<Api>) -> Answer<Blocks> {
    api.control.ask(|control| Ok(Blocks { blocks: control.blocks()? })).await.map(answer)
}

/// Blocks, all or none.
#[utoipa::path(
    post, path = "/v1/blocks", tag = "sources", request_body = BlocksRequest,
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn add_blocks(
    State(api): State<Api>,
    peer: Peer,
    Asked(request): Asked<BlocksRequest>,
) -> Answer<Written> {
    let author = Author::new(&peer.name, "block add");
    api.control.ask(move |control| control.add_blocks(&request.blocks, &request.write, &author)).await.map(answer)
}

/// Ends blocks that were added by command.
#[utoipa::path(
    post, path = "/v1/blocks/delete", tag = "sources", request_body = PrefixesDelete,
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn delete_blocks(
    State(api): State<Api>,
    peer: Peer,
    Asked(request): Asked<PrefixesDelete>,
) -> Answer<Written> {
    let author = Author::new(&peer.name, "block delete");
    api.control.ask(move |control| control.delete_blocks(&request.prefixes, &author)).await.map(answer)
}
