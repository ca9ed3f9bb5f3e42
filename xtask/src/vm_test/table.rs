//! The table of all kernels, in Markdown.

use std::fmt;

/// What became of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every test that ran there passed.
    Passed,
    /// The agent refused to run there, as it must.
    Refused,
    /// Something else happened than it must.
    Failed,
    /// It was not booted.
    Skipped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Passed => "ok",
            Self::Refused => "refused, as it must be",
            Self::Failed => "FAILED",
            Self::Skipped => "SKIPPED",
        })
    }
}

/// A kernel's row.
#[derive(Debug)]
pub(super) struct Row {
    /// Its exact version.
    pub(super) kernel: String,
    pub(super) verdict: Verdict,
    pub(super) tests: String,
    /// Why it failed, and what it lacks.
    pub(super) notes: Vec<String>,
    /// What tests skipped themselves, as they say it.
    pub(super) skipped: Vec<String>,
    /// The tables that tests print, line by line.
    pub(super) tables: Vec<String>,
}

impl Row {
    /// Of a kernel that was not booted.
    pub(super) fn skipped(kernel: String, why: &anyhow::Error) -> Self {
        let notes = vec![format!("{why:#}")];
        Self {
            kernel,
            verdict: Verdict::Skipped,
            tests: "none".to_owned(),
            notes,
            skipped: Vec::new(),
            tables: Vec::new(),
        }
    }

    /// What was not tested, as every test says it.
    fn skips(&self) -> impl Iterator<Item = String> {
        let whole = (self.verdict == Verdict::Skipped).then(|| format!("{}: {}", self.kernel, self.notes.join("; ")));
        whole.into_iter().chain(self.skipped.iter().map(|skip| format!("{}: {skip}", self.kernel)))
    }
}

/// Prints it, what was skipped, and the tables of tests.
pub(super) fn print(rows: &[Row]) {
    println!("\n| kernel | result | tests | what failed, what is missing |\n|---|---|---|---|");
    for Row { kernel, verdict, tests, notes, .. } in rows {
        println!("| {kernel} | {verdict} | {tests} | {} |", notes.join("; "));
    }
    println!("\nskipped:");
    let skips: Vec<String> = rows.iter().flat_map(Row::skips).collect();
    for skip in &skips {
        println!("  {skip}");
    }
    if skips.is_empty() {
        println!("  nothing");
    }
    for Row { kernel, tables, .. } in rows.iter().filter(|row| !row.tables.is_empty()) {
        println!("\n{kernel}:\n\n{}", tables.join("\n"));
    }
}
