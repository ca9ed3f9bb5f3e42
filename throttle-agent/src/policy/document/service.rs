//! Services: what packets are told apart by, and whose limits follow whose health.

use super::{Health, Http, default};
use crate::policy::{
    ports::PortRange,
    prefix::Prefix,
    units::Span,
    word::{Word, written_by_name},
};
use serde::Serialize;
use throttle_common::words::Speaks;
use utoipa::ToSchema;

/// A named protocol, set of ports and optional destination on this host.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Service {
    /// Unique among services: 1 to 48 letters, digits, `.`, `_` or `-`, a letter or digit first.
    pub name: String,
    /// `tcp`, `udp`, or `icmp` for ICMP and ICMPv6.
    pub protocol: Protocol,
    /// Ports and ranges, 1 to 65535; none for ICMP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
    /// Only packets to this prefix. Where several services share a port, the longest match wins. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Prefix>,
    /// Whether its open connections are counted by their packets, because they may end on another host that this one
    /// forwards to. Only `tcp`. Default: no, they are counted by this host's sockets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forwarded: bool,
    /// After how long a forwarded connection that nothing is heard of is forgotten: 10 s to 24 h. Default 15 min.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_after: Option<Span>,
    /// That it speaks plain HTTP, and how `reject` refuses a new connection to it then: with a page instead of a reset. Only
    /// `tcp`. Default: no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// How its limits follow its health. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

impl Service {
    /// A service that says only what it must.
    pub fn new(name: impl Into<String>, protocol: Protocol, ports: Vec<PortRange>) -> Self {
        let name = name.into();
        Self { name, protocol, ports, destination: None, forwarded: false, idle_after: None, http: None, health: None }
    }

    /// After how many seconds of silence a forwarded connection is forgotten.
    pub fn idle_seconds(&self) -> u64 {
        self.idle_after.unwrap_or(default::idle_after()).seconds()
    }

    /// The latency that its clients are promised.
    pub fn objective(&self) -> Span {
        self.health.map_or(default::objective(), |health| health.objective)
    }

    /// What its connections carry.
    pub fn speaks(&self) -> Speaks {
        let by_protocol = if self.protocol == Protocol::Tcp { Speaks::Http } else { Speaks::Opaque };
        self.health.and_then(|health| health.speaks).unwrap_or(by_protocol)
    }

    /// Whether it has a breaker, and so have its backends.
    pub fn has_breaker(&self) -> bool {
        self.health.is_some_and(|health| health.breaker)
    }

    /// Whether the kernel measures its time to the first byte.
    pub fn is_measured(&self) -> bool {
        self.health.is_some() && self.protocol == Protocol::Tcp && self.speaks() != Speaks::Opaque
    }
}

/// What a service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
}

impl Word for Protocol {
    const WHAT: &'static str = "protocol";
    fn all() -> Vec<Self> {
        vec![Self::Tcp, Self::Udp, Self::Icmp]
    }
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

written_by_name!(Protocol);
