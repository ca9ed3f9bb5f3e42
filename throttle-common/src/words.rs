//! The closed lists of words that a verdict is made of, with the names under which every view shows them.

/// Declares a `#[repr(u8)]` word list with its stable names, the list of all words and the way back from the number.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $word:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $word,)+ }

        impl $name {
            /// Every word, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$word,)+];

            /// The name that the CLI, the API, the metrics and the policy use.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$word => $text,)+ }
            }

            /// The word with this number, if there is one.
            pub fn from_number(number: u8) -> Option<Self> {
                Self::ALL.get(usize::from(number)).copied()
            }

            /// The word with this name, if there is one.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.name() == name)
            }
        }
    };
}

words! {
    /// Why a packet met its outcome. The list only grows at its end: numbers are kept in pinned maps.
    Reason {
        /// No limit refused it. All of a healthy host's traffic reads here.
        Admitted = "admitted",
        /// Its source is on the allow list: no block and no limit was consulted.
        Allowed = "allowed",
        /// Its source is blocked. Reads 0 without blocks.
        Blocked = "blocked",
        /// A limit's bucket for its source was empty. Reads 0 while every source stays within its limits.
        SourceLimit = "source-limit",
        /// The limit's region had no room for its source, and the overflow rule refused it (`refuse`), or the
        /// aggregate's bucket was empty. Reads 0 while the regions are large enough for the traffic.
        SourceOverflow = "source-overflow",
        /// ARP. Passes by default: without it the host is unreachable.
        Arp = "arp",
        /// Neither IPv4, IPv6 nor ARP: LLDP, spanning tree, MPLS and the like. Passes by default.
        OtherEthertype = "other-ethertype",
        /// Shorter than an Ethernet header. Reads 0.
        TruncatedEthernet = "truncated-ethernet",
        /// Ends within a VLAN tag. Reads 0.
        TruncatedVlan = "truncated-vlan",
        /// More than two VLAN tags. Reads 0; such frames are a way around filters.
        TooManyVlans = "too-many-vlans",
        /// Ends within the IPv4 header or its options. Reads 0.
        TruncatedIpv4 = "truncated-ipv4",
        /// An IPv4 header that contradicts itself (version, header length) or is longer than the frame. Reads 0.
        MalformedIpv4 = "malformed-ipv4",
        /// Ends within the IPv6 header. Reads 0.
        TruncatedIpv6 = "truncated-ipv6",
        /// An IPv6 header with another version, or that promises more than the frame holds. Reads 0.
        MalformedIpv6 = "malformed-ipv6",
        /// Ends within an IPv6 extension header. Reads 0.
        TruncatedExtension = "truncated-extension",
        /// More than [`crate::packet::MAX_EXTENSIONS`] IPv6 extension headers. Reads 0; a way around filters.
        TooManyExtensions = "too-many-extensions",
        /// Ends within the TCP header; also a first fragment too small for it and its options (RFC 1858). Reads 0.
        TruncatedTcp = "truncated-tcp",
        /// A TCP header whose length contradicts the packet. Reads 0.
        MalformedTcp = "malformed-tcp",
        /// Ends within the UDP header; also a first fragment too small for it. Reads 0.
        TruncatedUdp = "truncated-udp",
        /// A UDP length that contradicts the packet. Reads 0.
        MalformedUdp = "malformed-udp",
        /// Ends within the first four bytes of ICMP or ICMPv6. Reads 0.
        TruncatedIcmp = "truncated-icmp",
        /// IPv6 neighbour discovery from this link (RFC 4861). Passes by default: without it the host is unreachable.
        NeighbourDiscovery = "neighbour-discovery",
        /// As many connections as a limit allows are open, or on their way to be. Reads 0 while everybody stays within
        /// the limits.
        ConnectionLimit = "connection-limit",
        /// The bucket that its tenant's sources share was empty. Reads 0 while every tenant stays within its limits.
        TenantLimit = "tenant-limit",
        /// The bucket that all of its service share was empty. Reads 0 while the service is not asked for too much.
        ServiceLimit = "service-limit",
        /// The bucket that the whole host shares was empty. Reads 0 while the host is not asked for too much.
        HostLimit = "host-limit",
        /// The breaker of its service, or of the backend that it is for, keeps new connections away. Reads 0 while
        /// everything behind this host is well.
        BreakerOpen = "breaker-open",
        /// It belongs to a connection that was refused with a page: the request that is answered with 429, and what goes
        /// before and after it. No limit is asked. Reads 0 while nobody who speaks plain HTTP is refused.
        TooManyRequests = "too-many-requests",
    }
}

impl Per {
    /// Why a limit refuses whose bucket is empty.
    #[inline(always)]
    pub const fn refusal(self) -> Reason {
        match self {
            Self::Source => Reason::SourceLimit,
            Self::Service => Reason::ServiceLimit,
            Self::Tenant => Reason::TenantLimit,
            Self::Host => Reason::HostLimit,
        }
    }
}

impl Reason {
    /// The first and the last of the shapes: frames that policy gives a fate.
    const SHAPES: [u8; 2] = [Self::Arp as u8, Self::NeighbourDiscovery as u8];

    /// Whether this names a shape rather than a decision.
    pub fn is_shape(self) -> bool {
        Self::is_number_of_shape(self as u8)
    }

    /// Whether the reason of this number names a shape.
    #[inline(always)]
    pub const fn is_number_of_shape(number: u8) -> bool {
        number >= Self::SHAPES[0] && number <= Self::SHAPES[1]
    }

    /// The fate of a shape where policy is silent: what a host needs passes, what could slip around a limit drops.
    pub fn default_fate(self) -> Fate {
        match self {
            Self::Arp | Self::OtherEthertype | Self::NeighbourDiscovery => Fate::Pass,
            _ => Fate::Drop,
        }
    }
}

words! {
    /// What policy does with a shape.
    Fate {
        /// Hand it to the network stack.
        Pass = "pass",
        /// Refuse it.
        Drop = "drop",
    }
}

words! {
    /// What became of a packet.
    Outcome {
        /// Handed to the network stack.
        Pass = "pass",
        /// Dropped without a word.
        Drop = "drop",
        /// Dropped, and its sender told so (TCP RST, ICMP administratively prohibited, or a page of HTTP).
        Reject = "reject",
        /// Would have been refused, and passed because of `observe`.
        Observe = "observe",
    }
}

words! {
    /// What a limit counts.
    Unit {
        /// Packets, each as one.
        Packets = "packets",
        /// Bytes of whole frames.
        Bytes = "bytes",
        /// New TCP connections: segments with SYN and without ACK.
        Connections = "connections",
    }
}

words! {
    /// How a limit decides.
    Algorithm {
        /// A rate and a burst: see [`crate::gcra`].
        TokenBucket = "token-bucket",
        /// A number of connections that are open at once: see [`crate::connections`].
        Concurrency = "concurrency",
        /// A rate and no burst: a leaky bucket as a meter, which is [`crate::gcra`] with room for one unit.
        LeakyBucket = "leaky-bucket",
        /// So many in each window, counted anew: see [`crate::windows`].
        FixedWindow = "fixed-window",
        /// So many in any window, by the last two counts: see [`crate::windows::Sliding`].
        SlidingWindow = "sliding-window",
    }
}

impl Algorithm {
    /// Whether it counts by windows rather than by a clock that flows.
    pub const fn is_windowed(self) -> bool {
        matches!(self, Self::FixedWindow | Self::SlidingWindow)
    }
}

words! {
    /// Who shares what a limit allows.
    Per {
        /// Each source has a bucket of its own.
        Source = "source",
        /// All that its service serves, together.
        Service = "service",
        /// Each tenant has a bucket, which its sources share.
        Tenant = "tenant",
        /// All that reaches the host, together.
        Host = "host",
    }
}

words! {
    /// What a service speaks, as far as it matters where the time to the first byte of its answers is measured.
    Speaks {
        /// Nothing that is looked into: nothing is measured.
        Opaque = "opaque",
        /// Requests and answers in turns, in the clear: the first bytes of either are those of an exchange.
        Http = "http",
        /// The same within TLS: only records of application data begin an exchange.
        Tls = "tls",
    }
}

words! {
    /// How a limit refuses.
    Action {
        /// Without a word.
        Drop = "drop",
        /// With a TCP RST to a SYN, or a page where its service has one, with ICMP administratively prohibited to the rest;
        /// where an answer is due.
        Reject = "reject",
    }
}

words! {
    /// What a limit does with a source that its region has no room for.
    Overflow {
        /// Charge the bucket of the source's aggregate (/24, /48), at the limit's own rate.
        Aggregate = "aggregate",
        /// Refuse it.
        Refuse = "refuse",
        /// Admit it uncharged.
        Admit = "admit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_word() {
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.name()), Some(reason));
            assert_eq!(Reason::from_number(reason as u8), Some(reason));
        }
    }

    #[test]
    fn what_is_no_shape_is_a_decision() {
        use Reason::{
            Admitted, Allowed, Blocked, BreakerOpen, ConnectionLimit, HostLimit, ServiceLimit, SourceLimit,
            SourceOverflow, TenantLimit, TooManyRequests,
        };
        let decisions = Reason::ALL.iter().filter(|reason| !reason.is_shape());
        let of_sources = [Admitted, Allowed, Blocked, SourceLimit, SourceOverflow, ConnectionLimit];
        let of_others = [TenantLimit, ServiceLimit, HostLimit, BreakerOpen, TooManyRequests];
        assert!(decisions.eq(of_sources.iter().chain(&of_others)));
    }

    #[test]
    fn only_what_a_host_needs_passes_unjudged() {
        let passing = Reason::ALL.iter().filter(|r| r.is_shape() && r.default_fate() == Fate::Pass);
        assert!(passing.eq(&[Reason::Arp, Reason::OtherEthertype, Reason::NeighbourDiscovery]));
    }
}
