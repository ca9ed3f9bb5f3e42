//! What the agent is told when it starts.

use std::{net::SocketAddr, path::PathBuf};

use super::Webhook;
use crate::{datapath::Mode, stamp, tls::Identity};

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Interfaces to throttle; those that are absent are waited for.
    pub interfaces: Vec<String>,
    /// Where in the receive path.
    pub mode: Mode,
    /// Sets of the table of buckets, 72 bytes each.
    pub table_sets: u32,
    /// The API's socket.
    pub socket: PathBuf,
    /// The group that may use it beside root, by name or number.
    pub socket_group: Option<String>,
    /// Where the store lies.
    pub state_dir: PathBuf,
    /// Where programs, links and maps are pinned.
    pub pin_dir: PathBuf,
    /// The policy to put in force if the store has none.
    pub policy: Option<PathBuf>,
    /// The control group whose processes find a backend refused while its breaker is.
    pub cgroup: Option<PathBuf>,
    /// A loopback address that serves `/metrics`.
    pub metrics: Option<SocketAddr>,
    /// Where heartbeats are taken over TLS.
    pub heartbeats: Option<Heartbeats>,
    /// Whom to tell of suspicion, deaths, breakers and a want of workers.
    pub webhooks: Vec<Webhook>,
    /// Who vouches for those of `https`, instead of whom the system trusts.
    pub webhook_authority: Option<PathBuf>,
    /// The stamp to take part in.
    pub stamp: Option<stamp::Options>,
    /// Whether the programs write debugging output.
    pub debug: bool,
    /// Whether to drop every capability that is not needed after the start.
    pub drop_privileges: bool,
}

/// Where and how heartbeats are taken over TLS.
#[derive(Clone, Debug)]
pub struct Heartbeats {
    /// Where to listen.
    pub address: SocketAddr,
    /// What to show, and whom to trust.
    pub identity: Identity,
}
