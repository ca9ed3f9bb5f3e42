//! The local API: HTTP and JSON over a Unix socket.
//!
//! Comes in: requests of peers that the kernel vouches for ([`peer`]), bounded in size, number and time ([`serve`]); and
//! heartbeats of those for whom a certificate does ([`tls`]).
//! Goes out: answers in the words of [`wire`], refusals as problems. The routes do nothing themselves: they ask the
//! control thread. `agent.rs` serves the router; the CLI and the tests speak to it through [`wire`].

mod extract;
mod metrics;
mod openapi;
pub mod peer;
pub(crate) mod places;
mod routes;
mod sender;
pub mod serve;
mod stream;
pub mod tls;
pub mod wire;

use std::sync::{Arc, atomic::Ordering::Relaxed};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::Response,
    routing::{get, post, put},
};
pub use metrics::Faults;
pub use openapi::document as openapi_document;
use peer::Peer;
use wire::{Write, Written, paths};

use crate::{
    control::{Author, Handle},
    events::Hub,
    heartbeat::Heartbeats,
    policy::{Document, edit::EditError},
    stamp::Board,
};

/// Bytes of a body that brings a policy or blocks: room for 100 000 of them.
const LARGE_BODY: usize = 16 << 20;
/// Bytes of any other body.
const BODY: usize = 1 << 20;
/// Bytes of a heartbeat that comes over TLS: several times what the longest takes.
const BEAT: usize = 16 << 10;

/// What the routes share.
#[derive(Clone, Debug)]
pub struct Api {
    /// The control thread.
    pub control: Handle,
    /// Sampled refusals.
    pub events: Hub,
    /// What backends say of their life.
    pub heartbeats: Heartbeats,
    /// Mistakes of peers.
    pub faults: Arc<Faults>,
    /// The stamp that this host is in.
    pub stamp: Option<Board>,
}

impl Api {
    /// Every route, for the Unix socket.
    pub fn router(self) -> Router {
        use routes::{blocks, breakers, entries, explain, health, heartbeats, policy, prefixes, services, speeds, top};

        let large = Router::new()
            .route(paths::POLICY_CHECK, post(policy::check))
            .route(paths::POLICY_DIFF, post(policy::diff))
            .route(paths::POLICY_APPLY, post(policy::apply))
            .route(paths::BLOCKS, get(blocks::blocks).post(blocks::add_blocks))
            .route(paths::BLOCKS_DELETE, post(blocks::delete_blocks))
            .layer(DefaultBodyLimit::max(LARGE_BODY));
        let small = Router::new()
            .route(paths::STATUS, get(entries::status))
            .route(paths::LIMITS, get(entries::limits))
            .route(
                "/v1/limits/{name}",
                get(entries::limit).put(entries::set_limit).patch(entries::change_limit).delete(entries::delete_limit),
            )
            .route(paths::SERVICES, get(services::services))
            .route(
                "/v1/services/{name}",
                get(services::service)
                    .put(services::set_service)
                    .patch(services::change_service)
                    .delete(services::delete_service),
            )
            .route(paths::BACKENDS, get(services::backends))
            .route(
                "/v1/backends/{name}",
                get(services::backend)
                    .put(services::set_backend)
                    .patch(services::change_backend)
                    .delete(services::delete_backend),
            )
            .route(paths::TENANTS, get(entries::tenants))
            .route("/v1/tenants/{name}", put(entries::set_tenant).delete(entries::delete_tenant))
            .route(paths::MODE, put(entries::set_mode))
            .route(paths::ALLOWS, get(prefixes::allows).post(prefixes::add_allows))
            .route(paths::ALLOWS_DELETE, post(prefixes::delete_allows))
            .route(paths::KNOWN, get(prefixes::known).post(prefixes::add_known))
            .route(paths::KNOWN_DELETE, post(prefixes::delete_known))
            .route(paths::HEARTBEATS, get(heartbeats::heartbeats).post(heartbeats::push_heartbeat))
            .route(paths::SPEEDS, get(speeds::speeds).put(speeds::set_speed))
            .route(paths::SPEEDS_RESET, post(speeds::reset_speed))
            .route(paths::HEALTH, get(breakers::health))
            .route("/v1/health/{service}", get(breakers::health_of))
            .route("/v1/breakers/{service}", put(breakers::hold).delete(breakers::release))
            .route("/v1/breakers/{service}/{backend}", put(breakers::hold_backend).delete(breakers::release_backend))
            .route(paths::POLICY, get(policy::policy))
            .route(paths::POLICY_CONFIRM, post(policy::confirm))
            .route(paths::POLICY_ROLLBACK, post(policy::rollback))
            .route(paths::POLICY_HISTORY, get(policy::history))
            .route(paths::EVENTS, get(stream::events))
            .route(paths::EXPLAIN, get(explain::explain))
            .route(paths::TOP, get(top::top))
            .route(paths::OPENAPI, get(health::openapi))
            .route(paths::HEALTHZ, get(health::healthz))
            .route(paths::READYZ, get(health::readyz))
            .route(paths::METRICS, get(health::metrics))
            .layer(DefaultBodyLimit::max(BODY));
        self.finish(large.merge(small).merge(Self::stamp_routes()))
    }

    /// The stamp, and the policy that its hosts share.
    fn stamp_routes() -> Router<Self> {
        use routes::{conflicts, stamp};

        Router::new()
            .route(paths::STAMP, get(stamp::stamp))
            .route(paths::POLICY_CONFLICTS, get(conflicts::conflicts))
            .route(paths::POLICY_RESOLVE, post(conflicts::resolve))
            .route(paths::POLICY_REMOVE, post(conflicts::remove))
            .route(paths::DEAD_LETTERS, get(conflicts::dead_letters))
            .route(paths::DEAD_LETTERS_REPLAY, post(conflicts::replay))
            .route(paths::DEAD_LETTERS_DROP, post(conflicts::drop_letters))
            .layer(DefaultBodyLimit::max(BODY))
    }

    /// The figures alone, for a loopback TCP port.
    pub fn metrics_router(self) -> Router {
        let routes = Router::new().route(paths::METRICS, get(routes::health::metrics));
        self.finish(routes)
    }

    /// What backends may ask over TLS: that a heartbeat be taken.
    pub fn heartbeats_router(self) -> Router {
        let take = post(routes::heartbeats::push_heartbeat);
        self.finish(Router::new().route(paths::HEARTBEATS, take).layer(DefaultBodyLimit::max(BEAT)))
    }

    /// Changes the policy in force by one act of a peer.
    async fn edit(
        &self,
        peer: &Peer,
        act: &str,
        write: Write,
        change: impl FnOnce(&Document) -> Result<Document, EditError> + Send + 'static,
    ) -> extract::Answer<Written> {
        let author = Author::new(&peer.name, act);
        self.control.ask(move |control| control.edit(change, &write, &author)).await.map(extract::answer)
    }

    fn finish(self, routes: Router<Self>) -> Router {
        routes
            .fallback(extract::no_such_path)
            .method_not_allowed_fallback(extract::no_such_method)
            .layer(middleware::from_fn(extract::in_time))
            .layer(middleware::from_fn_with_state(self.clone(), count_faults))
            .with_state(self)
    }
}

async fn count_faults(State(api): State<Api>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if response.status().is_client_error() {
        api.faults.requests.fetch_add(1, Relaxed);
    }
    response
}
