//! How changes read.

use std::sync::Arc;

use super::*;
use crate::health::{MILLISECOND, SECOND};

fn said(place: bool, what: What) -> String {
    let place = place.then(|| Place { backend: Arc::from("web-1"), address: "10.0.0.5:80".parse().unwrap() });
    sentence("web", &Transition { at: SECOND, place, what }, true)
}

/// The same of what is not in force.
fn shown(what: What) -> String {
    sentence("web", &Transition { at: SECOND, place: None, what }, false)
}

#[test]
fn a_death_names_the_backend_its_place_and_the_cause() {
    let change = life::Change { from: Level::Healthy, to: Level::Dead, reason: life::Reason::Refused };
    let text = "backend web-1 of web (10.0.0.5:80) is dead: it refuses connections; nothing listens there";
    assert_eq!(said(true, What::Level(change)), text);
}

#[test]
fn a_breaker_says_what_becomes_of_new_connections_and_for_how_long() {
    let until = SECOND + 5_200 * MILLISECOND;
    let change = circuit::Change { from: State::Closed, to: State::Open { until }, reason: circuit::Reason::Failures };
    let text = "the breaker of service web opens, new connections are refused for 5.2 s, then a few try: half or more of \
                what ended in 10 s failed";
    assert_eq!(said(false, What::Breaker(change)), text);
}

#[test]
fn a_breaker_that_a_death_opens_names_no_time_because_nobody_tries_who_is_dead() {
    let until = SECOND + 5_200 * MILLISECOND;
    let change = circuit::Change { from: State::Closed, to: State::Open { until }, reason: circuit::Reason::Death };
    let text = "the breaker of backend web-1 of web (10.0.0.5:80) opens, new connections are refused until it answers \
                again, then a few try: the backend is dead";
    assert_eq!(said(true, What::Breaker(change)), text);
}

#[test]
fn a_breaker_that_lets_nobody_more_try_names_no_number() {
    let half_opens = |left| {
        let (from, to) = (State::Open { until: SECOND }, State::HalfOpen { left });
        let change = circuit::Change { from, to, reason: circuit::Reason::TimeIsOver };
        said(false, What::Breaker(change))
    };
    let over = "it was open for long enough";
    let begins = "the breaker of service web half-opens,";
    assert_eq!(half_opens(7), format!("{begins} up to 7 new connections may try: {over}"));
    assert_eq!(half_opens(0), format!("{begins} and as many as may try it do so already: {over}"));
}

#[test]
fn what_is_only_shown_is_not_said_to_refuse_or_to_move_anything() {
    let states = [State::Open { until: 6 * SECOND }, State::HalfOpen { left: 7 }, State::Closed];
    for (to, would) in states.into_iter().zip(["open", "half-open", "close"]) {
        let change = circuit::Change { from: State::Closed, to, reason: circuit::Reason::Failures };
        let text = format!(
            "the breaker of service web would {would}, but that is only shown and new connections pass: half or more of what \
             ended in 10 s failed"
        );
        assert_eq!(shown(What::Breaker(change)), text);
    }
    let to = State::Forced(Forced::Open);
    let held = What::Breaker(circuit::Change { from: State::Closed, to, reason: circuit::Reason::Forced });
    assert_eq!(shown(held), said(false, held), "what an operator holds is in force all the same");
    let follows = What::Signal { from: Rung::Static, to: Rung::Latency };
    assert_eq!(shown(follows), "limits of service web would follow the time to first byte now");
}

#[test]
fn a_signal_that_is_lost_or_found_says_which() {
    let lost = said(false, What::Signal { from: Rung::Latency, to: Rung::Heartbeats });
    assert_eq!(lost, "limits of service web follow heartbeats now: the time to first byte is no longer known");
    let found = said(false, What::Signal { from: Rung::Static, to: Rung::Latency });
    assert_eq!(found, "limits of service web follow the time to first byte now");
}

#[test]
fn spans_have_three_digits_at_most() {
    let spans = [0, 5 * MILLISECOND, 83_400_000, 1_250 * MILLISECOND, 60 * SECOND].map(span);
    assert_eq!(spans, ["0 ms", "5 ms", "83 ms", "1.2 s", "60 s"]);
}
