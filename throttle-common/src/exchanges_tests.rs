use super::*;
use crate::records::Address;
use proptest::prelude::*;

const SECRET: Secret = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
const NOW: u64 = 123_456_789_012_345;

fn packet(port: u16) -> Packet {
    Packet {
        source: Address::v4(7),
        destination: Address::v4(9),
        source_port: port,
        destination_port: 80,
        ..Packet::default()
    }
}

#[test]
fn the_first_segment_of_a_request_is_the_one_that_counts() {
    let flow = Flow::of(&packet(1), SECRET);
    let cell = flow.begin(0, NOW).unwrap();
    assert_eq!(flow.begin(cell, NOW + 1_000_000), None);
    let took = flow.answer(cell, NOW + 5_000_000).unwrap();
    assert!(took.abs_diff(5_000_000) < 256, "{took}");
}

#[test]
fn another_connections_cell_is_left_alone_until_nobody_waits_for_it() {
    let (one, other) =
        (Flow { tag: 1, ..Flow::of(&packet(1), SECRET) }, Flow { tag: 3, ..Flow::of(&packet(2), SECRET) });
    let cell = one.begin(0, NOW).unwrap();
    assert_eq!(other.begin(cell, NOW + PATIENCE - 1_000), None);
    assert_eq!(other.answer(cell, NOW + 1_000), None, "no answer of one is the other's");
    let later = other.begin(cell, NOW + PATIENCE + 1_000).unwrap();
    assert!(other.waits(later) && !one.waits(later));
    assert_eq!(one.answer(cell, NOW + PATIENCE + 1_000), None, "nobody waits so long");
}

#[test]
fn both_directions_and_every_packet_agree_on_what_is_sampled() {
    let sampled = (0..=u16::MAX).filter(|&port| Flow::of(&packet(port), SECRET).is_sampled(4)).count();
    assert!((3_600..4_600).contains(&sampled), "{sampled} of 65 536, one of 16");
    assert!((0..100).all(|port| Flow::of(&packet(port), SECRET).is_sampled(0)));
}

proptest! {
    #[test]
    fn a_time_lies_in_its_bucket_which_is_a_quarter_of_an_octave_wide(nanos in 0u64..1 << 37) {
        let bucket = bucket(nanos);
        prop_assert!(begins(bucket) <= nanos || bucket == 0);
        prop_assert!(nanos < begins(bucket + 1) || bucket == BUCKETS - 1);
        prop_assert!(bucket == 0 || begins(bucket + 1) * 4 <= begins(bucket) * 5);
    }

    #[test]
    fn what_waits_is_answered_after_as_long_as_it_waited(began in 0u64.., took in 0..PATIENCE - 512) {
        let flow = Flow::of(&packet(3), SECRET);
        let cell = flow.begin(0, began).unwrap();
        prop_assert!(flow.answer(cell, began.wrapping_add(took)).unwrap().abs_diff(took) < 256);
    }
}
