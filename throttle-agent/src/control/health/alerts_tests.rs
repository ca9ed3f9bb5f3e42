//! What is kept of what others have been told, and for how long.

use super::*;

const AT: &str = "10.0.0.6:80";

fn left(kind: &str, to: &str) -> Alert {
    Alert {
        service: "web".to_owned(),
        backend: (kind == "backend").then(|| ("web-2".to_owned(), AT.parse().unwrap())),
        kind: kind.to_owned(),
        to: to.to_owned(),
        at: Timestamp::UNIX_EPOCH,
    }
}

fn notice(number: u64, to: &str) -> Notice {
    Notice {
        number,
        time: Timestamp::UNIX_EPOCH,
        service: "web".to_owned(),
        backend: Some("web-2".to_owned()),
        address: Some(AT.parse().unwrap()),
        kind: "backend".to_owned(),
        from: String::new(),
        to: to.to_owned(),
        reason: None,
        message: String::new(),
    }
}

fn place() -> Place {
    Place { backend: Arc::from("web-2"), address: AT.parse().unwrap() }
}

fn of(left: &[Alert]) -> Alerts {
    Alerts::of(left.to_vec(), Timestamp::UNIX_EPOCH)
}

#[test]
fn a_breaker_goes_on_in_the_state_that_was_told() {
    let resumed = |to| of(&[left("breaker", to)]).breaker(7, "web", None);
    assert_eq!(resumed("half-open"), Some(State::HalfOpen { left: TRIALS }), "nothing is told of it once more");
    assert_eq!(resumed("open"), Some(State::Open { until: 7 + OPEN_TIME }));
    assert_eq!(resumed("held-open"), Some(State::Forced(Forced::Open)));
}

#[test]
fn what_is_told_is_kept_until_it_is_over_and_suspicion_never() {
    let mut alerts = Alerts::default();
    for (number, to, unkept) in [(1, "suspect", false), (2, "dead", true), (3, "suspect", false), (4, "dead", false)] {
        alerts.note(&notice(number, to));
        assert_eq!(std::mem::take(&mut alerts.unkept), unkept, "{number}");
    }
    assert_eq!(alerts.level("web", &place()), Some(Level::Dead));
    assert_eq!(alerts.all(), [left("backend", "dead")]);
    alerts.note(&notice(6, "healthy"));
    // Another webhook is slower to answer.
    alerts.note(&notice(5, "recovering"));
    assert_eq!((alerts.level("web", &place()), alerts.all(), alerts.unkept), (None, Vec::new(), true));
}

#[test]
fn what_was_told_a_week_ago_may_be_told_again() {
    let days = |days: i64| {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * days);
        Alerts::of(vec![left("backend", "dead")], now).level("web", &place())
    };
    assert_eq!([6, 7].map(days), [Some(Level::Dead), None]);
}

#[test]
fn what_nobody_watches_any_more_is_taken_back_after_a_while_and_forgotten() {
    let mut alerts = of(&[left("backend", "dead"), left("scale-out", "yes")]);
    assert_eq!(alerts.end_unwatched(SECOND, |_, _| false), []);
    assert_eq!(alerts.end_unwatched(2 * SECOND, |_, _| true), [], "it is back");
    assert_eq!(alerts.end_unwatched(3 * SECOND, |_, place| place.is_none()), []);
    assert_eq!(alerts.end_unwatched(2 * SECOND + GONE_AFTER, |_, place| place.is_none()), []);
    let ended = alerts.end_unwatched(3 * SECOND + GONE_AFTER, |_, place| place.is_none());
    let what = What::Unwatched { kind: "backend", was: "dead" };
    let transition = Transition { at: 3 * SECOND + GONE_AFTER, place: Some(place()), what };
    assert_eq!(ended, [(Arc::from("web"), transition)], "the service is watched");
    assert_eq!(alerts.end_unwatched(2 * GONE_AFTER, |_, place| place.is_none()), [], "it is told once");
    assert_eq!(alerts.level("web", &place()), None, "who comes to that address begins anew");
    assert_eq!(alerts.all().len(), 2, "nobody has answered yet that it is told");
    alerts.note(&notice(1, "unwatched"));
    assert_eq!(alerts.all(), [left("scale-out", "yes")]);
    alerts.end_unwatched(3 * GONE_AFTER, |_, place| place.is_none());
    alerts.end_unwatched(4 * GONE_AFTER, |_, place| place.is_none());
    assert_eq!(alerts.told.len(), 1, "nothing is left of it");
}
