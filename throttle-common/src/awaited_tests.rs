use super::*;
use crate::records::Address;
use proptest::prelude::*;
use std::vec::Vec;

const SECRET: Secret = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
const ACK: u8 = tcp::ACK;

fn between(port: u16) -> Awaited {
    let source = Address::v4(7);
    Awaited::of(&Ends { source, source_port: port, family: 4, ..Ends::default() }, SECRET)
}

fn segment(sequence: u32, payload: u32, flags: u8) -> Segment {
    Segment { sequence, acknowledged: 7, flags: flags.into(), payload }
}

#[test]
fn only_the_acknowledgement_of_what_was_said_to_this_source_answers_it() {
    let (one, other) = (between(1), between(2));
    assert_ne!(one, other);
    let cell = one.note(u32::MAX, 7);
    assert!(one.acknowledges(cell, 7) && !one.acknowledges(cell, 8) && !other.acknowledges(cell, 7));
    assert!(one.answers(cell, 0) && !one.answers(cell, u32::MAX) && !one.answers(cell, 1));
    assert!(!other.answers(cell, 0) && !one.answers(0, 1) && !one.answers(0, 0));
}

#[test]
fn data_is_no_syn_ack_and_a_syn_ack_no_data_and_either_takes_the_others_cell() {
    for port in 0..1000 {
        let awaited = between(port);
        let (syn_ack, data) = (awaited.note(99, 7), awaited.note_data(0, &segment(90, 10, ACK)));
        assert!(awaited.answers(syn_ack, 100) && !awaited.reveals(syn_ack, 100));
        assert!(awaited.reveals(data, 100) && !awaited.answers(data, 100));
        assert_eq!(awaited.note_data(syn_ack, &segment(90, 10, ACK)), data);
        assert!(!awaited.reveals(0, 0), "nobody has written it");
        let other = between(port + 1000);
        assert!(other.note_data(data, &segment(90, 10, ACK)) != data && !other.reveals(data, 100));
    }
}

#[test]
fn only_data_waits_and_the_services_end_or_reset_makes_it_wait_no_more() {
    let awaited = between(1);
    let data = awaited.note_data(0, &segment(90, 10, ACK));
    for cell in [0, data, awaited.note(3, 7)] {
        for silent in
            [segment(100, 0, ACK), segment(100, 5, 0), segment(100, 5, tcp::SYN), segment(100, 5, ACK | tcp::SYN)]
        {
            assert_eq!(awaited.note_data(cell, &silent), cell, "{silent:?}");
        }
        for last in [segment(100, 0, ACK | tcp::FIN), segment(100, 5, ACK | tcp::FIN), segment(100, 0, tcp::RST)] {
            assert_eq!(awaited.note_data(cell, &last), if cell == data { 0 } else { cell }, "{last:?}");
        }
    }
}

#[test]
fn whoever_acknowledges_the_end_of_what_is_sent_again_has_closed() {
    let awaited = between(1);
    let again = awaited.note_data(0, &segment(90, 10, ACK));
    assert!(awaited.reveals(again, 100) && !awaited.reveals(again, 101));
}

#[test]
fn the_first_of_a_long_stretch_waits_until_it_is_far_behind() {
    let awaited = between(1);
    let begin = u32::MAX - 100;
    let mut cell = awaited.note_data(0, &segment(begin, 1, ACK));
    for sent in (1..FAR).step_by(50_000) {
        cell = awaited.note_data(cell, &segment(begin.wrapping_add(sent), 1, ACK));
        // What comes late, or again, changes nothing.
        assert_eq!(awaited.note_data(cell, &segment(begin, 1, ACK)), cell);
        assert!(awaited.reveals(cell, begin.wrapping_add(1)));
        let last = begin.wrapping_add(sent + 1);
        assert!(awaited.reveals(cell, last), "the end of the last");
        assert_eq!(awaited.reveals(cell, last.wrapping_add(1)), sent > STRETCH, "more than that");
    }
    let last = begin.wrapping_add(1);
    cell = awaited.note_data(cell, &segment(begin.wrapping_add(FAR), 1, ACK));
    assert!(!awaited.reveals(cell, last) && awaited.reveals(cell, begin.wrapping_add(FAR + 1)));
}

proptest! {
    #[test]
    fn what_was_sent_and_nothing_else_reveals_a_connection(
        first: u32,
        payloads in prop::collection::vec(1u32..9000, 1..20),
        acknowledged in -100_000i32..100_000,
    ) {
        let (awaited, mut cell, mut next) = (between(1), 0, first);
        let mut ends = Vec::new();
        for payload in payloads {
            cell = awaited.note_data(cell, &segment(next, payload, ACK));
            next = next.wrapping_add(payload);
            ends.push(next.wrapping_sub(first));
        }
        // From the first end to the last, or to wherever it may be.
        let (begin, last) = (ends[0], *ends.last().expect("one"));
        let end = if last - begin < STRETCH { last } else { begin + FAR - 1 };
        let number = first.wrapping_add_signed(acknowledged);
        let sent = acknowledged.cast_unsigned();
        prop_assert_eq!(awaited.reveals(cell, number), (begin..=end).contains(&sent));
    }
}
