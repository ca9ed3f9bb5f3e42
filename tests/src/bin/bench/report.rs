//! What a part of the benchmark has to say, and where it is written: a page of Markdown for each part, its charts beside it.

use anyhow::{Context, Result};
use std::{fs, path::Path, time::Duration};

/// What was measured: text with tables, and charts.
#[derive(Default)]
pub(super) struct Section {
    /// Markdown.
    pub(super) text: String,
    /// Names and SVGs.
    charts: Vec<(&'static str, String)>,
}

impl Section {
    /// Adds a chart, which stands behind the text so far.
    pub(super) fn draw(&mut self, name: &'static str, title: &str, svg: String) {
        self.text.extend(["\n![", title, "](", name, ".svg)\n"]);
        self.charts.push((name, svg));
    }

    /// Writes the page of a part, and its charts beside it.
    pub(super) fn write(&self, directory: &Path, part: &str, machine: &str) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let page = format!("# {part}\n\n`cargo xtask bench -- {part}`\n\n{machine}\n\n{}", self.text.trim_start());
        let files = self.charts.iter().map(|(name, svg)| (format!("{name}.svg"), svg));
        for (name, content) in files.chain([(format!("{part}.md"), &page)]) {
            let file = directory.join(name);
            fs::write(&file, content).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(())
    }
}

impl From<String> for Section {
    fn from(text: String) -> Self {
        Self { text, charts: Vec::new() }
    }
}

/// How thoroughly to measure.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    /// Only to see that everything runs.
    pub(super) short: bool,
}

impl Effort {
    /// So many rounds, or one.
    pub(super) fn rounds(self, rounds: usize) -> usize {
        if self.short { 1 } else { rounds }
    }

    /// So long, or a tenth of it; at least a second where it is a second or more.
    pub(super) fn span(self, span: Duration) -> Duration {
        if self.short { (span / 10).max(span.min(Duration::from_secs(1))) } else { span }
    }
}
