//! What the agent does over TLS: heartbeats of clients with certificates, and webhooks of https.

mod authority;
mod client;
mod files;
mod heartbeats;
#[path = "../support/mod.rs"]
mod support;
mod webhooks;
