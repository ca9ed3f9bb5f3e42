//! What is drawn, on a terminal that is a buffer; and what keys change of it.

use std::time::Duration;

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use throttle_agent::{
    api::wire::{ReasonCount, RefusedSource, Talker, Tallies, Tally, Top, TopLimit},
    policy::Mode,
};

use super::{
    super::keys::{Act, State},
    *,
};
use crate::cli::fixtures::health_line;

#[expect(clippy::cast_sign_loss, reason = "no more than all of it is used")]
fn talker(source: &str, limit: &str, used: f64, charged: f64, refused: u64) -> Talker {
    Talker {
        source: source.to_owned(),
        limit: limit.to_owned(),
        unit: "packets".to_owned(),
        used,
        room: (100.0 * (1.0 - used)).round() as u64,
        debt_seconds: used * 2.0,
        open: None,
        charged,
        refused,
    }
}

/// A look `second` seconds after the first, with counts that grow by known steps.
fn look(second: u32) -> Top {
    let grown = |step: u64| u64::from(second) * step;
    let packets = |step| Tally { packets: grown(step), bytes: grown(step) * 60 };
    let reason = |reason: &str, outcome: &str, step| ReasonCount {
        reason: reason.to_owned(),
        outcome: outcome.to_owned(),
        packets: grown(step),
        bytes: grown(step) * 60,
    };
    Top {
        at: "2026-11-24T14:03:00Z".parse().unwrap(),
        clock_seconds: 100.0 + f64::from(second),
        revision: 3,
        mode: Mode::Enforce,
        talkers: vec![
            talker("203.0.113.7", "few", 1.0, f64::from(second) * 50.0, 412),
            talker("198.51.100.4", "few", 0.5, f64::from(second) * 20.0, 0),
            talker("2001:db8:7::/64", "wide", 0.01, f64::from(second) * 3.0, 0),
            Talker { open: Some(12), room: 38, ..talker("198.51.100.9", "open", 0.24, 0.0, 3) },
        ],
        limits: vec![TopLimit {
            limit: "few".to_owned(),
            service: Some("web".to_owned()),
            unit: "packets".to_owned(),
            rate: "50/s".to_owned(),
            window: None,
            mode: Mode::Enforce,
            tallies: Tallies { admitted: packets(70), refused: packets(900), ..Tallies::default() },
            in_aggregates: 5,
            busy: 3,
            slots: 1200,
        }],
        health: vec![health_line()],
        reasons: vec![reason("admitted", "pass", 70), reason("source-limit", "drop", 900)],
        refused: vec![RefusedSource {
            source: Some("203.0.113.7".parse().unwrap()),
            reason: "source-limit".to_owned(),
            outcome: "drop".to_owned(),
            limit: Some("few".to_owned()),
            sampled: 412,
            last: "2026-11-24T14:02:59.5Z".parse().unwrap(),
        }],
    }
}

fn looks() -> Looks {
    let mut looks = Looks::of(look(1));
    looks.add(look(3));
    looks
}

fn press(state: &mut State, keys: &str) -> Act {
    let code = |key| match key {
        '\n' => KeyCode::Enter,
        '\t' => KeyCode::Tab,
        '\x1b' => KeyCode::Esc,
        letter => KeyCode::Char(letter),
    };
    keys.chars().map(|key| state.press(KeyEvent::new(code(key), KeyModifiers::NONE))).last().unwrap_or(Act::Nothing)
}

fn drawn(looks: &Looks, state: &State) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(110, 9)).unwrap();
    terminal.draw(|frame| draw(frame, looks, state)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..buffer.area.height).map(line).collect()
}

#[test]
fn the_screen_shows_rates_between_two_looks_and_what_the_keys_do() {
    let screen = drawn(&looks(), &State::new(Duration::from_secs(1)));
    assert_eq!(
        screen[0],
        "throttle enforcing, revision 3, 14:03:00Z: 70/s passed, 900/s refused, 0/s observed  every 1s"
    );
    assert_eq!(screen[1], " 1 talkers   2 limits   3 reasons   4 refused   5 connections   6 health");
    assert_eq!(
        screen[3..8],
        [
            "SOURCE           LIMIT  UNIT               USED  ROOM  RATE  FULL IN  REFUSED (SAMPLED)",
            "203.0.113.7      few    packets           100 %     0  50/s      2 s                412",
            "198.51.100.4     few    packets            50 %    50  20/s      1 s                  0",
            "2001:db8:7::/64  wide   packets             1 %    99   3/s    20 ms                  0",
            "198.51.100.9     open   open connections   24 %    38                                 3",
        ]
    );
    assert!(screen[8].contains("s sort") && screen[8].contains("/ filter") && screen[8].contains("q quit"));
}

#[test]
fn keys_choose_the_view() {
    let (looks, mut state) = (looks(), State::new(Duration::from_secs(1)));
    press(&mut state, "2");
    assert!(drawn(&looks, &state)[4].starts_with("few    web      packets  50/s    enforce      70/s    900/s"));
    press(&mut state, "\t");
    assert!(drawn(&looks, &state)[5].starts_with("source-limit  drop       900/s"));
    press(&mut state, "4");
    assert!(drawn(&looks, &state)[4].starts_with("203.0.113.7  few    source-limit  drop         412  14:02:59.500Z"));
    press(&mut state, "5");
    assert_eq!(drawn(&looks, &state)[4], "198.51.100.9     open     12    38  24 %                  3");
    assert!(drawn(&looks, &state)[5].starts_with("(in aggregates)  few       5"), "{:?}", drawn(&looks, &state));
}

#[test]
fn health_says_what_decides_and_which_backend_is_the_worst() {
    let (looks, mut state) = (looks(), State::new(Duration::from_secs(1)));
    press(&mut state, "6");
    let screen = drawn(&looks, &state);
    let row = "web      latency  window  38 of 200    37    0.5  half-open  1 of 2 well  web-2 suspect, suspicion 2.1  reques";
    assert_eq!(screen[4].trim_end(), row, "{screen:#?}");
}

#[test]
fn a_column_is_found_by_the_beginning_of_its_heading() {
    assert_eq!(View::Talkers.column("full"), Some(6));
    assert_eq!(View::Connections.column("refused"), Some(5));
    assert_eq!(View::Reasons.column("room"), None);
}

#[test]
fn keys_sort_and_reverse_and_come_back_to_the_agents_order() {
    let (looks, mut state) = (looks(), State::new(Duration::from_secs(1)));
    let first = |state: &State| drawn(&looks, state)[4].split(' ').next().unwrap().to_owned();
    press(&mut state, "s");
    assert!(drawn(&looks, &state)[3].starts_with("SOURCE v"));
    assert_eq!(first(&state), "198.51.100.4");
    press(&mut state, "sssr");
    assert_eq!(first(&state), "2001:db8:7::/64", "by what is used, the other way round");
    press(&mut state, "rsssss");
    assert_eq!(state.sorted(), (None, false));
    assert_eq!(first(&state), "203.0.113.7");
}

#[test]
fn a_filter_is_typed_kept_and_taken_back() {
    let (looks, mut state) = (looks(), State::new(Duration::from_secs(1)));
    press(&mut state, "/q2001");
    assert!(drawn(&looks, &state)[1].ends_with("only what contains: q2001_"), "letters are no commands meanwhile");
    press(&mut state, "\x1b/WIDE\n");
    let screen = drawn(&looks, &state);
    assert!(screen[1].ends_with("only what contains: WIDE") && screen[4].starts_with("2001:db8:7::/64"));
    assert_eq!(screen[5], "");
    press(&mut state, "\x1b/192.0.2.\n");
    for view in ["1", "2", "3", "4", "5", "6"] {
        press(&mut state, view);
        let row = drawn(&looks, &state)[3].clone();
        assert!(row.starts_with("nothing here contains what the filter says"), "{view}: {row}");
    }
    press(&mut state, "1\x1b");
    assert!(drawn(&looks, &state)[4].starts_with("203.0.113.7"));
}

#[test]
fn keys_pause_slow_down_and_end() {
    let mut state = State::new(Duration::from_secs(1));
    assert_eq!(press(&mut state, "p"), Act::Nothing);
    assert!(state.paused() && drawn(&looks(), &state)[0].ends_with("[paused]"));
    assert_eq!(press(&mut state, "p"), Act::Look);
    press(&mut state, "++");
    assert_eq!(state.interval(), Duration::from_secs(4));
    press(&mut state, "------");
    assert_eq!(state.interval(), Duration::from_millis(250));
    assert_eq!(press(&mut state, "q"), Act::End);
    assert_eq!(state.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Act::End);
}

#[test]
fn what_was_seen_stays_while_the_agent_is_away() {
    let mut state = State::new(Duration::from_secs(1));
    state.trouble = Some("no agent".to_owned());
    let screen = drawn(&looks(), &state);
    assert!(screen[0].ends_with("! no agent") && screen[4].starts_with("203.0.113.7"));
}

#[test]
fn one_look_has_no_rates_and_counts_that_began_anew_start_from_zero() {
    let state = State::new(Duration::from_secs(1));
    assert!(drawn(&Looks::of(look(1)), &state)[0].contains("- passed"));
    let mut restarted = Looks::of(look(9));
    restarted.add(Top { clock_seconds: 200.0, ..look(1) });
    assert!(drawn(&restarted, &state)[0].contains(" 0.77/s passed"), "{:?}", drawn(&restarted, &state));
}

#[test]
fn every_view_has_as_many_fields_as_headings() {
    for view in View::ALL {
        let sheet = looks().sheet(view);
        assert!(!sheet.rows.is_empty() && sheet.headings.len() == view.columns());
        assert!(sheet.rows.iter().all(|row| row.len() == sheet.headings.len()));
    }
}
