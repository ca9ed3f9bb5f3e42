//! What a frame says of itself: Ethernet, up to two VLAN tags, IPv4 with options or IPv6 with extension headers, then
//! TCP, UDP or ICMP.
//!
//! [`parse()`] is the only reader of packets: the kernel programs call it on the driver's memory, the tests on byte
//! strings. A frame that it cannot read to the end has a [`crate::words::Reason`] of its own; nothing is guessed and nothing is
//! skipped, so that no shape is a way around a limit.

pub mod checksum;
mod numbers;
mod parse;

pub use self::{
    numbers::{ethertype, protocol, tcp},
    parse::{MAX_EXTENSIONS, MAX_VLANS, parse, parse_bytes},
};
use crate::records::Address;

/// ICMP type of an echo request (RFC 792).
const ECHO_REQUEST: u8 = 8;
/// ICMPv6 type of an echo request (RFC 4443).
const ECHO_REQUEST_V6: u8 = 128;

/// IPv4 or IPv6.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment, with the ports.
    First,
    /// A later fragment, without ports.
    Later,
}

impl Part {
    #[inline(always)]
    fn of(offset: u16, more: u16) -> Self {
        match (offset, more) {
            (0, 0) => Self::Whole,
            (0, _) => Self::First,
            _ => Self::Later,
        }
    }
}

/// A frame that could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Whose addresses these are.
    pub family: Family,
    /// Who sent it.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// What the payload is: TCP, UDP, ICMP, or any other number.
    pub protocol: u8,
    /// Whole or fragment.
    pub part: Part,
    /// TCP flags; ICMP type; 0 elsewhere.
    pub flags: u8,
    /// 0 where there is none.
    pub source_port: u16,
    /// 0 where there is none.
    pub destination_port: u16,
    /// Bytes before the IP header.
    pub network: u16,
    /// Bytes before the TCP, UDP or ICMP header.
    pub transport: u16,
    /// Bytes of TCP payload.
    pub payload: u16,
}

impl Default for Packet {
    /// A packet that nothing was read of.
    #[inline(always)]
    fn default() -> Self {
        Self {
            family: Family::V4,
            source: Address { high: 0, low: 0 },
            destination: Address { high: 0, low: 0 },
            protocol: 0,
            part: Part::Whole,
            flags: 0,
            source_port: 0,
            destination_port: 0,
            network: 0,
            transport: 0,
            payload: 0,
        }
    }
}

impl Packet {
    /// Whether it opens a TCP connection: SYN without ACK (RFC 9293, section 3.5).
    #[inline(always)]
    pub fn opens_connection(&self) -> bool {
        self.protocol == protocol::TCP && self.flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN
    }

    /// Whether an error message or a reset may be sent in answer (RFC 1122, section 3.2.2; RFC 1812, section 4.3.2.7;
    /// RFC 4443, section 2.4): never to a fragment, to an error, to a reset, or to what was not sent by one host to
    /// one host. The caller looks at the link-layer addresses.
    #[inline(always)]
    pub fn may_be_answered(&self) -> bool {
        let asks = match self.protocol {
            protocol::TCP => self.flags & tcp::RST == 0,
            protocol::ICMP => self.flags == ECHO_REQUEST,
            protocol::ICMPV6 => self.flags == ECHO_REQUEST_V6,
            _ => true,
        };
        asks && matches!(self.part, Part::Whole)
            && self.source.is_one_host(self.family)
            && self.destination.is_one_host(self.family)
    }

    /// The transport's place in [`crate::records::port_slot`], if services can name it.
    #[inline(always)]
    pub fn transport_number(&self) -> Option<u32> {
        match self.protocol {
            _ if matches!(self.part, Part::Later) => None,
            protocol::TCP => Some(0),
            protocol::UDP => Some(1),
            protocol::ICMP | protocol::ICMPV6 => Some(2),
            _ => None,
        }
    }
}

impl Address {
    /// An IPv4 address.
    pub const fn v4(address: u32) -> Self {
        Self { high: 0, low: address as u64 }
    }

    /// An IPv6 address.
    pub const fn v6(address: u128) -> Self {
        Self { high: (address >> 64) as u64, low: address as u64 }
    }

    /// Whether it can be the address of one host on a network: not unspecified, loopback, multicast or broadcast.
    #[inline(always)]
    pub const fn is_one_host(self, family: Family) -> bool {
        match family {
            Family::V4 => {
                let first = self.low >> 24;
                first != 0 && first != 127 && first < 224
            }
            Family::V6 => self.high >> 56 != 0xff && (self.high != 0 || self.low > 1),
        }
    }

    /// The 64-bit key of the first `prefix` bits.
    ///
    /// Prefixes of up to 64 bits are complemented and so kept exact: the key 0 then belongs to no address that may
    /// send, and marks an empty slot. Longer ones are fingerprinted. With a prefix of 0 bits everybody has one key.
    #[inline(always)]
    pub const fn key(self, family: Family, prefix: u8, secret: crate::hash::Secret) -> u64 {
        match family {
            Family::V4 => !(self.low & (u64::MAX << (32 - prefix))),
            Family::V6 if prefix <= 64 => {
                // In two steps, because no shift moves 64 bits at once.
                let half = (64 - prefix) / 2;
                !(self.high & ((u64::MAX << half) << (64 - prefix - half)))
            }
            Family::V6 => crate::hash::fingerprint(self.high, self.low & (u64::MAX << (128 - prefix)), secret),
        }
    }
}

#[cfg(test)]
mod tests;
