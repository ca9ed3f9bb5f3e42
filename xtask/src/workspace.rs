//! Where things are in this repository, and how cargo is called on them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, io, thread};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

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

/// The cargo that started this program, run at the top of the repository.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// A build of the agent. Its kernel programs are optimised in both.
#[derive(Clone, Copy)]
pub(crate) enum Agent {
    /// For a first look and for tests: it compiles in half the time.
    Quick,
    /// For real interfaces, and for figures.
    Release,
}

impl Agent {
    /// Where it is once it is built.
    pub(crate) fn path(self) -> PathBuf {
        target().join(match self {
            Self::Quick => "debug/throttle",
            Self::Release => "release/throttle",
        })
    }

    /// Builds it, its kernel programs included, and says where it is.
    pub(crate) fn build(self) -> Result<PathBuf> {
        let mut build = cargo();
        build.args(["build", "--package", "throttle-agent"]);
        if matches!(self, Self::Release) {
            build.arg("--release");
        }
        process::step("build the agent and its kernel programs", || {
            process::run(&mut build).context("build the agent: the compiler's message is above")
        })?;
        Ok(self.path())
    }
}

/// A binary that cargo has built.
pub(crate) struct Executable {
    /// The manifest of its package.
    pub(crate) manifest: PathBuf,
    /// The name of its target, and what that is: `lib`, `bin` or `test`.
    pub(crate) target: String,
    pub(crate) kind: String,
    /// Whether it runs tests.
    pub(crate) tests: bool,
    pub(crate) path: PathBuf,
}

/// Runs a cargo command that builds, and gives what came of it.
pub(crate) fn executables(build: &mut Command) -> Result<Vec<Executable>> {
    build.args(["--message-format", "json-render-diagnostics"]).stdout(Stdio::piped());
    let mut child = process::spawn(build)?;
    let stdout = child.stdout.take().expect("stdout is piped");
    let reader = thread::spawn(|| io::read_to_string(stdout));
    let status = process::wait(&mut child)?;
    let messages = reader.join().expect("reading does not panic")?;
    if !status.success() {
        process::ensure_wanted()?;
        bail!("`{}` failed: the compiler's message is above", process::words(build));
    }
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let executable = |message: Value| {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some(Executable {
            path: text(&message["executable"])?.into(),
            manifest: text(&message["manifest_path"])?.into(),
            target: text(&message["target"]["name"])?,
            kind: text(&message["target"]["kind"][0])?,
            tests: message["profile"]["test"].as_bool()?,
        })
    };
    Ok(messages.filter_map(executable).collect())
}
