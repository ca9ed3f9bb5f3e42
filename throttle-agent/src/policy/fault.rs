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
        Diagnostic { line: None, column: None, path: path.into(), reason: self.reason, remedy: self.remedy }
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
    /// The field, such as `limit[0].rate`; empty for the document as a whole.
    pub path: String,
    /// What is wrong.
    pub reason: String,
    /// What would be right.
    pub remedy: String,
}

/// A problem that does not refuse the document: it does something that its author may not have meant.
pub type Warning = Diagnostic;

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}", self.reason)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl Diagnostic {
    /// With the file's name and the position in front, as compilers write it.
    pub fn in_file(&self, file: &str) -> String {
        match (self.line, self.column) {
            (Some(line), Some(column)) => format!("{file}:{line}:{column}: {self}"),
            _ => format!("{file}: {self}"),
        }
    }
}

/// Every problem of a document, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
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
