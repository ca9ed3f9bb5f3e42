//! The binary that the tests run.

use crate::machine;
use anyhow::{Context, Result};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The binary as it is in the working tree: `THROTTLE_BIN`, or built on the first call.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    if let Some(built) = BINARY.get() {
        return Ok(built);
    }
    let built = match std::env::var_os("THROTTLE_BIN") {
        Some(named) => named.into(),
        None => build()?,
    };
    Ok(BINARY.get_or_init(|| built))
}

fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "throttle-agent", "--bin", "throttle", "--message-format=json"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let messages = machine::run(command.current_dir(env!("CARGO_MANIFEST_DIR")))?;
    let built = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut executables = built.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    executables.next_back().context("cargo built no binary")
}
