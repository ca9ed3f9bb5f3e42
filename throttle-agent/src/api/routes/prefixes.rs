//! The lists of sources with a standing: those that are allowed, and those that are known not to be spoofed.

use axum::extract::State;
use ipnet::IpNet;

use crate::{
    api::{
        Api,
        extract::{Answer, Asked, answer},
        peer::Peer,
        wire::{Envelope, Prefixes, PrefixesDelete, PrefixesRequest, Problem, Written},
    },
    policy::{
        Document, Prefix,
        edit::{self, List},
    },
};

async fn show(api: &Api, of: fn(&Document) -> &Vec<Prefix>) -> Answer<Prefixes> {
    let list = |list: &Vec<Prefix>| list.iter().map(|prefix| prefix.net()).collect();
    let prefixes = api.control.ask(move |control| Ok(list(of(control.in_force())))).await?;
    Ok(answer(Prefixes { prefixes }))
}

async fn add(api: &Api, peer: &Peer, list: List, request: PrefixesRequest) -> Answer<Written> {
    let (act, prefixes) = (format!("{} add", list.name()), masked(&request.prefixes));
    api.edit(peer, &act, request.write, move |document| Ok(edit::add_sources(document, list, &prefixes))).await
}

async fn delete(api: &Api, peer: &Peer, list: List, request: PrefixesDelete) -> Answer<Written> {
    let (act, prefixes) = (format!("{} delete", list.name()), masked(&request.prefixes));
    api.edit(peer, &act, request.write, move |document| edit::remove_sources(document, list, &prefixes)).await
}

fn masked(prefixes: &[IpNet]) -> Vec<Prefix> {
    prefixes.iter().map(|&prefix| prefix.into()).collect()
}

/// Who is allowed.
#[utoipa::path(get, path = "/v1/allows", tag = "sources", responses((status = 200, body = Envelope<Prefixes>)))]
pub(crate) async fn allows(State(api): State<Api>) -> Answer<Prefixes> {
    show(&api, |document| &document.sources.allow).await
}

/// Allows: no block and no limit touches these from now on.
#[utoipa::path(
    post, path = "/v1/allows", tag = "sources", request_body = PrefixesRequest,
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn add_allows(
    State(api): State<Api>,
    peer: Peer,
    Asked(request): Asked<PrefixesRequest>,
) -> Answer<Written> {
    add(&api, &peer, List::Allow, request).await
}

/// Allows no longer.
#[utoipa::path(
    post, path = "/v1/allows/delete", tag = "sources", request_body = PrefixesDelete,
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn delete_allows(
    State(api): State<Api>,
    peer: Peer,
    Asked(request): Asked<PrefixesDelete>,
) -> Answer<Written> {
    delete(&api, &peer, List::Allow, request).await
}

/// Who is known not to be spoofed.
#[utoipa::path(get, path = "/v1/known", tag = "sources", responses((status = 200, body = Envelope<Prefixes>)))]
pub(crate) async fn known(State(api): State<Api>) -> Answer<Prefixes> {
    show(&api, |document| &document.sources.known).await
}

/// Knows: a way of every set is kept for these from now on.
#[utoipa::path(
    post, path = "/v1/known", tag = "sources", request_body = PrefixesRequest,
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn add_known(
    State(api): State<Api>,
    peer: Peer,
    Asked(request): Asked<PrefixesRequest>,
) -> Answer<Written> {
    add(&api, &peer, List::Known, request).await
}

/// Knows no longer.
#[utoipa::path(
    post, path = "/v1/known/delete", tag = "sources", request_body = PrefixesDelete,
    responses((status = 200, body = Envelope<Written>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn delete_known(
    State(api): State<Api>,
    peer: Peer,
    Asked(request): Asked<PrefixesDelete>,
) -> Answer<Written> {
    delete(&api, &peer, List::Known, request).await
}
