use proptest::{collection::vec, prelude::*};

use super::{super::key::Key, *};

const A: &str = "10.0.0.1:7946";
const B: &str = "10.0.0.2:7946";

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

fn keys() -> Keys {
    Keys::one(Key::of(1))
}

fn end(host: &str, listens: &str, run: u8) -> Endpoint {
    Endpoint::new("blue", host, "boot", at(listens), [run; 16])
}

fn say(one: &mut Endpoint, to: &str, said: &[u8]) -> Vec<u8> {
    one.say(&keys(), at(to), [one.number as u8; 16], said).unwrap()
}

/// What an end makes of a datagram: what was said, or why it does not count and what is answered.
fn hear(one: &mut Endpoint, from: &str, datagram: &[u8]) -> Result<Option<Vec<u8>>, Unheard> {
    match one.hear(&keys(), at(from), [77; 16], &mut datagram.to_vec())? {
        Heard::Said(said) => Ok(Some(said.to_vec())),
        Heard::Greeted => Ok(None),
    }
}

/// Two that know each other.
fn acquainted() -> (Endpoint, Endpoint) {
    let (mut a, mut b) = (end("a", A, 1), end("b", B, 2));
    let first = say(&mut a, B, b"hello?");
    let unheard = hear(&mut b, A, &first).unwrap_err();
    assert_eq!(unheard.why, Refusal::Unaddressed);
    assert_eq!(hear(&mut a, B, &unheard.greeting.unwrap()), Ok(None));
    let second = say(&mut a, B, b"hello");
    assert_eq!(hear(&mut b, A, &second), Ok(Some(b"hello".to_vec())));
    (a, b)
}

#[test]
fn two_know_each_other_after_one_greeting() {
    let (mut a, mut b) = acquainted();
    let answer = say(&mut b, A, b"welcome");
    assert_eq!(hear(&mut a, B, &answer), Ok(Some(b"welcome".to_vec())));
}

#[test]
fn a_greeting_is_shorter_than_what_it_answers_and_is_not_answered() {
    let (mut a, mut b) = (end("a", A, 1), end("b", B, 2));
    let first = say(&mut a, B, b"?");
    let greeting = hear(&mut b, A, &first).unwrap_err().greeting.unwrap();
    assert!(greeting.len() < first.len());
    let mut again = end("a", A, 3);
    assert_eq!(hear(&mut again, B, &greeting), Err(Unheard::from(Refusal::Unaddressed)));
}

#[test]
fn what_was_recorded_counts_neither_again_nor_after_a_restart() {
    let (mut a, mut b) = acquainted();
    let recorded = say(&mut a, B, b"all is well");
    assert!(hear(&mut b, A, &recorded).is_ok());
    assert_eq!(hear(&mut b, A, &recorded), Err(Refusal::Replayed.into()));
    assert_eq!(hear(&mut b, "192.0.2.66:9", &recorded), Err(Refusal::Replayed.into()), "from elsewhere");
    let mut restarted = end("b", B, 9);
    assert_eq!(hear(&mut restarted, A, &recorded).unwrap_err().why, Refusal::Unaddressed);
}

#[test]
fn one_that_restarts_is_known_again_after_one_greeting() {
    let (mut a, _) = acquainted();
    let mut b = end("b", B, 9);
    let stale = say(&mut a, B, b"still there?");
    let greeting = hear(&mut b, A, &stale).unwrap_err().greeting.unwrap();
    assert_eq!(hear(&mut a, B, &greeting), Ok(None));
    let fresh = say(&mut a, B, b"again");
    assert_eq!(hear(&mut b, A, &fresh), Ok(Some(b"again".to_vec())));
}

#[test]
fn one_that_answers_from_another_address_is_known_where_it_listens() {
    let (mut a, mut b) = (end("a", A, 1), end("b", B, 2));
    let first = say(&mut a, B, b"?");
    let greeting = hear(&mut b, A, &first).unwrap_err().greeting.unwrap();
    assert_eq!(hear(&mut a, "10.9.9.9:7946", &greeting), Ok(None));
    let second = say(&mut a, B, b"hello");
    assert_eq!(hear(&mut b, A, &second), Ok(Some(b"hello".to_vec())));
}

#[test]
fn what_does_not_fit_is_not_sealed() {
    let mut a = end("a", A, 1);
    assert_eq!(a.say(&keys(), at(B), [0; 16], &vec![0; MOST_SAID]).unwrap().len(), LONGEST);
    assert!(a.say(&keys(), at(B), [0; 16], &vec![0; MOST_SAID + 1]).is_none());
}

#[test]
fn a_text_of_another_shape_is_malformed_though_it_is_sealed() {
    let mut b = end("b", B, 2);
    for text in [&b"short"[..], &[9; PREFACE], &[0; PREFACE]] {
        let datagram = seal(keys().sealing(), "blue", (Session::UNKNOWN, 1), [0; 16], text);
        assert_eq!(hear(&mut b, A, &datagram), Err(Refusal::Malformed.into()), "{text:?}");
    }
}

#[test]
fn of_more_runs_than_there_is_room_for_none_is_heard_twice() {
    let mut b = end("b", B, 2);
    let datagram = |to: Session, run: usize| {
        let mut random = [0; 16];
        random[..8].copy_from_slice(&run.to_be_bytes());
        let mut a = Endpoint::new("blue", "a", "boot", at(A), random);
        a.sessions.insert(at(B), to);
        say(&mut a, B, b"here")
    };
    let session = b.session;
    let recorded: Vec<_> = (0..=MOST_SESSIONS).map(|run| datagram(session, run)).collect();
    let (last, others) = recorded.split_last().unwrap();
    assert!(others.iter().all(|it| hear(&mut b, A, it).is_ok()));
    assert_eq!(hear(&mut b, A, last), Err(Refusal::Unaddressed.into()), "there is no room: it begins anew");
    assert!(recorded.iter().all(|it| hear(&mut b, A, it).is_err()), "and nothing recorded counts");
    let fresh = datagram(b.session, 1);
    assert!(hear(&mut b, A, &fresh).is_ok());
}

proptest! {
    /// A network that loses, doubles, delays and reorders: each word counts at most once, and none is made up.
    #[test]
    fn each_word_is_heard_once_at_most_whatever_the_network_does(
        fates in vec((0..4_u8, any::<prop::sample::Index>()), 1..200)
    ) {
        let (mut a, mut b) = acquainted();
        let (mut under_way, mut heard) = (Vec::new(), Vec::new());
        for (word, (fate, which)) in (0_u32..).zip(fates) {
            under_way.push(say(&mut a, B, &word.to_be_bytes()));
            let at = which.index(under_way.len());
            match fate {
                0 => drop(under_way.swap_remove(at)),
                1 => heard.extend(hear(&mut b, A, &under_way[at]).ok().flatten()),
                2 => {
                    let datagram = under_way.swap_remove(at);
                    heard.extend(hear(&mut b, A, &datagram).ok().flatten());
                }
                _ => {
                    let mut datagram = under_way[at].clone();
                    let bit = which.index(datagram.len() * 8);
                    datagram[bit / 8] ^= 1_u8 << (bit % 8);
                    prop_assert!(hear(&mut b, A, &datagram).is_err());
                }
            }
        }
        let mut once = heard.clone();
        once.sort();
        once.dedup();
        prop_assert_eq!(once.len(), heard.len());
    }

    /// In each of the three steps some hosts have the new file and some the old one.
    #[test]
    fn a_rotation_never_makes_a_host_deaf_to_another(step in 0..3_usize, speaker in any::<bool>(), listener in any::<bool>()) {
        let first = keys();
        let added = first.with(Key::of(2)).unwrap();
        let promoted = added.promoted().unwrap();
        let retired = promoted.retired().unwrap();
        let files = [first, added, promoted, retired];
        let file = |is_ahead: bool| &files[step + usize::from(is_ahead)];
        let (mut a, mut b) = acquainted();
        let mut datagram = a.say(file(speaker), at(B), [5; 16], b"word").unwrap();
        let heard = b.hear(file(listener), at(A), [6; 16], &mut datagram);
        prop_assert_eq!(heard, Ok(Heard::Said(b"word")));
    }
}
