//! `cargo xtask lint`: every check that reads the code without running it; warnings are errors.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::workspace::{self, KERNEL_CRATES, cargo};
use crate::{process, setup};

/// Runs all checks, also after one has failed, and fails if any did.
pub(crate) fn run() -> Result<()> {
    setup::kernel_toolchain()?;
    let deny = setup::cargo_deny()?;

    let mut checks = vec![
        ("formatting".to_owned(), words("fmt --all --check")),
        ("clippy".to_owned(), words("clippy --workspace --all-targets -- --deny warnings")),
        ("documentation".to_owned(), documentation()),
    ];
    for folder in KERNEL_CRATES {
        let formatting = words(&format!("fmt --check --manifest-path {folder}/Cargo.toml"));
        checks.push((format!("formatting of {folder}"), formatting));
        checks.push((format!("clippy of {folder}"), kernel_clippy(folder)));
    }
    let advisories =
        process::step("fetch the advisories", || process::output(cargo_deny(&deny, ".").args(["fetch", "db"])));
    for folder in [".", KERNEL_CRATES[0], KERNEL_CRATES[1]] {
        let mut check = cargo_deny(&deny, folder);
        check.args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
        if advisories.is_ok() {
            check.arg("advisories");
        }
        checks.push((format!("dependencies of {folder}"), check));
    }

    let mut failed = Vec::new();
    for (what, mut check) in checks {
        if process::step(&what, || process::run(&mut check)).is_err() {
            process::ensure_wanted()?;
            failed.push(what);
        }
    }
    if let Err(error) = advisories {
        let error = format!("{error:#}");
        let reason = error.lines().last().unwrap_or_default();
        eprintln!("skipped advisories: their database could not be fetched: {reason}");
    }
    if !failed.is_empty() {
        bail!("lint: {} failed; what they said is above", failed.join(", "));
    }
    Ok(())
}

fn words(words: &str) -> Command {
    let mut command = cargo();
    command.args(words.split_whitespace());
    command
}

fn documentation() -> Command {
    let mut doc = words("doc --workspace --no-deps --document-private-items");
    doc.env("RUSTDOCFLAGS", "--deny warnings");
    doc
}

/// Clippy on a crate that is compiled for the kernel, with the same flags as its build.
fn kernel_clippy(folder: &str) -> Command {
    let mut clippy = words(&format!(
        "clippy --release --manifest-path {folder}/Cargo.toml --target bpfel-unknown-none -Z build-std=core"
    ));
    clippy.arg("--target-dir").arg(workspace::target().join("kernel-lint"));
    // The pinned compiler is a stable one; building `core` is not a stable thing to ask of it.
    clippy.args(["--", "--deny", "warnings"]).env("RUSTC_BOOTSTRAP", "1");
    clippy
}

fn cargo_deny(deny: &Path, folder: &str) -> Command {
    let mut command = Command::new(deny);
    command.current_dir(workspace::root());
    command.arg("--manifest-path").arg(format!("{folder}/Cargo.toml"));
    command.args(["--config", "deny.toml", "--log-level", "error"]);
    command
}
