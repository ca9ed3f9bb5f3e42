//! The internet checksum (RFC 1071): to write it, and to check what the kernel program wrote.

use std::net::IpAddr;
use throttle_common::packet::{self, Family, protocol};

/// The complement of the sum of all 16-bit words; of a correct header, checksum included, it is 0.
pub fn internet_checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for word in part.chunks(2) {
            sum += u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The checksum of a TCP, UDP, ICMP or ICMPv6 segment; of a correct one, checksum included, it is 0.
pub fn transport_checksum(source: IpAddr, destination: IpAddr, protocol_number: u8, segment: &[u8]) -> u16 {
    let length = (segment.len() as u32).to_be_bytes();
    let kind = [0, 0, 0, protocol_number];
    match (source, destination) {
        (IpAddr::V4(_), _) if protocol_number == protocol::ICMP => internet_checksum(&[segment]),
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            internet_checksum(&[&source.octets(), &destination.octets(), &kind, &length, segment])
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            internet_checksum(&[&source.octets(), &destination.octets(), &length, &kind, segment])
        }
        _ => unreachable!("both addresses are of one family"),
    }
}

/// A frame whose headers agree with each other, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked<'a> {
    /// Sender's MAC address.
    pub from_mac: &'a [u8],
    /// Receiver's MAC address.
    pub to_mac: &'a [u8],
    /// The VLAN tags as they are.
    pub tags: &'a [u8],
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// What the segment is.
    pub protocol: u8,
    /// Hops that it may go.
    pub hops: u8,
    /// The transport header and its payload.
    pub segment: &'a [u8],
}

impl<'a> Checked<'a> {
    /// Takes an unfragmented frame apart; fails where a length or a checksum is wrong.
    pub fn of(frame: &'a [u8]) -> Result<Self, String> {
        let parsed = packet::parse_bytes(frame).map_err(|reason| reason.name().to_owned())?;
        let (network, transport) = (usize::from(parsed.network), usize::from(parsed.transport));
        let ip = &frame[network..];
        let (source, destination, hops, end): (IpAddr, IpAddr, _, _) = match parsed.family {
            Family::V4 => {
                if internet_checksum(&[&ip[..transport - network]]) != 0 {
                    return Err("IPv4 header checksum".to_owned());
                }
                let end = network + usize::from(u16::from_be_bytes([ip[2], ip[3]]));
                (octets::<4>(ip, 12).into(), octets::<4>(ip, 16).into(), ip[8], end)
            }
            Family::V6 => {
                let end = network + 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
                (octets::<16>(ip, 8).into(), octets::<16>(ip, 24).into(), ip[7], end)
            }
        };
        let segment = &frame[transport..end];
        let summed = matches!(parsed.protocol, protocol::TCP | protocol::UDP | protocol::ICMP | protocol::ICMPV6);
        if summed && transport_checksum(source, destination, parsed.protocol, segment) != 0 {
            return Err("transport checksum".to_owned());
        }
        Ok(Self {
            from_mac: &frame[6..12],
            to_mac: &frame[..6],
            tags: &frame[12..network - 2],
            source,
            destination,
            protocol: parsed.protocol,
            hops,
            segment,
        })
    }
}

fn octets<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has the array's length")
}
