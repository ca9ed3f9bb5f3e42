//! What is wrong with a policy, where, and what to do about it.

use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// What is wrong with one value, by itself: without the place, which its reader adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong, as the start of a sentence.
    pub reason: String,
    /// What would be right.
    pub remedy: String,
}

impl Fault {
    /// A fault; both texts without a full stop.
    pub fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: remedy.into() }
    }

    /// The same fault of the value at `path`.
    pub fn at(self, path: impl Into<String>) -> Diagnostic {
        let Self { reason, remedy } = self;
        Diagnostic { line: None, column: None, path: path.into(), name: None, reason, remedy }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.reason, self.remedy)
    }
}

impl std::error::Error for Fault {}

/// One problem of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diagnostic {
    /// The line of the file, from 1; none where the document did not come as text.
    pub line: Option<u32>,
    /// The character of the line, from 1.
    pub column: Option<u32>,
    /// The field, such as `limit[0].rate`, for programs: places in lists count from 0. Empty for the document as a whole.
    pub path: String,
    /// The name of the limit or service that the path leads into, where it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// What is wrong.
    pub reason: String,
    /// What would be right.
    pub remedy: String,
}

/// A problem that does not refuse the document: it does something that its author may not have meant.
pub type Warning = Diagnostic;

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text()),
            None => f.write_str(&self.text()),
        }
    }
}

impl Diagnostic {
    /// The place as people name it, what is wrong and what would be right, without the line.
    pub fn text(&self) -> String {
        let mut text = self.place();
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&self.reason);
        if !self.remedy.is_empty() {
            text.push_str("; ");
            text.push_str(&self.remedy);
        }
        text
    }

    /// The path as people say it: `limit "web": rate`, `limit 2: name` where the second has no name, `ports, item 1`.
    fn place(&self) -> String {
        let (entry, field) = self.path.split_once('.').unwrap_or((&self.path, ""));
        let entry = match (&self.name, entry.split_once('[')) {
            (Some(name), Some((list, _))) => format!("{list} \"{name}\""),
            (None, Some((list, index))) => format!("{list} {}", ordinal(index)),
            (_, None) if field.is_empty() => entry.to_owned(),
            // A table of which there is one, such as `sources.allow`: no entry stands in between.
            (_, None) => return counted(&self.path),
        };
        if field.is_empty() { entry } else { format!("{entry}: {}", counted(field)) }
    }

    /// With the file's name and the position in front, as compilers write it.
    pub fn in_file(&self, file: &str) -> String {
        match (self.line, self.column) {
            (Some(line), Some(column)) => format!("{file}:{line}:{column}: {}", self.text()),
            _ => format!("{file}: {}", self.text()),
        }
    }
}

/// A field, with the place in its list as people count it.
fn counted(field: &str) -> String {
    match field.split_once('[') {
        Some((list, index)) => format!("{list}, item {}", ordinal(index)),
        None => field.to_owned(),
    }
}

/// `0]` as people count: 1.
fn ordinal(index: &str) -> u64 {
    index.trim_end_matches(']').parse::<u64>().unwrap_or(0) + 1
}

/// Every problem of a document, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// The one problem of a file that cannot be read.
    pub fn unread(error: &std::io::Error) -> Self {
        let fault = Fault::new(format!("it cannot be read: {error}"), "name a file that is there, and yours to read");
        Self(vec![fault.at("")])
    }

    /// One line for each problem, with the file's name.
    pub fn in_file(&self, file: &str) -> String {
        self.0.iter().map(|diagnostic| diagnostic.in_file(file)).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            write!(f, "{}{diagnostic}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_as_people_count_and_call_them() {
        let place = |path: &str, name: Option<&str>| {
            let name = name.map(str::to_owned);
            Diagnostic { name, ..Fault::new("x", "").at(path) }.to_string()
        };
        assert_eq!(place("limit[0].rate", Some("web")), "limit \"web\": rate: x");
        assert_eq!(place("limit[1].name", None), "limit 2: name: x");
        assert_eq!(place("limit[1]", Some("web")), "limit \"web\": x");
        assert_eq!(place("service[0].ports[1]", Some("web")), "service \"web\": ports, item 2: x");
        assert_eq!(place("sources.block[0]", None), "sources.block, item 1: x");
        assert_eq!(place("mode", None), "mode: x");
        assert_eq!(place("", None), "x");
        assert_eq!(Diagnostic { line: Some(7), ..Fault::new("x", "y").at("mode") }.to_string(), "line 7: mode: x; y");
    }
}
