//! Builds before this one, from the repository's history: the last whose maps were of another layout, and the last whose
//! kernel programs were others.
//!
//! Each takes a minute or more once, and is kept in `target/previous`; what both are made of is built once.

use crate::{machine, say};
use anyhow::{Context, Result, bail, ensure};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The last commit with layout 4. With another layout comes another commit.
const COMMIT: &str = "75d7a09a4bf6e84a67cb033d0ba5917ddd51ccc1";
/// The layout of its maps.
pub const LAYOUT: u64 = 4;

/// What makes a kernel program another one.
const SOURCES: [&str; 3] = ["throttle-common/src", "throttle-ebpf/src", ":(exclude)*tests.rs"];
/// How many commits that touch it are looked at, each a build.
const LOOKS: &str = "8";

/// The binary of the last commit with another layout. `None`, said aloud, where the history does not reach back to it.
pub fn previous() -> Result<Option<PathBuf>> {
    build(COMMIT)
}

/// The binary of the last commit whose kernel programs are others, as `is_other` finds, with that commit: between two builds
/// with the same programs none is replaced. `None`, said aloud, where the history does not reach back to one.
///
/// What touches the sources of programs often leaves the programs as they were: builds are looked at back to the first other.
pub fn other_programs(is_other: impl Fn(&Path) -> Result<bool>) -> Result<Option<(String, PathBuf)>> {
    let Some(commits) = said(git()?.args(["rev-list", "--max-count", LOOKS, "HEAD", "--"]).args(SOURCES)) else {
        skipped("a commit");
        return Ok(None);
    };
    for commit in commits.lines() {
        let named = format!("{commit}^");
        let Some(before) = said(git()?.args(["rev-parse", "--verify", "--quiet", &named])) else {
            skipped(&named);
            return Ok(None);
        };
        match build(&before)? {
            Some(binary) if is_other(&binary)? => return Ok(Some((before, binary))),
            Some(_) => say!("{before} has the same programs as this build"),
            None => return Ok(None),
        }
    }
    bail!("none of the last {LOOKS} commits that touch {SOURCES:?} has other programs than this build")
}

/// What git says, where it can say it.
fn said(git: &mut Command) -> Option<String> {
    let output = git.stderr(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn skipped(commit: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    say!("skipped {test}: the history does not reach back to {commit}; git fetch --unshallow brings it");
}

fn workspace() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests lie in the workspace")
}

fn git() -> Result<Command> {
    let mut git = Command::new("git");
    git.arg("-C").arg(workspace()?);
    Ok(git)
}

fn build(commit: &str) -> Result<Option<PathBuf>> {
    let all = workspace()?.join("target/previous");
    let place = all.join(commit);
    fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
    let binary = place.join("throttle");
    // Whoever comes second waits for the first, and finds it built.
    let lock = File::create(all.join("lock")).context("lock the builds of earlier commits")?;
    lock.lock().context("lock the builds of earlier commits")?;
    if binary.is_file() {
        return Ok(Some(binary));
    }
    let known = git()?.args(["cat-file", "-e", &format!("{commit}^{{commit}}")]).stderr(Stdio::null()).status();
    if !known.is_ok_and(|status| status.success()) {
        skipped(commit);
        return Ok(None);
    }
    say!("building {commit}; this is done once");
    let scratch = tempfile::Builder::new().prefix("build-").tempdir_in(&place)?;
    let (source, target) = (scratch.path().join("source"), all.join("target"));
    fs::create_dir(&source)?;
    let mut archive = git()?.args(["archive", commit]).stdout(Stdio::piped()).spawn().context("run git archive")?;
    let tree = archive.stdout.take().context("git archive has an output")?;
    // Each file as if written now: builds share what they are made of, and cargo tells by that what has changed.
    let unpacked =
        Command::new("tar").args(["-x", "--touch"]).current_dir(&source).stdin(tree).status().context("run tar")?;
    ensure!(archive.wait()?.success() && unpacked.success(), "the sources of {commit} cannot be unpacked");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked", "--package", "throttle-agent", "--bin", "throttle", "--target-dir"]);
    let linker = workspace()?.join("target/tools/bin/bpf-linker");
    if linker.is_file() && std::env::var_os("THROTTLE_BPF_LINKER").is_none() {
        cargo.env("THROTTLE_BPF_LINKER", linker);
    }
    machine::run(cargo.arg(&target).current_dir(&source)).with_context(|| format!("build {commit}"))?;
    // Whole or not at all.
    let built = scratch.path().join("throttle");
    fs::copy(target.join("debug/throttle"), &built).context("find what was built")?;
    fs::rename(built, &binary).context("keep what was built")?;
    Ok(Some(binary))
}
