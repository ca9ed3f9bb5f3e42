//! What keys do.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::sheet::{Looks, Sheet, View};

/// The shortest and the longest interval that keys reach.
const INTERVALS: [Duration; 2] = [Duration::from_millis(250), Duration::from_mins(1)];

/// How the terminal shows what was seen.
#[derive(Clone, Debug)]
pub(super) struct State {
    view: usize,
    /// By which column each view is sorted; none for the agent's own order.
    sorted: [Option<usize>; View::ALL.len()],
    reversed: bool,
    filter: String,
    /// Whether letters go to the filter.
    typing: bool,
    paused: bool,
    scrolled: usize,
    interval: Duration,
    /// Why there is no new look.
    pub(super) trouble: Option<String>,
}

/// What is to be done after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// No more than to draw anew.
    Nothing,
    /// To look at once.
    Look,
    /// To end.
    End,
}

impl State {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            view: 0,
            sorted: [None; View::ALL.len()],
            reversed: false,
            filter: String::new(),
            typing: false,
            paused: false,
            scrolled: 0,
            interval,
            trouble: None,
        }
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    pub(super) fn paused(&self) -> bool {
        self.paused
    }

    pub(super) fn view(&self) -> View {
        View::ALL[self.view]
    }

    /// The column by which the view is sorted, and whether the other way round.
    pub(super) fn sorted(&self) -> (Option<usize>, bool) {
        (self.sorted[self.view], self.reversed)
    }

    /// The filter, where there is one, and whether it is being typed.
    pub(super) fn filter(&self) -> Option<(&str, bool)> {
        (self.typing || !self.filter.is_empty()).then_some((&self.filter, self.typing))
    }

    /// The rows that the view shows, in their order, from the one that was scrolled to.
    pub(super) fn rows(&self, looks: &Looks) -> Sheet {
        let mut sheet = looks.sheet(self.view());
        sheet.filter(&self.filter);
        sheet.order(self.sorted[self.view], self.reversed);
        sheet.rows.drain(..self.scrolled.min(sheet.rows.len().saturating_sub(1)));
        sheet
    }

    /// Does what the key says.
    pub(super) fn press(&mut self, key: KeyEvent) -> Act {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Act::End;
        }
        if self.typing {
            self.type_into_filter(key.code);
            return Act::Nothing;
        }
        match key.code {
            KeyCode::Char('q') => return Act::End,
            KeyCode::Char(digit @ '1'..='6') => self.show(digit as usize - '1' as usize),
            KeyCode::Tab | KeyCode::Right => self.show(self.view + 1),
            KeyCode::BackTab | KeyCode::Left => self.show(self.view + View::ALL.len() - 1),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') => (self.typing, self.scrolled) = (true, 0),
            KeyCode::Esc => (self.filter, self.scrolled) = (String::new(), 0),
            KeyCode::Up => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::Down => self.scrolled += 1,
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(20),
            KeyCode::PageDown => self.scrolled += 20,
            KeyCode::Char('+') => self.interval = (self.interval * 2).min(INTERVALS[1]),
            KeyCode::Char('-') => self.interval = (self.interval / 2).max(INTERVALS[0]),
            KeyCode::Char('p' | ' ') => {
                self.paused = !self.paused;
                return if self.paused { Act::Nothing } else { Act::Look };
            }
            KeyCode::Char('s') => self.sort_by_next(),
            _ => {}
        }
        Act::Nothing
    }

    fn show(&mut self, view: usize) {
        (self.view, self.scrolled) = (view % View::ALL.len(), 0);
    }

    /// The agent's own order, then each column in turn.
    fn sort_by_next(&mut self) {
        let columns = self.view().columns();
        let next = self.sorted[self.view].map_or(0, |column| column + 1);
        self.sorted[self.view] = (next < columns).then_some(next);
    }

    fn type_into_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => (self.typing, self.filter) = (false, String::new()),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
    }
}
