//! The OpenAPI document, made from the routes and the wire's types.

use utoipa::OpenApi;

use super::{routes, stream, wire};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "throttle",
        description = "The local API of the throttle agent, on a Unix socket. Durations are whole seconds; times are \
                       RFC 3339 in UTC; refusals are RFC 9457 problems."
    ),
    paths(
        routes::entries::status,
        routes::entries::limits,
        routes::entries::limit,
        routes::entries::set_limit,
        routes::entries::change_limit,
        routes::entries::delete_limit,
        routes::services::services,
        routes::services::service,
        routes::services::set_service,
        routes::services::change_service,
        routes::services::delete_service,
        routes::services::backends,
        routes::services::backend,
        routes::services::set_backend,
        routes::services::change_backend,
        routes::services::delete_backend,
        routes::entries::tenants,
        routes::entries::set_tenant,
        routes::entries::delete_tenant,
        routes::entries::set_mode,
        routes::blocks::blocks,
        routes::blocks::add_blocks,
        routes::blocks::delete_blocks,
        routes::prefixes::allows,
        routes::prefixes::add_allows,
        routes::prefixes::delete_allows,
        routes::prefixes::known,
        routes::prefixes::add_known,
        routes::prefixes::delete_known,
        routes::heartbeats::heartbeats,
        routes::heartbeats::push_heartbeat,
        routes::speeds::speeds,
        routes::speeds::set_speed,
        routes::speeds::reset_speed,
        routes::breakers::health,
        routes::breakers::health_of,
        routes::breakers::hold,
        routes::breakers::release,
        routes::breakers::hold_backend,
        routes::breakers::release_backend,
        routes::stamp::stamp,
        routes::conflicts::conflicts,
        routes::conflicts::resolve,
        routes::conflicts::remove,
        routes::conflicts::dead_letters,
        routes::conflicts::replay,
        routes::conflicts::drop_letters,
        routes::policy::policy,
        routes::policy::check,
        routes::policy::diff,
        routes::policy::apply,
        routes::policy::confirm,
        routes::policy::rollback,
        routes::policy::history,
        stream::events,
        routes::explain::explain,
        routes::top::top,
        routes::health::healthz,
        routes::health::readyz,
        routes::health::metrics,
        routes::health::openapi,
    ),
    components(schemas(wire::Problem))
)]
struct Document;

/// The document as JSON.
pub fn document() -> String {
    Document::openapi().to_pretty_json().expect("the document is plain data")
}
