//! Packets, byte for byte: every shape that a network may send, with right checksums, and wrong ones by mutation.
//!
//! `Frame::v4(..)` or `Frame::v6(..)`, then what lies around and in it, then [`Frame::bytes`].

mod checksum;
mod malformed;

pub use checksum::{Checked, internet_checksum, transport_checksum};
pub use malformed::{Dice, malformed, shapes};

use crate::wire::{FAR_MAC, NEAR_MAC};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use throttle_common::packet::{ethertype, protocol};

/// A packet in the making.
#[derive(Clone, Debug)]
pub struct Frame {
    vlans: Vec<(u16, u16)>,
    source: IpAddr,
    destination: IpAddr,
    hops: u8,
    options: Vec<u8>,
    tcp_options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    /// Offset in units of eight bytes, and whether more follow.
    fragment: Option<(u16, bool)>,
    transport: Transport,
    payload: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Transport {
    Tcp { ports: [u16; 2], flags: u8, sequence: u32, acknowledgement: u32 },
    Udp { ports: [u16; 2] },
    Icmp { kind: u8, code: u8 },
    Other(u8),
}

impl Frame {
    /// Between two addresses of one family: a UDP datagram to port 9 unless something else is said.
    pub fn new(source: IpAddr, destination: IpAddr) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "both addresses are of one family");
        Self {
            vlans: Vec::new(),
            source,
            destination,
            hops: 64,
            options: Vec::new(),
            tcp_options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            transport: Transport::Udp { ports: [40_000, 9] },
            payload: Vec::new(),
        }
    }

    /// From an IPv4 source to 192.0.2.1.
    pub fn v4(source: impl Into<Ipv4Addr>) -> Self {
        Self::new(source.into().into(), Ipv4Addr::new(192, 0, 2, 1).into())
    }

    /// From an IPv6 source to 2001:db8::1.
    pub fn v6(source: impl Into<Ipv6Addr>) -> Self {
        Self::new(source.into().into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into())
    }

    /// From a source of either family, given as text.
    pub fn from(source: &str) -> Self {
        match source.parse().expect("the test names an address") {
            IpAddr::V4(source) => Self::v4(source),
            IpAddr::V6(source) => Self::v6(source),
        }
    }

    /// To this address.
    #[must_use]
    pub fn to(mut self, destination: &str) -> Self {
        self.destination = destination.parse().expect("the test names an address");
        self
    }

    /// With so many hops left, instead of 64.
    #[must_use]
    pub fn hops(mut self, left: u8) -> Self {
        self.hops = left;
        self
    }

    /// Inside another VLAN tag: the first call writes the innermost one, an 802.1Q tag.
    #[must_use]
    pub fn vlan(mut self, number: u16) -> Self {
        let kind = if self.vlans.is_empty() { ethertype::VLAN } else { ethertype::QINQ };
        self.vlans.insert(0, (kind, number));
        self
    }

    /// With IPv4 options: so many 32-bit words of no-operation.
    #[must_use]
    pub fn options(mut self, words: usize) -> Self {
        self.options = vec![1; words * 4];
        self
    }

    /// With another IPv6 extension header of this kind, `length` bytes long: a multiple of 8.
    #[must_use]
    pub fn extension(mut self, kind: u8, length: usize) -> Self {
        let mut body = vec![0; length];
        body[1] = match kind {
            protocol::AUTHENTICATION => (length / 4 - 2) as u8,
            _ => (length / 8 - 1) as u8,
        };
        // One option that pads the rest (RFC 8200, section 4.2) where the header holds options.
        if matches!(kind, protocol::HOP_BY_HOP | protocol::DESTINATION_OPTIONS) {
            body[2] = 1;
            body[3] = (length - 4) as u8;
        }
        self.extensions.push((kind, body));
        self
    }

    /// A fragment: its offset in bytes, a multiple of 8, and whether more follow.
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = Some((offset / 8, more));
        self
    }

    /// A TCP segment.
    #[must_use]
    pub fn tcp(mut self, source_port: u16, destination_port: u16, flags: u8) -> Self {
        let ports = [source_port, destination_port];
        self.transport = Transport::Tcp { ports, flags, sequence: 0x0102_0304, acknowledgement: 0 };
        self
    }

    /// With this sequence number, in a TCP segment.
    #[must_use]
    pub fn sequence(mut self, number: u32) -> Self {
        if let Transport::Tcp { sequence, .. } = &mut self.transport {
            *sequence = number;
        }
        self
    }

    /// With this acknowledgement number, in a TCP segment.
    #[must_use]
    pub fn acknowledging(mut self, number: u32) -> Self {
        if let Transport::Tcp { acknowledgement, .. } = &mut self.transport {
            *acknowledgement = number;
        }
        self
    }

    /// With these options in a TCP segment, padded to whole words.
    #[must_use]
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        self.tcp_options = options.to_vec();
        self.tcp_options.resize(options.len().next_multiple_of(4), 0);
        self
    }

    /// A UDP datagram.
    #[must_use]
    pub fn udp(mut self, source_port: u16, destination_port: u16) -> Self {
        self.transport = Transport::Udp { ports: [source_port, destination_port] };
        self
    }

    /// An ICMP or ICMPv6 message, as the addresses have it.
    #[must_use]
    pub fn icmp(mut self, kind: u8, code: u8) -> Self {
        self.transport = Transport::Icmp { kind, code };
        self
    }

    /// An echo request of either family.
    #[must_use]
    pub fn echo(self) -> Self {
        let kind = if self.source.is_ipv4() { 8 } else { 128 };
        self.icmp(kind, 0)
    }

    /// A payload of another protocol.
    #[must_use]
    pub fn protocol(mut self, number: u8) -> Self {
        self.transport = Transport::Other(number);
        self
    }

    /// With so many bytes of payload.
    #[must_use]
    pub fn payload(mut self, length: usize) -> Self {
        self.payload = (0..length).map(|at| at as u8).collect();
        self
    }

    /// Padded by payload so that the frame is so long.
    #[must_use]
    pub fn length(self, total: usize) -> Self {
        let bare = self.clone().payload(0).bytes().len();
        self.payload(total.checked_sub(bare).expect("the headers fit in the length asked for"))
    }

    /// The packet as it lies on the wire, without the frame check sequence.
    pub fn bytes(&self) -> Vec<u8> {
        self.around(&self.segment())
    }

    /// The packet in two fragments, of which the first brings so many bytes behind the network header: a multiple of 8.
    pub fn in_two(&self, first: u16) -> [Vec<u8>; 2] {
        let segment = self.segment();
        let (head, tail) = segment.split_at(first.into());
        [(0, true, head), (first, false, tail)]
            .map(|(offset, more, part)| self.clone().fragment(offset, more).around(part))
    }

    /// What lies around the transport header and the payload, and they.
    fn around(&self, segment: &[u8]) -> Vec<u8> {
        let mut frame = [FAR_MAC, NEAR_MAC].concat();
        for (kind, number) in &self.vlans {
            frame.extend(kind.to_be_bytes());
            frame.extend(number.to_be_bytes());
        }
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend(ethertype::IPV4.to_be_bytes());
                frame.extend(self.ipv4(source, destination, segment.len()));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend(ethertype::IPV6.to_be_bytes());
                frame.extend(self.ipv6(source, destination, segment.len()));
            }
            _ => unreachable!("both addresses are of one family since `new`"),
        }
        frame.extend(segment);
        frame
    }

    fn protocol_number(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => protocol::TCP,
            Transport::Udp { .. } => protocol::UDP,
            Transport::Icmp { .. } if self.source.is_ipv4() => protocol::ICMP,
            Transport::Icmp { .. } => protocol::ICMPV6,
            Transport::Other(number) => number,
        }
    }

    /// What the fragments of a packet have in common, and no others that a test sends.
    fn identification(&self) -> u16 {
        match self.transport {
            Transport::Tcp { ports: [source, _], .. } | Transport::Udp { ports: [source, _] } => source,
            Transport::Icmp { .. } | Transport::Other(_) => 0x1234,
        }
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr, segment: usize) -> Vec<u8> {
        let length = 20 + self.options.len();
        let (offset, more) = self.fragment.unwrap_or_default();
        let mut header = vec![0x40 | (length / 4) as u8, 0];
        header.extend(((length + segment) as u16).to_be_bytes());
        header.extend(self.identification().to_be_bytes());
        header.extend((offset | u16::from(more) << 13).to_be_bytes());
        header.extend([self.hops, self.protocol_number(), 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(&self.options);
        let sum = internet_checksum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr, segment: usize) -> Vec<u8> {
        let mut extensions = self.extensions.clone();
        if let Some((offset, more)) = self.fragment {
            let place = (offset << 3 | u16::from(more)).to_be_bytes();
            let [high, low] = self.identification().to_be_bytes();
            extensions.push((protocol::FRAGMENT, vec![0, 0, place[0], place[1], 0x12, 0x34, high, low]));
        }
        let mut rest = Vec::new();
        let mut next = self.protocol_number();
        for (kind, mut body) in extensions.into_iter().rev() {
            body[0] = next;
            next = kind;
            rest.splice(0..0, body);
        }
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(((rest.len() + segment) as u16).to_be_bytes());
        header.extend([next, self.hops]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(rest);
        header
    }

    /// The transport header with its checksum, and the payload; of a later fragment only the payload.
    fn segment(&self) -> Vec<u8> {
        let mut segment = Vec::new();
        let checksum_at = match &self.transport {
            _ if self.fragment.is_some_and(|(offset, _)| offset > 0) => None,
            Transport::Tcp { ports, flags, sequence, acknowledgement } => {
                segment.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
                segment.extend(sequence.to_be_bytes());
                segment.extend(acknowledgement.to_be_bytes());
                let words = 5 + (self.tcp_options.len() / 4) as u8;
                segment.extend([words << 4, *flags, 0x20, 0, 0, 0, 0, 0]);
                segment.extend(&self.tcp_options);
                Some(16)
            }
            Transport::Udp { ports } => {
                segment.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
                segment.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                segment.extend([0, 0]);
                Some(6)
            }
            Transport::Icmp { kind, code } => {
                segment.extend([*kind, *code, 0, 0, 0, 1, 0, 1]);
                Some(2)
            }
            Transport::Other(_) => None,
        };
        segment.extend(&self.payload);
        if let Some(at) = checksum_at {
            let sum = transport_checksum(self.source, self.destination, self.protocol_number(), &segment);
            segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        segment
    }
}
