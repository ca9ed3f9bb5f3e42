//! The agent: loads the throttle's kernel programs, holds its policy and answers for what they do.

pub mod api;
pub mod datapath;
pub mod policy;
pub mod store;
