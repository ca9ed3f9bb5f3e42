//! The helpers that a kernel program calls, counted where they are called: by the kernel's function tracer, in an instance
//! of its own that sees this thread alone. What the compiler of the kernel has made part of the program is no call.

use anyhow::{Context, Result};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

use crate::machine;

/// Where tracefs is mounted, if it is.
const TRACING: &str = "/sys/kernel/tracing";
/// The functions among which helpers are, by their names.
const CANDIDATES: &str = "bpf_*\n*_map_*_elem\n*htab*elem*\ntrie_*\n";

/// The tracer, until it is dropped.
pub struct Tracer {
    instance: PathBuf,
    _mount: Option<Mount>,
}

impl Tracer {
    /// Makes an instance of it.
    pub fn new() -> Result<Self> {
        let mounted = Path::new(TRACING).join("instances").is_dir();
        let mount = if mounted { None } else { Some(Mount::new()?) };
        let root = mount.as_ref().map_or(Path::new(TRACING), |mount| mount.0.path());
        let instance = root.join("instances").join(format!("throttle-{}", std::process::id()));
        fs::create_dir(&instance).context("the kernel has no function tracer that can be had apart")?;
        Ok(Self { instance, _mount: mount })
    }

    /// How often each helper is called by kernel programs in what `run` does on this thread.
    pub fn calls(&self, run: impl FnOnce() -> Result<()>) -> Result<Vec<(String, u32)>> {
        self.write("set_ftrace_filter", CANDIDATES)?;
        self.write("set_ftrace_pid", &rustix::thread::gettid().as_raw_nonzero().to_string())?;
        self.write("current_tracer", "function")?;
        let ran = run();
        self.write("tracing_on", "0")?;
        let trace = fs::read_to_string(self.instance.join("trace")).context("read the trace")?;
        self.write("current_tracer", "nop")?;
        ran?;
        Ok(called_by_programs(&trace))
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        fs::write(self.instance.join(file), text).with_context(|| format!("set the function tracer's {file}"))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.instance) {
            machine::print(&format!("left behind: {}: {error}", self.instance.display()));
        }
    }
}

/// Lines of the trace: `TASK-PID [CPU] FLAGS TIME: FUNCTION <-CALLER`.
fn called_by_programs(trace: &str) -> Vec<(String, u32)> {
    let mut calls = BTreeMap::new();
    for line in trace.lines().filter(|line| !line.starts_with('#')) {
        if let Some((before, caller)) = line.split_once(" <-")
            && is_program(caller)
            && let Some(function) = before.split_whitespace().next_back()
        {
            *calls.entry(function.to_owned()).or_default() += 1;
        }
    }
    calls.into_iter().collect()
}

/// Whether a symbol is a program's: `bpf_prog_`, its tag in 16 digits, and its name.
fn is_program(symbol: &str) -> bool {
    let tag = symbol.strip_prefix("bpf_prog_").and_then(|rest| rest.get(..16));
    tag.is_some_and(|tag| tag.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A mount of tracefs of our own.
struct Mount(TempDir);

impl Mount {
    fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("throttle-tests-").tempdir()?;
        machine::run(Command::new("mount").args(["-t", "tracefs", "tracefs"]).arg(directory.path()))
            .context("the kernel has no tracefs")?;
        Ok(Self(directory))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = machine::run(Command::new("umount").arg(self.0.path())) {
            machine::print(&format!("left behind: {error:#}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_programs_call_is_counted() {
        let trace = "# tracer: function\n\
                     bench-7 [001] ..... 1.000001: bpf_ktime_get_ns <-bpf_prog_6deef7357e7b4530_throttle\n\
                     bench-7 [001] ..... 1.000002: bpf_test_run <-bpf_prog_test_run_xdp\n\
                     bench-7 [001] ..... 1.000003: bpf_map_free <-bpf_map_put\n\
                     bench-7 [001] ..... 1.000004: bpf_ktime_get_ns <-bpf_prog_6deef7357e7b4530_several\n";
        assert_eq!(called_by_programs(trace), [("bpf_ktime_get_ns".to_owned(), 2)]);
    }
}
