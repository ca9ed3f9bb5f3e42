use super::*;
use proptest::prelude::*;

const NOW: u64 = 77 << 30;
const SIDES: [Side; 2] = [Side::Source, Side::Service];

/// A connection whose service waits for this byte of the source's.
fn open(next: u32) -> Connection {
    let state = Connection::FORWARDED;
    Connection { since: NOW, state, seen: moment(NOW), said: [next, 0], acknowledged: next, ..Connection::NEW }
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
        Self { connection: open(first[0]), next: first, ended: [false; 2], known: [false; 2] }
    }

    /// A segment that acknowledges all that the other side has sent.
    fn says(&mut self, from: Side, payload: u32, flags: u8) -> bool {
        let (own, other) = (from as usize, 1 - from as usize);
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
    let mut connection = open(100);
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

/// A sound reset with a number.
fn reset(sequence: u32) -> Segment {
    Segment { sequence, flags: u32::from(tcp::RST) | Segment::SOUND, ..Segment::default() }
}

#[test]
fn a_reset_that_may_get_lost_is_doubted_for_good_and_a_sound_one_beside_it_is_not() {
    let unsound = |sequence| Segment { flags: tcp::RST.into(), ..reset(sequence) };
    let heard = Segment { acknowledged: 100, flags: tcp::ACK.into(), ..Segment::default() };
    let mut connection = open(100);
    assert!(!connection.follow(Side::Source, &unsound(100), NOW) && !connection.follow(Side::Service, &heard, NOW));
    assert_eq!(connection.patience(900), u64::from(DOUBTED_FOR));
    assert!(connection.follow(Side::Source, &reset(100), NOW));

    // One that waits to become certain stays as it is.
    let mut connection = Connection { acknowledged: 90, ..open(100) };
    for segment in [reset(100), unsound(100)] {
        assert!(!connection.follow(Side::Source, &segment, NOW));
    }
    assert!(connection.follow(Side::Service, &heard, NOW));

    let mut talk = Talk::new([100, 9]);
    talk.says(Side::Source, 0, tcp::FIN);
    assert!(!talk.connection.follow(Side::Source, &unsound(100), NOW), "the byte before its end");
}

#[test]
fn a_source_that_resets_must_name_the_very_byte() {
    for number in [0, 99, 100, 101, u32::MAX] {
        assert_eq!(open(100).follow(Side::Source, &reset(number), NOW), number == 100, "{number}");
    }
}

/// A reset as whoever breaks a connection off sends it: with the next byte of both sides.
fn breaks_off(sequence: u32, acknowledged: u32) -> Segment {
    Segment { sequence, acknowledged, flags: u32::from(tcp::RST | tcp::ACK), payload: 0 }
}

#[test]
fn a_service_that_breaks_off_names_the_next_byte_of_both_sides() {
    let mut talk = Talk::new([100, 500]);
    talk.says(Side::Service, 1, 0);
    assert!(!talk.says(Side::Source, 10, 0));
    // It may have heard all that, or some of it.
    for heard in [100, 104, 110] {
        assert!(talk.connection.clone().follow(Side::Service, &breaks_off(501, heard), NOW), "{heard}");
    }
    for wrong in
        [breaks_off(0, 110), breaks_off(500, 110), breaks_off(502, 110), breaks_off(501, 99), breaks_off(501, 111)]
    {
        assert!(!talk.connection.clone().follow(Side::Service, &wrong, NOW), "{wrong:?}");
    }
    let mut unheard = open(100);
    assert!(!unheard.follow(Side::Service, &breaks_off(0, 100), NOW), "the answer to a segment without ACK");
}

#[test]
fn a_reset_that_only_answers_is_doubted_until_the_service_goes_on() {
    let mut talk = Talk::new([100, 500]);
    talk.says(Side::Service, 1, 0);
    // Of whatever number: it is the source's choice.
    for number in [0, 77, 501] {
        assert!(!talk.connection.follow(Side::Service, &reset(number), NOW));
        assert_eq!(talk.connection.patience(900), u64::from(DOUBTED_FOR));
        talk.says(Side::Source, 0, 0);
        assert_eq!(talk.connection.patience(900), u64::from(DOUBTED_FOR), "the source may say what it likes");
        assert!(!talk.says(Side::Service, 0, 0));
        assert_eq!(talk.connection.patience(900), 900);
    }
}

#[test]
fn a_service_that_repeats_its_syn_ack_has_no_connection_until_it_says_something_else() {
    let mut connection = Connection { state: Connection::FORWARDED, ..Connection::NEW };
    let acknowledges = |acknowledged| Segment { sequence: 100, acknowledged, flags: tcp::ACK.into(), payload: 0 };
    connection.begin(&acknowledges(501), true, NOW);
    connection.complete();
    assert_eq!((connection.patience(900), connection.unheard_answer()), (900, Some((500, 100))));
    let answer = Segment { sequence: 500, acknowledged: 100, flags: u32::from(tcp::SYN | tcp::ACK), payload: 0 };
    connection.begin_anew(&answer, NOW);
    connection.follow(Side::Source, &acknowledges(501), NOW);
    assert_eq!((connection.patience(900), connection.patience(10)), (u64::from(DOUBTED_FOR), 10));
    assert_eq!(connection.unheard_answer(), Some((500, 100)));
    connection.follow(Side::Service, &Segment { sequence: 501, flags: tcp::ACK.into(), ..answer }, NOW);
    assert_eq!((connection.patience(900), connection.unheard_answer()), (900, None));
}

#[test]
fn a_reset_is_doubted_until_the_service_has_heard_all_that_was_said_before() {
    let mut talk = Talk::new([u32::MAX - 5, 9]);
    assert!(!talk.says(Side::Source, 10, 0));
    let next = talk.next[0];
    assert!(!talk.connection.follow(Side::Source, &reset(next), NOW));
    assert_eq!((talk.connection.patience(900), talk.connection.patience(10)), (u64::from(DOUBTED_FOR), 10));
    let acknowledges = |acknowledged| Segment { acknowledged, flags: tcp::ACK.into(), ..Segment::default() };
    assert!(!talk.connection.follow(Side::Service, &acknowledges(next - 1), NOW));
    // Whoever goes on after it has reset nothing, and who hears more than that has ignored it.
    let mut other = talk.connection;
    assert!(!other.follow(Side::Source, &Segment { sequence: next - 1, ..acknowledges(9) }, NOW));
    assert!(!other.follow(Side::Service, &acknowledges(next), NOW) && other.patience(900) == 900);
    let mut other = talk.connection;
    assert!(!other.follow(Side::Service, &acknowledges(next + 1), NOW) && other.patience(900) == 900);
    assert!(talk.connection.follow(Side::Service, &acknowledges(next), NOW));
}

#[test]
fn a_reset_for_what_came_after_the_sources_end_may_name_the_byte_before_it() {
    for heard in [false, true] {
        let mut talk = Talk::new([100, 9]);
        assert!(!talk.says(Side::Source, 0, tcp::FIN));
        if heard {
            assert!(!talk.says(Side::Service, 5, 0));
        }
        assert!(!talk.connection.follow(Side::Source, &reset(99), NOW));
        assert!(talk.connection.follow(Side::Source, &reset(100), NOW), "heard: {heard}");
    }
}

#[test]
fn a_packet_writes_only_where_it_says_something_new() {
    let mut connection = open(7);
    let data = Segment { flags: tcp::ACK.into(), payload: 7, ..Segment::default() };
    assert!(connection.knows(&data, NOW) && !connection.knows(&data, NOW + (1 << 30)));
    assert!(!connection.knows(&Segment { flags: tcp::FIN.into(), ..data }, NOW));
    assert!(!connection.knows(&Segment { sequence: 1, ..data }, NOW), "one byte more");
    connection.closing[1] = ENDED;
    assert!(!connection.knows(&data, NOW));
}

#[test]
fn silence_is_counted_in_seconds() {
    assert_eq!(seconds_since(moment(NOW), NOW), 0);
    assert_eq!(seconds_since(moment(NOW), NOW + 900_000_000_000), 899);
    assert_eq!(seconds_since(moment(NOW) + 1, NOW), 0, "another CPU was ahead");
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

    #[test]
    fn what_others_say_in_its_name_says_nothing_but_for_one_guess_in_sixty_thousand(
        first: [u32; 2],
        said in prop::collection::vec((any::<bool>(), 1u32..3000), 1..40),
        sequence: u32,
        acknowledged: u32,
        payload in 0u32..3,
        flags: u8,
    ) {
        let mut talk = Talk::new(first);
        talk.says(Side::Service, 1, 0);
        for (service, payload) in said {
            talk.says(SIDES[usize::from(service)], payload, 0);
        }
        let segment = Segment { sequence, acknowledged, flags: flags.into(), payload };
        let near = |number: u32, to: u32| (-(1 << 24)..1 << 24).contains(&number.wrapping_sub(to).cast_signed());
        let is_near = segment.has(tcp::ACK) && near(acknowledged, talk.next[1]) && near(sequence, talk.next[0]);
        let names = segment.has(tcp::RST) && sequence == talk.next[0];
        prop_assume!(!names && (segment.has(tcp::RST) || !is_near));
        let before = talk.connection;
        prop_assert!(!talk.connection.follow(Side::Source, &segment, NOW + (9 << 30)));
        prop_assert_eq!(talk.connection, before);
    }

    #[test]
    fn a_reset_of_the_source_closes_it_exactly_when_the_service_waits_for_that_byte(
        first: [u32; 2],
        said in prop::collection::vec((any::<bool>(), 0u32..3000), 1..40),
        off in -3_000i32..3_000,
    ) {
        let mut talk = Talk::new(first);
        let mut heard = first[0];
        for (service, payload) in said {
            talk.says(SIDES[usize::from(service)], payload, 0);
            heard = if service { talk.next[0] } else { heard };
        }
        let next = talk.next[0];
        // Most often a number nearby, else the right one.
        let number = next.wrapping_add_signed(if off % 3 == 0 { 0 } else { off });
        let closed = talk.connection.follow(Side::Source, &reset(number), NOW);
        prop_assert_eq!(closed, number == next && heard == next);
        prop_assert_eq!(talk.connection.patience(900) < 900, number == next);
    }
}
