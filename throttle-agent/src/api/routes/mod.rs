//! The routes, by subject. Each reads its request, asks the control thread, and answers.

pub(super) mod blocks;
pub(super) mod breakers;
pub(super) mod conflicts;
pub(super) mod entries;
pub(super) mod explain;
pub(super) mod health;
pub(super) mod heartbeats;
pub(super) mod policy;
pub(super) mod prefixes;
pub(super) mod services;
pub(super) mod speeds;
pub(super) mod stamp;
pub(super) mod top;
