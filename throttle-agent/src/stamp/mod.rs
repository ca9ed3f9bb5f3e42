//! A stamp: the hosts that serve the same tenants, and what each knows of the others by gossip.
//!
//! In come an address to listen at, a file of keys, seeds, and what is in force on this host; out comes a [`Board`], which
//! says who takes part, how each stands, and who differs from the others. What is gossiped are hints: policy never is. Its
//! changes go from host to host over TLS, wherever the gossip has it that one knows some that another does not.
//!
//! ```text
//! socket -> seal -> endpoint -> chitchat -> roster -> skew -> board
//! ```
//!
//! `seal`, `replay` and `endpoint` decide what counts before anybody reads it, `roster`, `detector` and `skew` what is held of
//! hosts; they are pure. `transport` is the socket, `gossip` the task, `file` and `seeds` look at files. `exchange` asks and
//! answers for changes, in the words of `speech`, and `identity` tells hosts of the stamp from others. chitchat
//! (Scuttlebutt reconciliation, van Renesse et al. 2008) spreads what hosts say of themselves.

mod board;
mod detector;
mod endpoint;
mod exchange;
mod facts;
mod file;
mod gossip;
mod identity;
mod key;
mod replay;
mod roster;
mod seal;
mod seeds;
mod skew;
mod speech;
mod transport;
mod views;

use std::time::Duration;

pub use board::Board;
pub use exchange::deliver;
pub use facts::is_name;
pub use file::{KeyFile, read, write};
pub use gossip::{Gossip, Joining, Options};
pub(crate) use key::hex;
pub use key::{Key, Keys};
pub use seeds::{Seeds, seed};
pub(crate) use transport::random;

/// How often a host speaks to others.
const INTERVAL: Duration = Duration::from_millis(200);
/// How often it looks who has been heard.
const LOOK: Duration = Duration::from_millis(100);
