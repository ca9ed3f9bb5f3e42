//! A compiled policy: what the agent writes into the spare generation and every packet reads.

use super::{Address, NAME, PORTS_IN_WORD, SCOPE_LIMITS};
use crate::{gcra::Ticks, hash::Secret, pages::REST_MAX, words::Reason};

/// What every packet reads first. One element.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// [`super::LAYOUT`] of whoever created the maps.
    pub layout: u64,
    /// The place of keys in their regions; drawn when the table is created, never changed.
    pub secret: Secret,
    /// How many policies have been put in force; the lowest bit says which of the two is.
    pub generation: u32,
    /// Which source maps have entries, and how often entries have changed: see [`super::SourceMaps`].
    pub sources: u32,
    /// Sets in the table of buckets.
    pub sets: u32,
    /// 1 where what leaves by the throttled interfaces is seen; else no service is counted by its packets.
    pub sees_leaving: u32,
}

/// The head of one generation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The policy revision that this was compiled from.
    pub revision: u64,
    /// The answers that `reject` may send from this host.
    pub answers: Budget,
    /// The events that each CPU may report.
    pub events: Budget,
    /// The limits of packets that belong to no service.
    pub scope: Scope,
    /// 1 where the whole host only observes.
    pub observe: u8,
    /// 1 where services exist.
    pub has_services: u8,
    /// [`crate::words::Fate`] by [`Reason`] number.
    pub fates: [u8; FATES],
    /// 1 where every packet of the host meets a limit, so that the clock may as well be read first.
    pub clock_first: u8,
    /// 1 where a limit counts open connections, so that sockets are followed.
    pub counts_connections: u8,
    /// 1 where it counts those of a service by their packets, so that what leaves this host is looked at.
    pub counts_forwarded: u8,
    /// 1 where services or backends have breakers.
    pub has_breakers: u8,
    /// 1 where the time to first byte of a service is measured, so that what leaves this host is looked at.
    pub measures: u8,
    /// Of this power of two of flows one is measured: see [`crate::exchanges::Flow`].
    pub sample_shift: u8,
}

/// Room for the fates of all reasons.
pub const FATES: usize = 64;
const _: () = assert!(Reason::ALL.len() <= FATES);

/// A token bucket's constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// The cost of one.
    pub cost: Ticks,
    /// How deep the bucket is.
    pub depth: Ticks,
}

/// The limits that apply to a packet, in the order in which they are read and charged: first those on rates, then those
/// on open connections; of each the narrowest first, and guarantees before the limits that are as wide.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// How many of `limits` are on rates.
    pub count: u16,
    /// Limit numbers, 0 to [`super::MAX_LIMITS`].
    pub limits: [u16; SCOPE_LIMITS],
    /// How many behind them are on open connections: at most [`super::CONNECTION_LIMITS`].
    pub concurrent: u16,
    /// 1 where one of those on rates counts in windows.
    pub windows: u8,
    /// 1 where the service has a [`Page`]. Builds before pages wrote 0.
    pub pages: u8,
    /// 1 where none of those on rates counts in windows, is a guarantee, or has other terms for some.
    pub plain: u16,
}

/// A service. The destination decides where several share a port: the first match of a candidate list wins.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The limits of its packets: the host's and its own.
    pub scope: Scope,
    /// Destination prefix, both halves masked; IPv4 in the low 32 bits of `low`.
    pub destination: Address,
    /// Mask of `destination`; all zero matches every destination of either family.
    pub mask: Address,
    /// 4 or 6 where there is a destination, 0 where there is none.
    pub family: u8,
    /// IANA protocol number (6, 17, 1; 1 stands for ICMP and ICMPv6).
    pub protocol: u8,
    /// 1 where its connections are counted by their packets, whether or not they end here.
    pub forwarded: u8,
    /// What is measured of it: a [`crate::words::Speaks`].
    pub measures: u8,
    /// Seconds after which a forwarded connection that nothing is heard of is forgotten; 0 where none is forwarded.
    pub idle_after: u32,
    /// The health clock of its limits, which is the number of its health window and of its measurements too.
    pub clock: u16,
    /// Its breaker's number; [`super::NONE`] where it has none.
    pub breaker: u16,
    /// How many connections may be open to it at once, as policy says; 0 where no limit of its own does. What is
    /// reserved by guarantees is among them.
    pub connections: u32,
    /// Its name.
    pub name: [u8; NAME],
}

/// What stands in the page of a service behind its head: see [`crate::pages`]. All zero, there is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The sum of the 16-bit words of the text.
    pub sum: u32,
    /// Bytes of the text.
    pub length: u16,
    /// Zero.
    pub padding: u16,
    /// The text: the rest of the head of the answer, and its body.
    pub rest: [u8; REST_MAX],
}

/// Where a port's candidate list number lies: the element of [`super::maps::PORTS`] within a generation, and the bit.
#[inline(always)]
pub const fn port_place(slot: u32) -> (u32, u32) {
    (slot / PORTS_IN_WORD, slot % PORTS_IN_WORD * 16)
}

/// The number of a TCP port (0), a UDP port (1) or ICMP (2, port 0) among all [`port_place`]s.
#[inline(always)]
pub const fn port_slot(transport: u32, port: u16) -> u32 {
    transport * 65_536 + port as u32
}
