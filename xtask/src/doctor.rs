//! `cargo xtask doctor`: what building needs, then what running needs (`throttle doctor`).

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::process;
use crate::setup::{self, PACKAGES};
use crate::workspace::{self, Agent};

/// Prints each finding with its remedy, and ends as `throttle doctor` does.
pub(crate) fn run() -> Result<ExitCode> {
    println!("to build and test:");
    let toolchain = setup::pinned_toolchain();
    let rustc = process::output(Command::new("rustc").current_dir(workspace::root()).arg("--version"))?;
    say(rustc.contains(toolchain), &format!("Rust {toolchain}"), &format!("rustup toolchain install {toolchain}"));
    say(setup::has_rust_source()?, "rust-src", SETUP);
    say(setup::installed_bpf_linker()?.is_some(), "bpf-linker", SETUP);
    for package in PACKAGES {
        say(setup::find(package.program).is_some(), package.program, SETUP);
    }

    setup::kernel_toolchain()?;
    let agent = Agent::Quick.build()?;
    println!("to run:");
    let status = process::status(Command::new(agent).arg("doctor"))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

const SETUP: &str = "cargo xtask setup";

fn say(found: bool, what: &str, remedy: &str) {
    if found {
        println!("  ok       {what}");
    } else {
        println!("  missing  {what}: run `{remedy}`");
    }
}
