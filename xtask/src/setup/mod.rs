//! What building, testing and showing the throttle needs, installed where it is missing.
//!
//! Every command asks for exactly what it is about to use; what is there already costs a glance. Tools that
//! cargo builds go to `target/tools`, nothing of the user's is touched. What may not be installed (no root, no
//! apt) is an error that names the command which does it.

mod packages;
mod toolchain;

use std::env;

use anyhow::{Result, bail};

pub(crate) use packages::{PACKAGES, Programs};
pub(crate) use toolchain::{cargo_deny, has_rust_source, installed_bpf_linker, kernel_toolchain, pinned_toolchain};

/// `cargo xtask setup`: all that any command needs, but for the emulator of `vm-test`, which installs that itself.
pub(crate) fn everything() -> Result<()> {
    kernel_toolchain()?;
    cargo_deny()?;
    Programs::All.install()?;
    eprintln!("everything is in place; `cargo xtask demo` is next");
    Ok(())
}

/// Refuses to go on without root; `what` says which command asks and `why` it does.
pub(crate) fn root(what: &str, why: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    let sudo = "sudo env \"PATH=$PATH\" \"HOME=$HOME\"";
    bail!("{what} needs root {why}: run `{sudo} cargo xtask {what}`");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where a program is, on the PATH or where Debian puts what only root uses.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}
