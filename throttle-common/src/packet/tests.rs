//! What the parser promises for frames of every kind, and for no frame at all.

use super::*;
use crate::words::Reason;
use proptest::prelude::*;
use std::{vec, vec::Vec};

fn ethernet(ethertype: u16, rest: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &ethertype.to_be_bytes(), rest].concat()
}

fn v4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7];
    header[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    ethernet(ethertype::IPV4, &[&header[..], payload].concat())
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    header[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    header.extend(0x2001_0db8_0000_0000_0000_0000_0000_0001u128.to_be_bytes());
    header.extend(0x2001_0db8_0000_0000_0000_0000_0000_0002u128.to_be_bytes());
    ethernet(ethertype::IPV6, &[&header[..], payload].concat())
}

const UDP: [u8; 8] = [0x12, 0x34, 0, 53, 0, 8, 0, 0];

fn syn() -> [u8; 20] {
    let mut segment = [0; 20];
    segment[3] = 80;
    segment[12] = 0x50;
    segment[13] = tcp::SYN;
    segment
}

proptest! {
    #[test]
    fn reads_any_bytes_without_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_bytes(&bytes);
    }

    #[test]
    fn offsets_stay_within_the_frame(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(packet) = parse_bytes(&v6(0, &bytes)) {
            prop_assert!(packet.network <= packet.transport && usize::from(packet.transport) <= 54 + bytes.len());
        }
    }
}

#[test]
fn every_truncation_has_a_named_reason() {
    for frame in [v4(protocol::TCP, 0, &syn()), v6(protocol::TCP, &syn()), v4(protocol::UDP, 0, &UDP)] {
        assert!(parse_bytes(&frame).is_ok());
        for length in 0..frame.len() {
            let reason = parse_bytes(&frame[..length]).expect_err("a truncated frame is refused");
            assert!(reason.is_shape(), "{length} bytes: {reason:?}");
        }
    }
}

#[test]
fn options_of_a_segment_are_in_its_first_fragment() {
    let mut segment = syn();
    segment[12] = 0x60;
    let options = [&segment[..], &[1; 4]].concat();
    assert!(parse_bytes(&v4(protocol::TCP, 0x2000, &options)).is_ok());
    assert_eq!(parse_bytes(&v4(protocol::TCP, 0x2000, &segment)), Err(Reason::TruncatedTcp));
    assert_eq!(parse_bytes(&v4(protocol::TCP, 0, &segment)), Err(Reason::MalformedTcp));
}

#[test]
fn ports_in_the_padding_are_not_ports() {
    let mut frame = v4(protocol::UDP, 0, &[]);
    frame.extend(UDP);
    assert_eq!(parse_bytes(&frame), Err(Reason::TruncatedUdp));
}

#[test]
fn a_later_fragment_has_addresses_and_no_ports() {
    let packet = parse_bytes(&v4(protocol::UDP, 185, &[0xff; 3])).unwrap();
    assert_eq!((packet.part, packet.destination_port, packet.source.low), (Part::Later, 0, 0xc000_0201));
    let fragment = [protocol::UDP, 0, 0, 8, 0, 0, 0, 1, 0xff];
    assert_eq!(parse_bytes(&v6(protocol::FRAGMENT, &fragment)).unwrap().part, Part::Later);
}

#[test]
fn extension_headers_lead_to_the_ports() {
    let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
    let chain =
        [options(protocol::ROUTING), options(protocol::DESTINATION_OPTIONS), options(protocol::UDP), UDP].concat();
    let packet = parse_bytes(&v6(protocol::HOP_BY_HOP, &chain)).unwrap();
    assert_eq!((packet.protocol, packet.destination_port, packet.transport), (protocol::UDP, 53, 14 + 40 + 24));
}

#[test]
fn too_many_extension_headers_are_named() {
    let chain = [protocol::DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0].repeat(MAX_EXTENSIONS + 1);
    assert_eq!(parse_bytes(&v6(protocol::DESTINATION_OPTIONS, &chain)), Err(Reason::TooManyExtensions));
}

#[test]
fn tags_are_read_up_to_two() {
    let bare = v4(protocol::TCP, 0, &syn());
    let tagged = |tags: usize| {
        let mut frame = bare[..12].to_vec();
        for _ in 0..tags {
            frame.extend([0x81, 0, 0, 7]);
        }
        frame.extend(&bare[12..]);
        parse_bytes(&frame)
    };
    assert_eq!(tagged(2).map(|packet| packet.network), Ok(22));
    assert_eq!(tagged(3), Err(Reason::TooManyVlans));
}

#[test]
fn only_a_bare_syn_opens_a_connection() {
    for (flags, opens) in [(tcp::SYN, true), (tcp::SYN | tcp::ACK, false), (tcp::ACK, false), (0xc2, true)] {
        let mut segment = syn();
        segment[13] = flags;
        assert_eq!(parse_bytes(&v4(protocol::TCP, 0, &segment)).unwrap().opens_connection(), opens);
    }
}

#[test]
fn errors_fragments_and_groups_are_never_answered() {
    assert!(parse_bytes(&v4(protocol::UDP, 0, &UDP)).unwrap().may_be_answered());
    assert!(!parse_bytes(&v4(protocol::UDP, 0x2000, &UDP)).unwrap().may_be_answered());
    assert!(!parse_bytes(&v4(protocol::ICMP, 0, &[3, 1, 0, 0])).unwrap().may_be_answered());
    assert!(parse_bytes(&v6(protocol::ICMPV6, &[128, 0, 0, 0])).unwrap().may_be_answered());
    let mut group = v4(protocol::UDP, 0, &UDP);
    group[30] = 224;
    assert!(!parse_bytes(&group).unwrap().may_be_answered());
}

#[test]
fn a_key_forgets_the_low_bits_and_only_those() {
    let secret = [1, 2];
    let address = Address::v6(0x2001_0db8_0001_0002_0003_0004_0005_0006);
    let neighbour = Address { low: !address.low, ..address };
    assert_eq!(address.key(Family::V6, 64, secret), neighbour.key(Family::V6, 64, secret));
    assert_ne!(address.key(Family::V6, 96, secret), neighbour.key(Family::V6, 96, secret));
    let (a, b) = (Address::v4(0x0a00_0001), Address::v4(0x0a00_00ff));
    assert_eq!(a.key(Family::V4, 24, secret), b.key(Family::V4, 24, secret));
    assert_ne!(a.key(Family::V4, 32, secret), b.key(Family::V4, 32, secret));
    assert_ne!(Address::v4(0).key(Family::V4, 32, secret), 0, "an empty slot is nobody's");
    let everybody =
        [address.key(Family::V6, 0, secret), neighbour.key(Family::V6, 0, secret), a.key(Family::V4, 0, secret)];
    assert_eq!(everybody, [u64::MAX; 3], "without bits all are one");
    assert_eq!(address.key(Family::V6, 1, secret), !(address.high & 1 << 63));
}
