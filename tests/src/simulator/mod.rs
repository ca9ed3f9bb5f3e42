//! A simulator of what health acts on: deterministic, event by event, from a printed seed. The agent's own pure code runs in
//! it beside what others have published.
//!
//! [`overload`] is a server of known capacity under more load than it can bear, with clients that give up and try again;
//! [`limits`] are what may stand before it. [`detection`] is a day of 40 backends with bursts of loss, pauses and crashes,
//! watched by the agent's detector and by fixed timeouts. [`fleet`] is a service of several backends of which some fail, with
//! detector, breakers and the bound on who is kept away in the loop. [`dice`] is where all chance comes from.
//!
//! Refusals cost nothing here and arrive at once, and there is one class of requests: what the figures say is how laws of
//! control compare, not what a product does. `cargo xtask bench -- health` writes them down.

mod agenda;
pub mod detection;
pub mod dice;
pub mod fleet;
pub mod limits;
pub mod network;
pub mod overload;
pub mod scenario;
