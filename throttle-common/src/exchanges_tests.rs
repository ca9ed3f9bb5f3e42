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
fn the_last_segment_of_a_request_is_the_one_that_counts() {
    let flow = Flow::of(&packet(1), SECRET);
    let cell = flow.begin(NOW, false);
    assert!(
        flow.is_news(0, NOW) && !flow.is_news(cell, NOW + AT_ONCE - 1_000),
        "what follows at once is as good as one"
    );
    let later = NOW + 3_000_000_000;
    assert!(flow.is_news(cell, later));
    let took = flow.answer(flow.begin(later, false), later + 5_000_000).unwrap();
    assert!(took.abs_diff(5_000_000) < 256, "{took}");
}

/// Two connections that fall on one cell.
fn two() -> [Flow; 2] {
    [Flow { tag: 1, ..Flow::of(&packet(1), SECRET) }, Flow { tag: 3, ..Flow::of(&packet(2), SECRET) }]
}

#[test]
fn another_connections_cell_is_left_alone_until_nobody_waits_for_it() {
    let [one, other] = two();
    let cell = one.begin(NOW, false);
    assert!(!other.is_news(cell, NOW + PATIENCE - 1_000));
    assert_eq!(other.answer(cell, NOW + 1_000), None, "no answer of one is the other's");
    assert!(other.is_news(cell, NOW + PATIENCE + 1_000));
    let later = other.begin(NOW + PATIENCE + 1_000, false);
    assert!(other.waits(later) && !one.waits(later));
    assert_eq!(one.answer(cell, NOW + PATIENCE + 1_000), None, "nobody waits so long");
}

#[test]
fn one_that_nobody_knows_keeps_no_other_out_and_is_measured_where_it_is_answered() {
    let [one, other] = two();
    let cell = one.begin(NOW, true);
    assert!(is_doubted(cell) && !is_doubted(other.begin(NOW, false)));
    assert!(one.answer(cell, NOW + 5_000_000).unwrap().abs_diff(5_000_000) < 256);
    assert!(other.is_news(cell, NOW + 1));
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
        let cell = flow.begin(began, false);
        prop_assert!(flow.answer(cell, began.wrapping_add(took)).unwrap().abs_diff(took) < 256);
    }
}
