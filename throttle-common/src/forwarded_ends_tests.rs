//! Ends that a source says it has sent, held against a service that accepts segments by its own rule (RFC 9293, section
//! 3.10.7.4): whatever the source sends, and whatever of it gets lost, its place is given back only when the service has
//! heard the end. An honest source has it back then, whatever of its own gets lost or comes late.

use super::*;
use proptest::prelude::*;
use std::{collections::BTreeSet, vec::Vec};

const NOW: u64 = 77 << 30;
const WINDOW: u32 = 24;

/// Who hears the source, by the numbers from the first byte on.
struct Service {
    first: u32,
    /// What it waits for.
    next: u32,
    kept: BTreeSet<u32>,
    /// The number of an end that came before what stands in front of it.
    end: Option<u32>,
    has_ended: bool,
}

impl Service {
    fn at(first: u32) -> Self {
        Self { first, next: 0, kept: BTreeSet::new(), end: None, has_ended: false }
    }

    fn accept(&mut self, segment: &Segment) {
        let window = self.next..self.next + WINDOW;
        let begin = segment.sequence.wrapping_sub(self.first);
        for byte in (0..segment.payload).map(|byte| begin.wrapping_add(byte)).filter(|byte| window.contains(byte)) {
            self.kept.insert(byte);
            // What is data is no end.
            self.end = self.end.filter(|&end| end != byte);
        }
        let end = begin.wrapping_add(segment.payload);
        if segment.has(tcp::FIN) && window.contains(&end) && !self.kept.contains(&end) {
            self.end = Some(end);
        }
        while !self.has_ended {
            self.has_ended = self.end == Some(self.next);
            if !self.has_ended && !self.kept.contains(&self.next) {
                break;
            }
            self.next += 1;
        }
    }

    fn says(&self, flags: u8) -> Segment {
        let acknowledged = self.first.wrapping_add(self.next);
        Segment { sequence: 500, acknowledged, flags: u32::from(flags | tcp::ACK), payload: 0 }
    }
}

/// A segment of the source that acknowledges the end of the service.
fn segment(sequence: u32, payload: u32, ends: bool) -> Segment {
    let flags = u32::from(if ends { tcp::FIN | tcp::ACK } else { tcp::ACK });
    Segment { sequence, acknowledged: 501, flags, payload }
}

/// A connection whose first segment has this number, where the service waits for another.
fn begun(sequence: u32, next: u32) -> Connection {
    let mut connection = Connection { state: Connection::FORWARDED, ..Connection::NEW };
    connection.begin(&segment(sequence, 0, false), sequence == next, NOW);
    connection
}

#[test]
fn an_end_that_the_service_does_not_accept_gives_no_place_back() {
    // Numbers and lengths of what the source says, and whether it ends with that and the service hears it.
    let lies: [&[(u32, u32, bool, bool)]; 7] = [
        &[(99, 0, true, true)],
        &[(90, 3, true, true)],
        &[(100, 0, true, false), (100, 1, false, true)],
        &[(100, 1, false, true), (100, 0, true, false)],
        &[(101, 1, false, true), (101, 0, true, false), (100, 1, false, true)],
        &[(101, 1, false, true), (100, 1, true, false), (100, 1, false, true)],
        &[(100 + (1 << 30), 9, true, true), (100, 1, false, true)],
    ];
    for said in lies {
        let (mut connection, mut service) = (begun(100, 100), Service::at(100));
        connection.follow(Side::Service, &service.says(tcp::FIN), NOW);
        for &(sequence, payload, ends, arrives) in said {
            let segment = segment(sequence, payload, ends);
            assert!(!connection.follow(Side::Source, &segment, NOW), "{said:?}");
            if arrives {
                service.accept(&segment);
            }
        }
        assert!(!service.has_ended && !connection.follow(Side::Service, &service.says(0), NOW), "{said:?}");
        let patience = connection.patience(900);
        assert!(patience == 900 || patience == u64::from(DOUBTED_FOR) && connection.closing[0] & DOUBTED != 0);
    }
}

#[test]
fn a_source_whose_ends_are_doubted_is_forgotten_as_soon_as_the_service_would() {
    let mut connection = begun(100, 100);
    let service = Service::at(100);
    connection.follow(Side::Source, &segment(99, 0, true), NOW);
    assert_eq!(connection.patience(900), 900, "the service goes on");
    connection.follow(Side::Service, &service.says(tcp::FIN), NOW);
    assert_eq!(connection.patience(900), 900, "the service still speaks");
    connection.follow(Side::Source, &segment(100, 0, false), NOW);
    assert_eq!(connection.patience(900), u64::from(DOUBTED_FOR));
}

#[test]
fn one_that_was_found_in_the_middle_is_forgotten_a_minute_after_its_end_and_closed_by_its_reset() {
    let (mut service, mut connection) =
        (Service::at(100), Connection { state: Connection::FORWARDED, ..Connection::NEW });
    connection.begin(&segment(100, 0, false), false, NOW);
    let reset = Segment { flags: u32::from(tcp::RST) | Segment::SOUND, ..segment(100, 0, false) };
    let mut other = connection;
    assert!(!other.follow(Side::Source, &reset, NOW), "the service may have heard more");
    connection.follow(Side::Service, &service.says(0), NOW);
    let mut other = connection;
    assert!(other.follow(Side::Source, &reset, NOW));
    connection.follow(Side::Service, &service.says(tcp::FIN), NOW);
    service.accept(&segment(100, 0, true));
    assert!(!connection.follow(Side::Source, &segment(100, 0, true), NOW), "it may be a lie");
    assert!(service.has_ended && !connection.follow(Side::Service, &service.says(0), NOW));
    assert_eq!(connection.patience(900), u64::from(DOUBTED_FOR));
}

/// A number and a length that a source says, whether it ends with that, whether the service hears it, and says so.
type Saying = (u32, u32, bool, bool, bool);

fn saying(numbers: impl Strategy<Value = u32>) -> impl Strategy<Value = Saying> {
    (numbers, 0u32..4, prop::bool::weighted(0.3), any::<bool>(), prop::bool::weighted(0.7))
}

/// Follows a connection whose service has ended until it closes, which the service has heard by then.
fn is_heard_before_it_closes(
    connection: &mut Connection,
    service: &mut Service,
    said: Vec<Saying>,
) -> Result<(), TestCaseError> {
    for (number, payload, ends, arrives, answers) in said {
        let segment = segment(service.first.wrapping_add(number), payload, ends);
        let mut closed = !connection.knows(&segment, NOW) && connection.follow(Side::Source, &segment, NOW);
        prop_assert!(!closed || service.has_ended, "{segment:?}");
        if arrives {
            service.accept(&segment);
        }
        if answers {
            closed = connection.follow(Side::Service, &service.says(0), NOW);
            prop_assert!(!closed || service.has_ended, "{segment:?}");
        }
        if closed || service.has_ended {
            break;
        }
    }
    Ok(())
}

/// Numbers that are near what the service waits for, or where windows end.
fn numbers() -> impl Strategy<Value = u32> {
    let far = prop_oneof![20 => Just(0u32), 1 => Just(1 << 30), 1 => Just(1 << 31), 1 => Just(3 << 30)];
    (-3i32..14, far).prop_map(|(near, far)| far.wrapping_add_signed(near))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_place_is_given_back_before_the_service_has_heard_the_end(
        first in prop_oneof![Just(u32::MAX - 5), any::<u32>()],
        begins in prop_oneof![9 => Just(0), 1 => numbers()],
        said in prop::collection::vec(saying(numbers()), 1..12),
    ) {
        let mut service = Service::at(first);
        let mut connection = begun(first.wrapping_add(begins), first);
        prop_assert!(!connection.follow(Side::Service, &service.says(tcp::FIN), NOW));
        is_heard_before_it_closes(&mut connection, &mut service, said)?;
    }

    #[test]
    fn nor_is_that_of_one_that_was_found_in_the_middle(
        first in prop_oneof![Just(u32::MAX - 5), any::<u32>()],
        unseen in prop::collection::vec(saying(0u32..4), 0..6),
        begins in 0u32..4,
        said in prop::collection::vec(saying(prop_oneof![9 => 0u32..6, 1 => numbers()]), 1..12),
    ) {
        let mut service = Service::at(first);
        for (number, payload, ends, arrives, _) in unseen {
            if arrives {
                service.accept(&segment(first.wrapping_add(number), payload, ends));
            }
        }
        prop_assume!(!service.has_ended);
        let mut connection = Connection { state: Connection::FORWARDED, ..Connection::NEW };
        connection.begin(&segment(first.wrapping_add(begins), 0, false), false, NOW);
        prop_assert!(!connection.follow(Side::Service, &service.says(tcp::FIN), NOW));
        is_heard_before_it_closes(&mut connection, &mut service, said)?;
    }

    #[test]
    fn an_honest_source_has_its_place_back_whatever_is_lost_or_late(
        first in prop_oneof![Just(u32::MAX - 5), any::<u32>()],
        lengths in prop::collection::vec(1u32..4, 0..5),
        service_first: bool,
        ends_with_data: bool,
        // Which segment, whether it is lost before it is seen, and behind that.
        tries in prop::collection::vec((0usize..6, any::<bool>(), any::<bool>()), 0..16),
    ) {
        let mut segments = Vec::new();
        let mut next = first;
        for length in lengths {
            segments.push(segment(next, length, false));
            next = next.wrapping_add(length);
        }
        match segments.last_mut().filter(|_| ends_with_data) {
            Some(last) => last.flags |= u32::from(tcp::FIN),
            None => segments.push(segment(next, 0, true)),
        }
        let (mut service, mut connection) = (Service::at(first), begun(first, first));
        if service_first {
            connection.follow(Side::Service, &service.says(tcp::FIN), NOW);
        }
        let rest = (0..segments.len()).map(|index| (index, false, false));
        let mut closed = false;
        for (index, lost, lost_behind) in tries.into_iter().chain(rest) {
            let Some(segment) = segments.get(index).filter(|_| !lost && !closed) else { continue };
            // Of a service that has not ended nothing can be acknowledged.
            let segment = Segment { acknowledged: if service_first { 501 } else { 500 }, ..*segment };
            closed = !connection.knows(&segment, NOW) && connection.follow(Side::Source, &segment, NOW);
            if !lost_behind && !closed {
                service.accept(&segment);
                closed = connection.follow(Side::Service, &service.says(0), NOW);
            }
            prop_assert!(!closed || service.has_ended && service_first);
        }
        prop_assert!(service.has_ended);
        if !service_first {
            prop_assert!(!connection.follow(Side::Service, &service.says(tcp::FIN), NOW));
            closed = connection.follow(Side::Source, &segment(next.wrapping_add(1), 0, false), NOW);
        }
        prop_assert!(closed);
    }
}
