//! How health reads on a screen.

use throttle_agent::api::wire::{HealthLine, SignalView, WindowView};

use super::{super::health_line::overview, *};

fn breaker(state: &str) -> BreakerView {
    BreakerView {
        state: state.to_owned(),
        since_seconds: 3.0,
        why: None,
        tries_in_seconds: None,
        trials_left: None,
        held_by: None,
        shared_with: Vec::new(),
        in_force: None,
    }
}

fn backend(name: &str, level: &str) -> BackendHealthView {
    BackendHealthView {
        backend: name.to_owned(),
        address: "10.0.0.5:80".parse().unwrap(),
        level: level.to_owned(),
        since_seconds: 61.0,
        why: None,
        suspicion: 0.43,
        share: if level == "dead" { 0.0 } else { 1.0 },
        latency_seconds: Some(0.0012),
        breaker: Some(breaker(if level == "dead" { "open" } else { "closed" })),
    }
}

fn view() -> ServiceHealthView {
    ServiceHealthView {
        service: "web".to_owned(),
        mode: Mode::Enforce,
        control: "latency".to_owned(),
        actuator: "window".to_owned(),
        signal: "latency".to_owned(),
        summary: "38 of 200 connections may be open, 37 are; it follows the time to first byte: it shrinks".to_owned(),
        cause: "it shrinks".to_owned(),
        signals: vec![SignalView { name: "latency".to_owned(), value: "91 ms".to_owned(), age_seconds: 0.04 }],
        delay_seconds: Some(0.083),
        target_seconds: 0.05,
        usual_seconds: Some(0.008),
        window: Some(WindowView { decided: 38, in_force: Some(38), policy: 200, least: 2, most: 200, open: Some(37) }),
        speed: 0.5,
        speed_in_force: 0.5,
        share: 0.5,
        refused_per_second: 120.0,
        answered_per_second: 800.0,
        closed: 0,
        waiting: None,
        pressure: None,
        breaker: Some(breaker("closed")),
        needs_workers: true,
        doubts: false,
        backends: vec![backend("web-1", "healthy"), backend("web-2", "dead")],
    }
}

#[test]
fn a_service_is_told_from_what_is_decided_down_to_each_backend() {
    let report = HealthReport {
        services: vec![view()],
        transitions: vec![TransitionView {
            number: 1,
            time: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            service: "web".to_owned(),
            backend: Some("web-2".to_owned()),
            address: None,
            kind: "backend".to_owned(),
            from: "suspect".to_owned(),
            to: "dead".to_owned(),
            reason: Some("refused".to_owned()),
            message: "backend web-2 of web (10.0.0.5:80) is dead: it refuses connections; nothing listens there"
                .to_owned(),
        }],
        transitions_in_all: 1,
        ..HealthReport::default()
    };
    let expected = "\
web: enforced, control latency
  38 of 200 connections may be open, 37 are; it follows the time to first byte: it shrinks
  800/s answered; 120/s refused for want of a place; the first byte takes 8 ms as a rule; its backends leave 50 % of the load
  breaker closed
  ! it needs more workers: it is asked for more than it may bear
  SIGNAL            AGE  SAYS
  latency (live)  40 ms  91 ms
  BACKEND  ADDRESS      STATE          FOR  SUSPICION  SHARE  ANSWERED IN  BREAKER
  web-1    10.0.0.5:80  healthy  1 min 1 s        0.4  100 %         1 ms  closed
  web-2    10.0.0.5:80  dead     1 min 1 s        0.4    0 %         1 ms  open until it answers again

last changes, the newest first
  03:04:05.6Z backend web-2 of web (10.0.0.5:80) is dead: it refuses connections; nothing listens there
";
    assert_eq!(render(&report, LAST, Paint::PLAIN), expected);
}

#[test]
fn who_is_not_well_has_a_line_with_the_reason() {
    let away = BreakerView { why: Some("the backend is dead".to_owned()), ..breaker("open") };
    let dead = BackendHealthView {
        why: Some("it refuses connections".to_owned()),
        breaker: Some(away),
        ..backend("web-2", "dead")
    };
    let expected = "  * web-2 (10.0.0.5:80) is dead: it refuses connections\n  \
                    * the breaker of web-2 (10.0.0.5:80) is open: the backend is dead\n";
    assert_eq!(reasons(&dead, Mode::Enforce, Paint::PLAIN), expected);
    let shown = expected.replace("80) is open", "80) would be open");
    assert_eq!(reasons(&dead, Mode::Observe, Paint::PLAIN), shown);
    let well = BackendHealthView { why: Some("it is heard of again".to_owned()), ..backend("web-1", "healthy") };
    assert_eq!(reasons(&well, Mode::Enforce, Paint::PLAIN), "");
}

#[test]
fn the_status_has_a_line_with_what_moves_by_which_signal_and_the_worst_backend() {
    let expected = "\
SERVICE  FOLLOWS  MOVES            MODE        WINDOW  OPEN  SPEED  BREAKER  BACKENDS     THE WORST
web      latency  window, closing  enforce  38 of 200    37    0.5  closed   1 of 2 well  web-2 dead, suspicion 0.4, breaker open
";
    let closing = ServiceHealthView { actuator: "window+closing".to_owned(), ..view() };
    assert_eq!(overview(&[closing], Paint::PLAIN), expected);
}

#[test]
fn the_worst_is_who_is_kept_away_then_who_is_suspect_then_who_is_silent_longest() {
    let worst = |backends: &[(&str, &str, f64)]| {
        let of = |&(name, level, suspicion): &(&str, &str, f64)| BackendHealthView {
            suspicion,
            breaker: Some(breaker(if level == "dead" { "open" } else { "closed" })),
            ..backend(name, level)
        };
        let view = ServiceHealthView { backends: backends.iter().map(of).collect(), ..view() };
        HealthLine::from(&view).worst.unwrap().backend
    };
    assert_eq!(worst(&[("a", "dead", 0.1), ("b", "suspect", 9.0), ("c", "healthy", 9.5)]), "a");
    assert_eq!(worst(&[("b", "suspect", 1.2), ("c", "healthy", 9.5), ("d", "suspect", 1.1)]), "b");
    assert_eq!(worst(&[("c", "healthy", 0.1), ("d", "healthy", 0.2)]), "d");
}

#[test]
fn the_speed_in_a_line_is_the_one_in_force_and_of_what_is_only_shown_the_slower() {
    let speed = |mode, decided, in_force| {
        HealthLine::from(&ServiceHealthView { mode, speed: decided, speed_in_force: in_force, ..view() }).speed
    };
    let by_hand = [speed(Mode::Enforce, 1.0, 0.25), speed(Mode::Observe, 1.0, 0.25), speed(Mode::Observe, 0.5, 1.0)];
    assert_eq!(by_hand.map(|it| format!("{it}")), ["0.25", "0.25", "0.5"]);
    assert_eq!(format!("{}", speed(Mode::Enforce, 0.5, 1.0)), "1", "what is decided and not in force");
}

#[test]
fn of_an_open_breaker_it_is_said_when_a_few_try_or_for_what_it_waits() {
    let words = |tries_in_seconds, level| {
        breaker_words(&BreakerView { tries_in_seconds, ..breaker("open") }, level, Mode::Enforce).0
    };
    assert_eq!(words(Some(4.2), "healthy"), "open, a few try in 4.2 s");
    assert_eq!(words(None, "dead"), "open until it answers again");
    assert_eq!(words(None, "held"), "open while it is held out");
}

#[test]
fn of_a_half_open_breaker_it_is_said_how_many_may_yet_try() {
    let words = |left| {
        let half_open = BreakerView { trials_left: Some(left), ..breaker("half-open") };
        breaker_words(&half_open, "healthy", Mode::Enforce).0
    };
    assert_eq!([7, 0].map(words), ["half-open, 7 may yet try", "half-open, all that may try do so"]);
}

#[test]
fn a_breaker_that_only_observes_would_be_open_and_one_that_an_operator_holds_is() {
    let words = |state: &str| breaker_words(&breaker(state), "dead", Mode::Observe);
    assert_eq!(words("open"), ("would be open until it answers again".to_owned(), Tone::Warning));
    assert_eq!(words("closed"), ("closed".to_owned(), Tone::Plain));
    assert_eq!(words("held-open"), ("held open".to_owned(), Tone::Warning));
}

#[test]
fn where_nothing_follows_its_health_it_says_how_to_begin() {
    assert!(render(&HealthReport::default(), LAST, Paint::PLAIN).contains("throttle service set"));
}

#[test]
fn of_a_breaker_that_is_shared_it_is_said_with_whom_and_what_holds() {
    let shared = BreakerView { shared_with: vec!["api/api-1".to_owned()], ..breaker("closed") };
    assert_eq!(
        breaker_words(&shared, "healthy", Mode::Enforce),
        ("closed, shared with api/api-1".to_owned(), Tone::Plain)
    );
    let kept_away = BreakerView { in_force: Some("held-open".to_owned()), ..shared };
    assert_eq!(
        breaker_words(&kept_away, "healthy", Mode::Enforce),
        ("closed, shared with api/api-1, and in force held open".to_owned(), Tone::Warning)
    );
}
