//! The terminal: a line of figures, the choice of views, one table, and what the keys do.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout},
    style::{Modifier, Style},
    text::{Line, Span, Text},
    widgets::{Cell, Paragraph, Row, Table},
};

use super::{
    keys::State,
    sheet::{Looks, Sheet, View},
};

const KEYS: &str = "1-6 view  s sort  r reverse  / filter  Esc all  p pause  +/- interval  arrows scroll  q quit";

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, looks: &Looks, state: &State) {
    let rows = [
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ];
    let [head, choice, title, body, foot] = Layout::vertical(rows).areas(frame.area());
    let strong = Style::new().add_modifier(Modifier::BOLD);
    let faint = Style::new().add_modifier(Modifier::DIM);

    let mut figures = Line::styled(looks.headline(), strong);
    match &state.trouble {
        Some(trouble) => figures.push_span(Span::raw(format!("  ! {trouble}"))),
        None if state.paused() => figures.push_span(Span::raw("  [paused]")),
        None => figures.push_span(Span::raw(format!("  every {:?}", state.interval()))),
    }
    frame.render_widget(figures, head);
    frame.render_widget(views(state), choice);

    let sheet = state.rows(looks);
    frame.render_widget(Line::styled(sheet.title, faint), title);
    if sheet.rows.is_empty() {
        frame.render_widget(Paragraph::new(sheet.empty), body);
    } else {
        frame.render_widget(table(&sheet, state), body);
    }
    frame.render_widget(Line::styled(KEYS, faint), foot);
}

fn views(state: &State) -> Line<'static> {
    let mut line = Line::default();
    for (number, view) in View::ALL.into_iter().enumerate() {
        let chosen = if view == state.view() { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        line.push_span(Span::styled(format!(" {} {} ", number + 1, view.name()), chosen));
        line.push_span(Span::raw(" "));
    }
    if let Some((letters, typing)) = state.filter() {
        let end = if typing { "_" } else { "" };
        line.push_span(Span::raw(format!("  only what contains: {letters}{end}")));
    }
    line
}

fn table<'a>(sheet: &'a Sheet, state: &State) -> Table<'a> {
    let (sorted, reversed) = state.sorted();
    let headings: Vec<String> = sheet
        .headings
        .iter()
        .enumerate()
        .map(|(column, heading)| {
            let order = match sorted {
                Some(by) if by == column => {
                    if reversed {
                        " ^"
                    } else {
                        " v"
                    }
                }
                _ => "",
            };
            format!("{}{order}", heading.trim_start_matches('>'))
        })
        .collect();
    let widths: Vec<Constraint> = (0..headings.len())
        .map(|column| {
            let fields = sheet.rows.iter().map(|row| row[column].text.chars().count());
            let width = fields.chain([headings[column].chars().count()]).max().unwrap_or(0);
            let width = u16::try_from(width).unwrap_or(u16::MAX);
            // Where there is no room for all, words at the end give way, and no figure before them.
            if column + 1 == headings.len() { Constraint::Max(width) } else { Constraint::Length(width) }
        })
        .collect();
    let align = |column: usize, text: String| {
        let side = if sheet.headings[column].starts_with('>') { Alignment::Right } else { Alignment::Left };
        Cell::new(Text::from(text).alignment(side))
    };
    let rows: Vec<Row<'_>> = sheet
        .rows
        .iter()
        .map(|row| Row::new(row.iter().enumerate().map(|(column, field)| align(column, field.text.clone()))))
        .collect();
    let header = Row::new(headings.into_iter().enumerate().map(|(column, heading)| align(column, heading)));
    Table::new(rows, widths).header(header.style(Style::new().add_modifier(Modifier::BOLD))).column_spacing(2)
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
