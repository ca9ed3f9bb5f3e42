use super::*;
use crate::records::{Address, CONNECTION_LIMITS, Hold};
use proptest::prelude::*;

const SECRET: Secret = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
const NOW: u64 = 77 << 30;
const SIDES: [Side; 2] = [Side::Source, Side::Service];

fn open() -> Connection {
    let holds = [Hold::NONE; CONNECTION_LIMITS];
    let state = Connection::FORWARDED;
    Connection { since: NOW, state, seen: moment(NOW), finished: [0; 2], closing: [0; 2], padding: [0; 6], holds }
}

/// A connection with what each side has sent, acknowledged and ended.
struct Talk {
    connection: Connection,
    next: [u32; 2],
    ended: [bool; 2],
    known: [bool; 2],
}

impl Talk {
    fn new(first: [u32; 2]) -> Self {
        Self { connection: open(), next: first, ended: [false; 2], known: [false; 2] }
    }

    /// A segment that acknowledges all that the other side has sent.
    fn says(&mut self, from: Side, payload: u32, flags: u8) -> bool {
        let (own, other) = (from as usize, from.other() as usize);
        let flags = u32::from(flags | tcp::ACK);
        let segment = Segment { sequence: self.next[own], acknowledged: self.next[other], flags, payload };
        self.next[own] = segment.next();
        self.ended[own] |= flags & u32::from(tcp::FIN) != 0;
        self.known[own] |= self.ended[other];
        self.connection.follow(from, &segment, NOW)
    }
}

#[test]
fn it_is_closed_by_the_last_acknowledgement_whoever_ends_first() {
    for (first, second) in [SIDES.into(), (Side::Service, Side::Source)] {
        let mut talk = Talk::new([u32::MAX - 1, 9]);
        assert!(!talk.says(first, 10, 0) && !talk.says(first, 3, tcp::FIN));
        // Half closed: the other one goes on.
        assert!(!talk.says(second, 0, 0) && !talk.says(second, 1000, 0) && !talk.says(first, 0, 0));
        assert!(!talk.says(second, 0, tcp::FIN));
        assert!(talk.says(first, 0, 0));
    }
}

#[test]
fn an_end_that_is_not_acknowledged_closes_nothing() {
    let mut connection = open();
    let segment =
        |sequence, acknowledged, flags: u8| Segment { sequence, acknowledged, flags: flags.into(), payload: 0 };
    assert!(!connection.follow(Side::Source, &segment(100, 500, tcp::FIN | tcp::ACK), NOW));
    assert!(
        !connection.follow(Side::Service, &segment(500, 100, tcp::FIN | tcp::ACK), NOW),
        "it has not seen that one"
    );
    assert!(!connection.follow(Side::Source, &segment(101, 501, tcp::ACK), NOW));
    assert!(!connection.follow(Side::Service, &segment(501, 101, 0), NOW), "no acknowledgement");
    assert!(connection.follow(Side::Service, &segment(501, 101, tcp::ACK), NOW));
}

#[test]
fn a_reset_by_either_closes_it() {
    for side in SIDES {
        assert!(open().follow(side, &Segment { flags: tcp::RST.into(), ..Segment::default() }, NOW));
    }
}

#[test]
fn a_packet_writes_only_where_it_says_something_new() {
    let mut connection = open();
    let data = Segment { flags: tcp::ACK.into(), payload: 9, ..Segment::default() };
    assert!(connection.knows(&data, NOW) && !connection.knows(&data, NOW + (1 << 30)));
    assert!(!connection.knows(&Segment { flags: tcp::FIN.into(), ..data }, NOW));
    connection.closing[1] = ENDED;
    assert!(!connection.knows(&data, NOW));
}

#[test]
fn silence_is_counted_in_seconds() {
    assert_eq!(seconds_since(moment(NOW), NOW), 0);
    assert_eq!(seconds_since(moment(NOW), NOW + 900_000_000_000), 899);
    assert_eq!(seconds_since(moment(NOW) + 1, NOW), 0, "another CPU was ahead");
}

#[test]
fn only_the_acknowledgement_of_what_was_said_to_this_source_answers_it() {
    let ends = |port| Ends { source: Address::v4(7), source_port: port, family: 4, ..Ends::default() };
    let (one, other) = (Awaited::of(&ends(1), SECRET), Awaited::of(&ends(2), SECRET));
    assert_ne!(one, other);
    let cell = one.note(u32::MAX);
    assert!(one.answers(cell, 0) && !one.answers(cell, u32::MAX) && !one.answers(cell, 1));
    assert!(!other.answers(cell, 0) && !one.answers(0, 1) && !one.answers(0, 0));
}

proptest! {
    #[test]
    fn it_is_closed_exactly_when_both_have_acknowledged_the_others_end(
        first: [u32; 2],
        said in prop::collection::vec((any::<bool>(), 0u32..3000, prop::bool::weighted(0.2)), 1..40),
    ) {
        let mut talk = Talk::new(first);
        for (service, payload, ends) in said {
            let from = SIDES[usize::from(service)];
            // Whoever has ended says no more than acknowledgements.
            let ended = talk.ended[from as usize];
            let (payload, flags) = if ended { (0, 0) } else { (payload, if ends { tcp::FIN } else { 0 }) };
            let closed = talk.says(from, payload, flags);
            prop_assert_eq!(closed, talk.ended == [true; 2] && talk.known == [true; 2]);
            if closed {
                break;
            }
        }
    }
}
