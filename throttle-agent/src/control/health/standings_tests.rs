//! What is shown of something after a restart, by what was so before it and what is seen.

use super::*;

const DEAD: &str = "it refuses connections";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn web() -> Subject {
    ("web".to_owned(), Some(("web-1".to_owned(), "10.0.0.5:80".parse().unwrap())), BACKEND)
}

/// An agent after one that left a backend so since second 100.
fn after(state: &str) -> Standings {
    let mut before = Standings::default();
    before.turn(web(), state, at(100), DEAD);
    Standings::of(before.all())
}

fn shown(since: Option<i64>, why: &str) -> Shown {
    Shown { since: since.map(at), why: Some(why.to_owned()) }
}

#[test]
fn what_is_still_so_has_its_beginning_and_its_reason_of_before() {
    let mut standings = after("dead");
    assert_eq!(standings.shown(&web(), "dead"), shown(Some(100), DEAD), "before anything is known");
    standings.turn(web(), "suspect", at(900), "its heartbeats stay away");
    assert_eq!(standings.shown(&web(), "suspect"), Shown::default());
    standings.turn(web(), "dead", at(901), "it says nothing");
    assert_eq!(standings.shown(&web(), "dead"), shown(Some(100), DEAD));
    // And a third agent has it from the second.
    assert_eq!(Standings::of(standings.all()).shown(&web(), "dead"), shown(Some(100), DEAD));
    // What comes back and dies anew is another death.
    standings.turn(web(), "recovering", at(950), "it is heard of again");
    standings.turn(web(), "dead", at(990), "it says nothing");
    assert_eq!(standings.shown(&web(), "dead"), shown(None, "it says nothing"));
}

#[test]
fn what_has_changed_meanwhile_is_said_to_have_done_so_while_nobody_watched() {
    let mut standings = after("dead");
    standings.settle(&web(), "healthy", at(900));
    let why = "it changed while no agent watched; it was dead before";
    assert_eq!(standings.shown(&web(), "healthy"), shown(None, why));
    assert_eq!(standings.shown(&web(), "dead"), Shown::default(), "that is over");

    let mut standings = after("healthy");
    standings.turn(web(), "dead", at(900), DEAD);
    let why = format!("{DEAD}; it was healthy when it was last watched");
    assert_eq!(standings.shown(&web(), "dead"), shown(None, &why));
}

#[test]
fn a_backend_is_taken_to_be_well_for_no_evidence() {
    assert!(!is_certain(Level::Healthy, false, true) && is_certain(Level::Healthy, true, true));
    assert!(!is_certain(Level::Suspect, true, true));
    assert!(!is_certain(Level::Dead, false, false) && is_certain(Level::Dead, false, true));
}

#[test]
fn suspicion_is_not_kept_and_what_nobody_watches_is_forgotten() {
    let mut standings = Standings::default();
    standings.turn(web(), "suspect", at(100), "its heartbeats stay away");
    assert_eq!((standings.all(), standings.unkept), (Vec::new(), false));
    standings.turn(web(), "dead", at(101), DEAD);
    standings.forget(0, |_| false);
    standings.forget(GONE_AFTER - 1, |_| false);
    assert_eq!(standings.all().len(), 1);
    standings.forget(GONE_AFTER, |_| false);
    assert_eq!(standings.all(), []);
}

#[test]
fn no_more_are_kept_than_there_is_room_for() {
    let mut standings = Standings::default();
    for number in 0..MOST + 10 {
        standings.turn((format!("web-{number}"), None, BREAKER), "open", at(100), DEAD);
    }
    assert_eq!(standings.all().len(), MOST);
}
