//! The document as a TOML file: reading it with the place of every problem, and writing it.

use super::{
    check,
    document::Document,
    fault::{Diagnostic, Diagnostics, Fault, Warning},
    read::{self, Problem, Problems},
};
use serde_json::{Map, Number, Value};
use std::{collections::HashMap, fmt, ops::Range};
use toml::de::{DeTable, DeValue};

/// Reads a policy file. Every problem is named, of its syntax, its fields or its meaning, in the order of the file.
pub fn parse(text: &str) -> Result<Document, Diagnostics> {
    parse_with_warnings(text).map(|(document, _)| document)
}

/// As [`parse`], with what the author may not have meant.
pub fn parse_with_warnings(text: &str) -> Result<(Document, Vec<Warning>), Diagnostics> {
    let lines = Lines::of(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(sorted(errors.iter().map(|error| lines.syntax(error)).collect()));
    }
    let mut tree = Tree::default();
    let value = tree.table("", root.get_ref());
    let (document, Problems { found: mut problems, unread }) = read::read::<Document>(&value);
    problems.retain(|problem| tree.problems.iter().all(|strange| strange.diagnostic.path != problem.diagnostic.path));
    problems.append(&mut tree.problems);
    let document = document.unwrap_or_default();
    let of_value = |diagnostic| Problem { diagnostic, of_key: false };
    problems.extend(check::faults(&document, &unread, check::Parts::ALL).into_iter().map(of_value));
    let in_file = |problems: Vec<Problem>| {
        let mut placed: Vec<_> = problems.into_iter().map(|problem| lines.place(&tree, problem)).collect();
        read::name_entries(&mut placed, &value);
        placed
    };
    if !problems.is_empty() {
        return Err(sorted(in_file(problems)));
    }
    let warnings = check::warnings(&document).into_iter().map(of_value).collect();
    Ok((document, in_file(warnings)))
}

/// Refuses a text that says nothing, as a file does that was emptied or cut off by accident: in force it would take
/// everything away. A policy of defaults alone says at least its mode.
pub fn require_words(text: &str) -> Result<(), Diagnostics> {
    let says = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    if text.lines().any(says) {
        return Ok(());
    }
    let reason = "this says nothing, and would take every service, limit and prefix away";
    let remedy = "was the file cut off? to have it so, write mode = \"observe\", or apply it with `--empty`";
    Err(Diagnostics(vec![Diagnostic { line: Some(1), column: Some(1), ..Fault::new(reason, remedy).at("") }]))
}

/// The text of a file, which has to be text.
pub fn text(bytes: Vec<u8>) -> Result<String, Diagnostics> {
    String::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        let (line, column) = Lines::of(&before).position(before.len());
        let fault =
            Fault::new("this is no text: the bytes here are not UTF-8", "is it the right file? save it as UTF-8");
        Diagnostics(vec![Diagnostic { line: Some(line), column: Some(column), ..fault.at("") }])
    })
}

/// The document as a file that [`parse`] reads back to the same document. Defaults are written out.
pub fn to_toml(document: &Document) -> String {
    let plain = toml::to_string(document).expect("a document has only string keys and integers below 2^63");
    let mut file: toml_edit::DocumentMut = plain.parse().expect("the line above wrote TOML");
    if document.shapes.is_empty() {
        // Every shape has its own default, which is not the document's to repeat.
        file.remove("shapes");
    }
    let limits = file.get_mut("limit").and_then(|limits| limits.as_array_of_tables_mut());
    for limit in limits.into_iter().flat_map(|limits| limits.iter_mut()) {
        for field in ["prefix", "aggregate"] {
            if let Some(lengths) = limit.remove(field).and_then(|item| item.into_table().ok()) {
                limit.insert(field, toml_edit::value(lengths.into_inline_table()));
            }
        }
    }
    file.to_string()
}

/// The values of a file without their places, and the places by path.
#[derive(Default)]
struct Tree {
    values: HashMap<String, usize>,
    keys: HashMap<String, usize>,
    problems: Vec<Problem>,
}

impl Tree {
    fn table(&mut self, path: &str, table: &DeTable<'_>) -> Value {
        let mut fields = Map::new();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            self.keys.insert(path.clone(), key.span().start);
            let value = self.value(path, value.get_ref(), value.span());
            fields.insert(name.to_owned(), value);
        }
        Value::Object(fields)
    }

    fn value(&mut self, path: String, value: &DeValue<'_>, span: Range<usize>) -> Value {
        let plain = match value {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(number) => number.into(),
                Err(_) => self.strange(&path, integer),
            },
            DeValue::Float(float) => match float.as_str().parse().ok().and_then(Number::from_f64) {
                Some(number) => number.into(),
                None => self.strange(&path, float),
            },
            DeValue::Datetime(date) => self.strange(&path, date),
            DeValue::Table(table) => self.table(&path, table),
            DeValue::Array(items) => {
                let items = items.iter().enumerate();
                items.map(|(index, item)| self.value(format!("{path}[{index}]"), item.get_ref(), item.span())).collect()
            }
        };
        self.values.insert(path, span.start);
        plain
    }

    /// Names a value that no field takes, whatever its reader thinks of it.
    fn strange(&mut self, path: &str, value: &impl fmt::Display) -> Value {
        let fault = Fault::new(format!("no field takes `{value}`"), "write text in quotes, or a number below 2^63");
        self.problems.push(Problem { diagnostic: fault.at(path), of_key: false });
        Value::Null
    }

    /// Where the problem is; for a path that the file does not have, where its parent is.
    fn offset(&self, problem: &Problem) -> Option<usize> {
        let mut path = problem.diagnostic.path.as_str();
        if problem.of_key
            && let Some(offset) = self.keys.get(path)
        {
            return Some(*offset);
        }
        loop {
            if let Some(offset) = self.values.get(path) {
                return Some(*offset);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

/// Where the lines of a text start.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// The line and the character of a byte, both from 1.
    fn position(&self, offset: usize) -> (u32, u32) {
        let line = self.starts.partition_point(|&start| start <= offset);
        let before = self.text.get(self.starts[line - 1]..offset).unwrap_or_default();
        (line as u32, before.chars().count() as u32 + 1)
    }

    fn place(&self, tree: &Tree, problem: Problem) -> Diagnostic {
        let position = tree.offset(&problem).map(|offset| self.position(offset));
        let (line, column) = position.unwrap_or((1, 1));
        Diagnostic { line: Some(line), column: Some(column), ..problem.diagnostic }
    }

    fn syntax(&self, error: &toml::de::Error) -> Diagnostic {
        let (line, column) = self.position(error.span().map_or(0, |span| span.start));
        let fault = Fault::new(error.message().replace('\n', ", "), "correct the TOML here");
        Diagnostic { line: Some(line), column: Some(column), ..fault.at("") }
    }
}

fn sorted(mut diagnostics: Vec<Diagnostic>) -> Diagnostics {
    diagnostics.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    Diagnostics(diagnostics)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
