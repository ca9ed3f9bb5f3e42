//! What a test says that cannot run here: `cargo xtask test` lists it.

use std::io::Write as _;

/// Says that the test of this thread is skipped, and why, past the harness, which keeps back what a passing test prints.
pub(crate) fn skipped(why: &str) {
    let thread = std::thread::current();
    // Nobody reads it where standard output is closed.
    let _ = writeln!(std::io::stdout().lock(), "skipped {}: {why}", thread.name().unwrap_or("a test"));
}
