//! What compiles the kernel programs, and what checks the dependencies.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::find;
use crate::{process, workspace};

/// The linker's version that the kernel programs are built and tested with.
const BPF_LINKER: &str = "0.10.3";
/// A release of cargo-deny that the pinned toolchain builds.
const CARGO_DENY: &str = "0.20.2";

/// All that compiling for the kernel needs.
pub(crate) fn kernel_toolchain() -> Result<()> {
    rust_source()?;
    bpf_linker().map(drop)
}

/// The standard library's source: `core` is compiled from it for the kernel.
fn rust_source() -> Result<()> {
    if has_rust_source()? {
        return Ok(());
    }
    let toolchain = pinned_toolchain();
    let rustup = ["component", "add", "rust-src", "--toolchain", toolchain];
    if find("rustup").is_none() {
        bail!("rust-src of Rust {toolchain} is missing: run `rustup {}`", rustup.join(" "));
    }
    process::step(&format!("install rust-src of Rust {toolchain}"), || {
        process::run(Command::new("rustup").args(rustup)).context("download rust-src: is there a network?")
    })
}

pub(crate) fn has_rust_source() -> Result<bool> {
    let sysroot = process::output(Command::new("rustc").current_dir(workspace::root()).args(["--print", "sysroot"]))?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir())
}

/// The linker of kernel programs; the build scripts look for it in the same order.
fn bpf_linker() -> Result<PathBuf> {
    if let Some(linker) = installed_bpf_linker()? {
        return Ok(linker);
    }
    install("bpf-linker", BPF_LINKER)
}

pub(crate) fn installed_bpf_linker() -> Result<Option<PathBuf>> {
    if let Some(linker) = env::var_os("THROTTLE_BPF_LINKER").map(PathBuf::from) {
        if !linker.is_file() {
            bail!("THROTTLE_BPF_LINKER names {}, which is no file: unset it", linker.display());
        }
        return Ok(Some(linker));
    }
    Ok(installed("bpf-linker", BPF_LINKER))
}

/// The checker of the dependencies' licences, sources and advisories.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    installed("cargo-deny", CARGO_DENY).map_or_else(|| install("cargo-deny", CARGO_DENY), Ok)
}

/// A tool of exactly this version, among ours or on the PATH.
fn installed(tool: &str, version: &str) -> Option<PathBuf> {
    [Some(tool_path(tool)), find(tool)].into_iter().flatten().find(|path| {
        process::output(Command::new(path).arg("--version"))
            .is_ok_and(|said| said.split_whitespace().any(|word| word == version))
    })
}

/// Unoptimised: that takes half as long to build, and what they then do takes no longer that anybody sees.
fn install(tool: &str, version: &str) -> Result<PathBuf> {
    let tools = workspace::tools();
    process::step(&format!("build {tool} {version} into {} (a minute or two)", tools.display()), || {
        process::run(
            workspace::cargo()
                .args(["install", tool, "--version", version, "--locked", "--force", "--debug", "--root"])
                .arg(&tools),
        )
        .with_context(|| format!("build {tool}: cargo's message is above; it needs a network and a C compiler"))
    })?;
    Ok(tool_path(tool))
}

fn tool_path(tool: &str) -> PathBuf {
    workspace::tools().join("bin").join(tool)
}

/// The channel that `rust-toolchain.toml` pins.
pub(crate) fn pinned_toolchain() -> &'static str {
    include_str!("../../../rust-toolchain.toml")
        .lines()
        .find_map(|line| line.strip_prefix("channel = ")?.strip_prefix('"')?.strip_suffix('"'))
        .expect("rust-toolchain.toml pins a channel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_toolchain_is_a_version() {
        assert_eq!(pinned_toolchain().split('.').count(), 3, "{}", pinned_toolchain());
    }

    #[test]
    fn a_tool_of_another_version_counts_as_missing() {
        assert!(installed("cargo", "0.0.1").is_none());
    }
}
