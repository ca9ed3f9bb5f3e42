//! Aligned columns: a heading, cells, two spaces between; the last column is never padded.

use super::output::Paint;

/// How a cell is painted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Warning,
    Fault,
}

/// One field of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Rows under one heading. A heading that starts with `>` is aligned to the right, as numbers are.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as there are headings.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.headings.len(), "a row has a cell for every heading");
        self.rows.push(cells.into());
    }

    /// The same of a row whose length is known where it is made.
    pub(crate) fn push(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.headings.len(), "a row has a cell for every heading");
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines, each ended; columns that are empty in every row are left out.
    pub(crate) fn render(&self, paint: Paint) -> String {
        let shown: Vec<usize> =
            (0..self.headings.len()).filter(|&c| self.rows.iter().any(|row| !row[c].text.is_empty())).collect();
        let heading = |c: usize| self.headings[c].trim_start_matches('>');
        let width = |c: usize| {
            let cells = self.rows.iter().map(|row| row[c].text.chars().count());
            cells.chain([heading(c).chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = shown.iter().map(|&c| width(c)).collect();
        let line = |cell: &dyn Fn(usize) -> (String, String)| {
            let mut line = String::new();
            for (place, (&c, &width)) in shown.iter().zip(&widths).enumerate() {
                let (text, painted) = cell(c);
                let space = " ".repeat(width - text.chars().count());
                line.push_str(if place == 0 { "" } else { "  " });
                if self.headings[c].starts_with('>') {
                    line.push_str(&space);
                    line.push_str(&painted);
                } else {
                    line.push_str(&painted);
                    line.push_str(&space);
                }
            }
            line.truncate(line.trim_end().len());
            line.push('\n');
            line
        };
        let mut out = line(&|c| (heading(c).to_owned(), paint.faint(heading(c))));
        for row in &self.rows {
            out += &line(&|c| (row[c].text.clone(), tint(paint, &row[c])));
        }
        out
    }
}

fn tint(paint: Paint, cell: &Cell) -> String {
    match cell.tone {
        Tone::Plain => cell.text.clone(),
        Tone::Good => paint.good(&cell.text),
        Tone::Warning => paint.warning(&cell.text),
        Tone::Fault => paint.fault(&cell.text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_empty_ones_vanish() {
        let mut table = Table::new(&["NAME", ">RATE", "NOTE", "MODE"]);
        table.row(["web".into(), "50/min".into(), "".into(), Cell::new("enforce", Tone::Good)]);
        table.row(["packets".into(), "1000000/s".into(), "".into(), "observe".into()]);
        let expected = "\
NAME          RATE  MODE
web         50/min  enforce
packets  1000000/s  observe
";
        assert_eq!(table.render(Paint::PLAIN), expected);
    }
}
