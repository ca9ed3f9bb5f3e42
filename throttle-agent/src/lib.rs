//! The agent: loads the throttle's kernel programs, holds its policy and answers for what they do.

pub mod agent;
pub mod api;
pub mod control;
pub mod datapath;
pub mod events;
pub mod health;
pub mod heartbeat;
mod own_probes;
pub mod penalties;
pub mod policy;
pub mod replica;
pub mod run;
pub mod stamp;
pub mod store;
pub mod tls;

#[cfg(test)]
#[path = "../tests/support/skip.rs"]
mod skip;
