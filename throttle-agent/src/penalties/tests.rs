//! The laws of sentences: they grow and are bounded, are forgotten and never by those who serve, and forgiven at once.

use super::*;
use proptest::prelude::*;

const START: Timestamp = Timestamp::UNIX_EPOCH;

fn at(seconds: u64) -> Timestamp {
    START + SignedDuration::from_secs(seconds.cast_signed())
}

fn penalty(block: u64, at_most: u64) -> Penalty {
    let [block, at_most] = [block, at_most].map(Span::of_seconds);
    Penalty { block, at_most, ..Penalty::new(100, Span::of_seconds(1)) }
}

fn offender(number: u8) -> Offender {
    let prefix: IpNet = format!("192.0.2.{number}/32").parse().unwrap();
    Offender { prefix, limit: "opens".to_owned() }
}

fn sentence((ruling, _): (Ruling, Option<Offender>)) -> Sentence {
    match ruling {
        Ruling::Sentenced(sentence) => sentence,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn each_sentence_is_twice_as_long_as_the_one_before_up_to_the_longest(
        block in 1..100_000_u64,
        more in 0..2_592_000_u64,
        pauses in prop::collection::vec(0..1_000_u64, 1..40),
    ) {
        let penalty = penalty(block, block + more);
        let mut book = Book::new(4);
        let (mut now, mut before) = (0, None);
        for (number, pause) in (1..).zip(pauses) {
            let given = sentence(book.judge(&offender(1), &penalty, false, at(now)));
            let length = given.until.duration_since(given.since).as_secs().cast_unsigned();
            prop_assert_eq!(given.times, number);
            prop_assert_eq!(length, before.map_or(block, |it: u64| (2 * it).min(block + more)));
            before = Some(length);
            // It is quiet for less than the longest sentence.
            now += length + (block + more) * pause / 1_000;
        }
    }

    #[test]
    fn whoever_is_quiet_for_as_long_as_the_longest_sentence_begins_anew(
        block in 1..1_000_u64,
        more in 0..10_000_u64,
        times in 1..20_u32,
    ) {
        let penalty = penalty(block, block + more);
        for (quiet, expected) in [(block + more - 1, times + 1), (block + more, 1)] {
            let (mut book, mut end) = (Book::new(4), START);
            for _ in 0..times {
                end = sentence(book.judge(&offender(1), &penalty, false, end)).until;
            }
            let next = end + SignedDuration::from_secs(quiet.cast_signed());
            prop_assert_eq!(sentence(book.clone().judge(&offender(1), &penalty, false, next)).times, expected);
            prop_assert_eq!(book.forget(next).len(), usize::from(expected == 1));
        }
    }

    #[test]
    fn a_book_is_never_fuller_than_it_may_be_and_nobody_who_serves_is_forgotten(
        most in 1..6_usize,
        offences in prop::collection::vec((0..12_u8, 0..90_u64, any::<bool>()), 1..200),
    ) {
        let penalty = penalty(60, 240);
        let (mut book, mut now) = (Book::new(most), 0);
        for (number, pause, forgive) in offences {
            now += pause;
            let before = book.clone();
            let (ruling, forgotten) = book.judge(&offender(number), &penalty, false, at(now));
            let serving = before.served(at(now)).count();
            let quietest = before.held.values().map(|it| it.until).min();
            match ruling {
                Ruling::Full => prop_assert!(serving == most && forgotten.is_none()),
                Ruling::Serves => prop_assert!(before.held[&offender(number)].until > at(now)),
                Ruling::Sentenced(_) => prop_assert_eq!(book.served(at(now)).count(), serving + 1),
            }
            if let Some(forgotten) = forgotten {
                let end = before.held[&forgotten].until;
                prop_assert!(end <= at(now) && Some(end) == quietest && before.len() == most);
            }
            prop_assert!(book.len() <= most && book.len() == book.ends.len());
            if forgive && number % 3 == 0 {
                let known = book.of(offender(number).prefix).count();
                prop_assert_eq!(book.forgive(offender(number).prefix).len(), known);
                prop_assert_eq!(book.of(offender(number).prefix).count(), 0);
            }
        }
    }
}

#[test]
fn whoever_is_forgiven_begins_anew_under_every_limit() {
    let (mut book, penalty) = (Book::new(8), penalty(60, 3_600));
    let other = Offender { limit: "bytes".to_owned(), ..offender(1) };
    let end = sentence(book.judge(&offender(1), &penalty, false, START)).until;
    _ = book.judge(&other, &penalty, false, START);
    assert_eq!(sentence(book.judge(&offender(1), &penalty, false, end)).times, 2);
    assert_eq!(book.forgive(offender(1).prefix), [other, offender(1)]);
    assert_eq!(sentence(book.judge(&offender(1), &penalty, false, end)).times, 1);
}

#[test]
fn what_is_only_observed_is_no_repetition_of_what_is_enforced() {
    let (mut book, penalty) = (Book::new(8), penalty(60, 3_600));
    let end = sentence(book.judge(&offender(1), &penalty, true, START)).until;
    assert_eq!(sentence(book.judge(&offender(1), &penalty, true, end)).times, 2, "among themselves they repeat");
    let enforced = sentence(book.judge(&offender(1), &penalty, false, end));
    assert_eq!((enforced.times, enforced.observed), (1, false));
}

#[test]
fn a_reason_names_the_limit_and_the_repetition() {
    let (mut book, penalty) = (Book::new(8), penalty(60, 3_600));
    let given = sentence(book.judge(&offender(1), &penalty, false, START));
    assert_eq!(given.reason("opens"), "penalty: limit `opens`, 1st time");
    let ordinals = [2, 3, 4, 11, 12, 13, 21, 102, 111].map(ordinal);
    assert_eq!(ordinals, ["2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"]);
}
