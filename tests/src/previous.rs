//! The build before this one's layout: the last commit whose maps were of another, built from the repository's history.
//!
//! It takes minutes once, and is kept in `target/previous`.

use crate::{machine, say};
use anyhow::{Context, Result, ensure};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The last commit with layout 3. With another layout comes another commit.
const COMMIT: &str = "8c6095b84ba23deb95d02f562b1b8c35bd384344";
/// The layout of its maps.
pub const LAYOUT: u64 = 3;

/// The binary of that commit. `None`, said aloud, where the history does not reach back to it.
pub fn previous() -> Result<Option<PathBuf>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests lie in the workspace")?;
    let place = workspace.join("target/previous").join(COMMIT);
    fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
    let binary = place.join("throttle");
    // Whoever comes second waits for the first, and finds it built.
    let lock = File::create(place.join("lock")).context("lock the build of the previous layout")?;
    lock.lock().context("lock the build of the previous layout")?;
    if binary.is_file() {
        return Ok(Some(binary));
    }
    let git = || {
        let mut git = Command::new("git");
        git.arg("-C").arg(workspace);
        git
    };
    let known = git().args(["cat-file", "-e", &format!("{COMMIT}^{{commit}}")]).stderr(Stdio::null()).status();
    if !known.is_ok_and(|status| status.success()) {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        say!("skipped {test}: the history does not reach back to {COMMIT}; git fetch --unshallow brings it");
        return Ok(None);
    }
    say!("building {COMMIT}, the last one with layout {LAYOUT}; this is done once");
    let scratch = tempfile::Builder::new().prefix("build-").tempdir_in(&place)?;
    let (source, target) = (scratch.path().join("source"), scratch.path().join("target"));
    fs::create_dir(&source)?;
    let mut archive = git().args(["archive", COMMIT]).stdout(Stdio::piped()).spawn().context("run git archive")?;
    let tree = archive.stdout.take().context("git archive has an output")?;
    let unpacked = Command::new("tar").arg("-x").current_dir(&source).stdin(tree).status().context("run tar")?;
    ensure!(archive.wait()?.success() && unpacked.success(), "the sources of {COMMIT} cannot be unpacked");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked", "--package", "throttle-agent", "--bin", "throttle", "--target-dir"]);
    let linker = workspace.join("target/tools/bin/bpf-linker");
    if linker.is_file() && std::env::var_os("THROTTLE_BPF_LINKER").is_none() {
        cargo.env("THROTTLE_BPF_LINKER", linker);
    }
    machine::run(cargo.arg(&target).current_dir(&source)).context("build the previous layout")?;
    // Whole or not at all.
    let built = scratch.path().join("throttle");
    fs::copy(target.join("debug/throttle"), &built).context("find what was built")?;
    fs::rename(built, &binary).context("keep what was built")?;
    Ok(Some(binary))
}
