//! The policy as a document that every host of a stamp has, and each may change.
//!
//! In come this host's own changes, as one policy and the next, and those of others, as bytes that somebody vouched for; out
//! come the changes for others, and one policy, which hosts that have the same changes have alike. Everything here is pure:
//! no file here opens a socket or the store, or reads a clock.
//!
//! ```text
//! policy -> entries -> history -> envelope -> others
//! others -> envelope -> history -> entries -> salvage -> policy
//! ```
//!
//! - [`Replica`]: the history of changes, an `automerge` document of the policy's entries.
//! - [`Conflict`]: values that hosts gave one field at the same time.
//! - [`envelope`]: what is sent of a change, and whether what came is one.
//! - [`Pulls`]: whom to ask for changes, and when.
//!
//! Field by field the later change wins, of two at the same time the same one everywhere; what somebody removed stays so,
//! whatever others changed inside it meanwhile. Entries that are no policy together are set aside by
//! [`crate::policy::salvage`].

mod conflicts;
pub mod envelope;
mod history;
mod label;
mod pulls;
mod tree;

pub use conflicts::{Conflict, Said};
pub use history::{Merged, Replica, Taken, Unfit, Versions};
pub use label::Label;
pub use pulls::{Pulls, Standing};

#[cfg(test)]
mod laws;
#[cfg(test)]
mod simulation;
