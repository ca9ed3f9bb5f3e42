//! The laws of pages: whose segments are recognised, what is told, and that the parts of a checksum are that of the whole.

use super::*;
use crate::{
    packet::{checksum::fold, protocol},
    records::Address,
};
use proptest::prelude::*;
use std::{string::String, vec::Vec};

const SECRET: Secret = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

fn packets() -> impl Strategy<Value = Packet> {
    let ends = (any::<[u64; 4]>(), any::<[u16; 2]>(), any::<bool>(), any::<u8>(), 0..1500_u16);
    ends.prop_map(|([a, b, c, d], [source_port, destination_port], six, flags, payload)| {
        let address = |high, low| {
            if six { Address { high, low } } else { Address::v4(low as u32) }
        };
        Packet {
            family: if six { Family::V6 } else { Family::V4 },
            source: address(a, b),
            destination: address(c, d),
            protocol: protocol::TCP,
            flags: flags & !tcp::SYN | tcp::ACK,
            source_port,
            destination_port,
            payload,
            ..Packet::default()
        }
    })
}

proptest! {
    #[test]
    fn who_has_seen_nothing_or_the_whole_page_is_recognised_and_nobody_else(
        packet in packets(),
        at in any::<u32>(),
        lengths in any::<[u16; 2]>(),
        stray in any::<u32>(),
    ) {
        let cookie = cookie(&packet, at, SECRET);
        let whole = |length: u16| cookie.wrapping_add(1 + HEAD_LENGTH as u32 + u32::from(length) + 1);
        let speaks = (packet.payload > 0 || packet.flags & tcp::FIN != 0) && packet.flags & tcp::RST == 0;
        let step = |acknowledged| read(&packet, acknowledged, cookie, lengths);
        prop_assert_eq!(step(cookie.wrapping_add(1)), if speaks { Step::Tell } else { Step::Swallow });
        for length in lengths {
            prop_assert_eq!(step(whole(length)), if speaks { Step::Acknowledge } else { Step::Swallow });
        }
        if ![cookie.wrapping_add(1), whole(lengths[0]), whole(lengths[1])].contains(&stray) {
            prop_assert_eq!(step(stray), Step::None);
        }
    }

    #[test]
    fn a_cookie_is_of_both_ends_of_the_time_and_of_the_secret(packet in packets(), at in any::<u32>(), other in any::<u64>()) {
        let of = |packet: &Packet| cookie(packet, at, SECRET);
        let mine = of(&packet);
        let Packet { source, destination, source_port, destination_port, .. } = packet;
        // One in 2^32 agrees by chance.
        let others = [
            cookie(&packet, at.wrapping_add(1), SECRET),
            cookie(&packet, at, [SECRET[0] ^ (other | 1), SECRET[1]]),
            of(&Packet { source: Address { low: source.low ^ 1, ..source }, ..packet }),
            of(&Packet { destination: Address { low: destination.low ^ 1, ..destination }, ..packet }),
            of(&Packet { source_port: source_port ^ 1, ..packet }),
            of(&Packet { destination_port: destination_port ^ 1, ..packet }),
        ];
        prop_assert!(others.iter().filter(|&&other| other == mine).count() < 2);
        prop_assert_eq!(of(&Packet { payload: 0, flags: tcp::ACK, ..packet }), mine, "the client's number is not in it");
    }

    #[test]
    fn a_page_says_the_seconds_and_never_more_than_a_day(seconds in prop_oneof![0..200_000_u64, any::<u64>()]) {
        let head = [&HEAD[..], &digits(seconds)].concat();
        let text = String::from_utf8(head).unwrap();
        let (_, told) = text.split_once("Retry-After:").unwrap();
        prop_assert_eq!(told.trim_start().parse::<u64>().unwrap(), seconds.min(LONGEST));
        prop_assert!(!told.trim_start().starts_with('0') || seconds == 0, "{}", told);
    }

    #[test]
    fn the_sums_of_its_parts_are_that_of_a_page(text in prop::collection::vec(any::<u8>(), 1..=REST_MAX), seconds in 0..LONGEST) {
        let page = Page::of(&text).unwrap();
        let digits = digits(seconds);
        let whole: Vec<u8> = [&HEAD[..], &digits, page.text()].concat();
        prop_assert_eq!(page.text(), &text);
        prop_assert_eq!(fold(head_sum(digits) + u64::from(page.sum)), fold(sum(&whole)));
    }

    #[test]
    fn nobody_is_told_to_come_back_before_there_is_room(nanos in prop_oneof![0..10_000_000_000_u64, 0..u64::MAX / 2]) {
        let told = seconds(nanos);
        prop_assert!(told >= 1 && u128::from(told) * 1_000_000_000 >= u128::from(nanos));
        prop_assert!(told == 1 || (u128::from(told) - 1) * 1_000_000_000 < u128::from(nanos));
    }
}

#[test]
fn a_cookie_holds_for_the_time_after_its_own() {
    let seen: Vec<_> = [0, 1 << SLOT, 2 << SLOT].map(slot).into_iter().collect();
    assert_eq!(seen, [0, 1, 2], "2^{SLOT} ns are one slot");
    assert_eq!(slot((1 << SLOT) - 1), 0);
}

#[test]
fn a_page_that_is_too_long_or_empty_is_none() {
    assert!(Page::of(&[b'x'; REST_MAX + 1]).is_none() && Page::of(b"").is_none());
}
