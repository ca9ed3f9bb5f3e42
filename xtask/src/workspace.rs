//! Where things are in this repository, and how cargo is called on them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// The crates that the workspace excludes because they are compiled for the kernel.
pub(crate) const KERNEL_CRATES: [&str; 2] = ["throttle-ebpf", "tests/ebpf"];

/// The top of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository")
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where `setup` installs the tools that cargo builds; always here, so that build scripts find them.
pub(crate) fn tools() -> PathBuf {
    root().join("target/tools")
}

/// The agent, once [`build_agent`] has returned.
pub(crate) fn agent() -> PathBuf {
    target().join("release/throttle")
}

/// The cargo that started this program, run at the top of the repository.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Builds the release agent, its kernel program included.
pub(crate) fn build_agent() -> Result<()> {
    process::step("build the agent and its kernel program", || {
        process::run(cargo().args(["build", "--release", "--package", "throttle-agent"]))
            .context("build the agent: the compiler's message is above")
    })
}
