//! `cargo xtask ci`: lint, then the commands that the README shows, but those that wait for somebody or measure.

use std::env;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{process, readme, workspace};

/// Runs all of them, also after one has failed, prints each one's time, and fails if any did.
pub(crate) fn run() -> Result<()> {
    let readme = fs::read_to_string(workspace::root().join("README.md")).context("read README.md")?;
    let mut commands = readme::commands(&readme);
    for needed in ["demo", "test"] {
        if !commands.iter().any(|words| words[0] == needed) {
            bail!("README.md shows no `$ cargo xtask {needed}` in a console block: CI would not run it");
        }
    }
    if let Some(lint) = commands.iter().position(|words| words == &["lint"]) {
        commands.remove(lint);
    }
    commands.insert(0, vec!["lint"]);

    let mut ends: Vec<(String, bool, Duration)> = Vec::new();
    for words in commands {
        let command = format!("cargo xtask {}", words.join(" "));
        eprintln!("\n$ {command}");
        let start = Instant::now();
        let end = process::run(Command::new(env::current_exe()?).args(&words));
        process::ensure_wanted()?;
        ends.push((command, end.is_ok(), start.elapsed()));
    }

    println!("\nci:");
    for (command, ok, time) in &ends {
        let verdict = if *ok { "ok" } else { "FAILED" };
        println!("{verdict:>6}  {:>12}  {command}", process::seconds(*time));
    }
    let failed: Vec<&str> = ends.iter().filter(|(_, ok, _)| !ok).map(|(command, ..)| command.as_str()).collect();
    if !failed.is_empty() {
        bail!("ci: {} failed", failed.join(", "));
    }
    Ok(())
}
